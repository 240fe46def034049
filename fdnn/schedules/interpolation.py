"""The way from one value to another, which cycles, annealings and warm-ups share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn.types import Scalar

__all__ = ["STRATEGIES", "anneal", "fraction"]

STRATEGIES = ("cos", "linear")
"""torch's names of the shapes."""


def anneal(strategy: str, start: Any, end: Any, done: Tensor) -> Tensor:
    """Return the value when the share `done` of the way from `start` to `end` is behind.

    Example:
        >>> anneal("cos", 1.0, 0.0, torch.tensor(0.5)), anneal("linear", 1.0, 0.0, torch.tensor(1))
        (tensor(0.5000), tensor(0.))
    """
    cosine = strategy == "cos"
    value: Tensor = (
        end + (start - end) / 2.0 * (torch.cos(math.pi * done) + 1)
        if cosine
        else (end - start) * done + start
    )
    return value


def fraction(count: Tensor, start: Scalar, end: Scalar) -> Tensor:
    """Return the share of the way from `start` to `end` that is behind at `count`, in [0, 1].

    Where there is no way, it is 0 before `end` and 1 from there on.

    Example:
        >>> fraction(torch.tensor([0.0, 3.0, 9.0]), 2, 6), fraction(torch.tensor([1.0, 2.0]), 2, 2)
        (tensor([0.0000, 0.2500, 1.0000]), tensor([0., 1.]))
    """
    width = end - start
    if isinstance(width, Tensor):
        safe = torch.where(width > 0, width, 1)
        return torch.where(width > 0, ((count - start) / safe).clamp(0, 1), (count >= end) * 1.0)
    if width > 0:
        return ((count - start) / width).clamp(0, 1)
    return (count >= end).to(count.dtype)
