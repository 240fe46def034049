"""Numbers that half precision, or an integer turned to float32, would round too coarsely."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.part import scalar_like
from fdnn.types import Tree

__all__ = ["exact_copy", "exact_count", "exact_halves", "exact_values", "moved"]

_HALVES = (torch.float16, torch.bfloat16)

Halves = dict[str, Tensor]
"""Exact values, float32, of the leaves of half precision, by path; others have no entry."""


def exact_count(count: Any) -> Tensor:
    """Return a count of steps as a 0-d tensor of the precision of hyperparameters.

    Example:
        >>> exact_count(torch.tensor(3)) / 7
        tensor(0.4286, dtype=torch.float64)
    """
    counted: Tensor = scalar_like(torch.as_tensor(count), 0.0) + count
    return counted


def exact_copy(leaves: Tree) -> Tree:
    """Return copies that share no memory with `leaves`, half precision as float32.

    Example:
        >>> exact_copy({"w": torch.ones(1).half()})
        {'w': tensor([1.])}
    """
    return tree.map(
        lambda x: x.to(torch.float32 if x.dtype in _HALVES else x.dtype, copy=True), leaves
    )


def exact_halves(leaves: Tree) -> Halves:
    """Return float32 copies of the leaves of half precision.

    Example:
        >>> exact_halves({"a": torch.ones(1), "b": torch.ones(1).half()})
        {'b': tensor([1.])}
    """
    halves: Halves = exact_copy(tree.select(leaves, lambda _, x: x.dtype in _HALVES))
    return halves


def exact_values(leaves: Tree, halves: Halves) -> Tree:
    """Return leaves with the exact values in the places of those of half precision.

    An element that is farther from its exact value than rounding explains was changed by someone
    else (projected, loaded): there the leaf counts.

    Example:
        >>> exact_values({"w": torch.tensor([1.0, 0.0]).half()}, {"w": torch.tensor([1.0001, 2.0])})
        {'w': tensor([1.0001, 0.0000])}
    """

    def exact(path: str, x: Tensor) -> Tensor:
        if path not in halves:
            return x
        limits, wide = torch.finfo(x.dtype), x.to(halves[path].dtype)
        near = 4 * limits.eps * wide.abs().clamp(min=limits.smallest_normal)
        return torch.where((wide - halves[path]).abs() <= near, halves[path], wide)

    return tree.map_with_path(exact, leaves) if halves else leaves


def moved(leaves: Tree, exact: Tree, moves: Tree, halves: Halves) -> tuple[Tree, Halves]:
    """Return what to add to leaves as they are stored, and the new exact values.

    The sum is not rounded here to see what that loses: a compiler leaves out such roundings.

    Args:
        leaves: as they are stored.
        exact: what `exact_values` made of them.
        moves: what is to be added to the exact values.
        halves: the exact values so far.

    Example:
        >>> leaves, moves = {"w": torch.ones(1).half()}, {"w": torch.tensor([0.0003])}
        >>> halves = exact_halves(leaves)
        >>> for _ in range(2):  # float16 knows 1 and 1.001
        ...     steps, halves = moved(leaves, exact_values(leaves, halves), moves, halves)
        ...     leaves = {"w": leaves["w"] + steps["w"]}
        ...     print(leaves["w"].float(), halves["w"])
        tensor([1.]) tensor([1.0003])
        tensor([1.0010]) tensor([1.0006])
    """
    if not halves:
        return moves, {}
    after: Halves = {}

    def stored(path: str, x: Tensor, wide: Tensor, move: Tensor) -> Tensor:
        if path not in halves:
            return move
        after[path] = wide + move
        return (after[path] - x.to(wide.dtype)).to(x.dtype)

    return tree.map_with_path(stored, leaves, exact, moves), after
