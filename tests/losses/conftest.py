"""Comparison of two losses, in value and in gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

Loss = Callable[..., Tensor]


def outcome(loss: Loss, args: tuple[Any, ...]) -> list[Tensor]:
    """The value, and its gradient with respect to every tensor of floats."""
    leaves = [
        arg.detach().clone().requires_grad_()
        if isinstance(arg, Tensor) and arg.is_floating_point()
        else arg
        for arg in args
    ]
    value = loss(*leaves)
    wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    # Terms that count differently, so that a gradient in the wrong place is seen.
    slope = torch.arange(1, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
    grads = torch.autograd.grad(value, wanted, slope, allow_unused=True, materialize_grads=True)
    return [value.detach(), *grads]


@pytest.fixture
def agree() -> Callable[..., None]:
    def agree(ours: Loss, theirs: Loss, *args: Any, tol: float = 1e-12) -> None:
        """In value and in gradient, nan equal to nan."""
        for found, expected in zip(outcome(ours, args), outcome(theirs, args), strict=True):
            torch.testing.assert_close(found, expected, rtol=tol, atol=tol, equal_nan=True)

    return agree
