"""Decisions that hang on tensors: Python's `if` where values can be seen, `where` elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level

from fdnn import tree

__all__ = ["can_see", "either"]


def can_see() -> bool:
    """Tell whether Python may look at a tensor's value: no transform, no compiler."""
    return not torch.compiler.is_compiling() and maybe_current_level() is None


def either(condition: Tensor, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """Return what one of two functions returns; under transforms both run.

    Args:
        condition: a boolean 0-d tensor.
        then: takes nothing and returns a tree.
        otherwise: returns a tree of the same structure.

    Example:
        >>> x = torch.tensor(-3.0)
        >>> either(x > 0, lambda: x, lambda: -x)
        tensor(3.)
    """
    if can_see():
        return then() if condition else otherwise()
    return _choose(condition, then(), otherwise())


def _choose(condition: Tensor, new: Any, old: Any) -> Any:
    if isinstance(new, Tensor):
        # Most of a state stays as it is, and a compiled graph is spared that.
        return new if new is old else torch.where(condition, new, old)
    if not isinstance(new, tuple):
        return tree.where(condition, new, old)
    chosen = [_choose(condition, a, b) for a, b in zip(new, old, strict=True)]
    return type(new)(*chosen) if hasattr(new, "_fields") else tuple(chosen)
