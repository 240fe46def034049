"""Modules made pure: `functionalize(module)` gives `init` and `apply`."""

from fdnn.model.functionalize import Model, functionalize

__all__ = ["Model", "functionalize"]
