"""Modules that several test files use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Lambda(nn.Module):
    """A module that is one function of its input."""

    def __init__(self, fn: Callable[[Tensor], Any]):
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.fn(x)
