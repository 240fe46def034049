"""Many trees as one, and a tree as one vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from fdnn.tree.compare import assert_same_structure
from fdnn.tree.containers import named_leaves, relabel, spec
from fdnn.tree.mapping import leaves, map, paths

__all__ = [
    "ravel",
    "stack",
    "unstack",
]

T = TypeVar("T")
"""A tree of one type; what comes back is of the same."""


def stack(trees: Sequence[T], dim: int = 0) -> T:
    """Stack trees of equal structure leaf by leaf: many runs become one batched run.

    Args:
        trees: at least one tree.
        dim: the new dimension.

    Raises:
        ValueError: `trees` is empty, or the structures differ (the message names the path).

    Example:
        >>> stack([{"w": torch.zeros(3)}, {"w": torch.ones(3)}])["w"].shape
        torch.Size([2, 3])
    """
    if not trees:
        raise ValueError("`trees` must hold at least one tree, got none")
    for other in trees[1:]:
        assert_same_structure(trees[0], other)
    stacked: T = map(lambda *xs: torch.stack(xs, dim), *trees)
    return stacked


def unstack(tree: T, dim: int = 0) -> list[T]:
    """Undo `stack`: one tree for each index along `dim`.

    Raises:
        ValueError: a leaf has no dimension `dim`, the leaves disagree about its size, or there
            are no leaves.

    Example:
        >>> [t["w"].item() for t in unstack({"w": torch.tensor([1, 2])})]
        [1, 2]
    """
    sizes: dict[int, str] = {}
    for path, leaf in named_leaves(tree):
        if not -leaf.ndim <= dim < leaf.ndim:
            raise ValueError(f"at path {path!r}: expected a dimension {dim}, found {spec(leaf)}")
        sizes.setdefault(leaf.shape[dim], f"{leaf.shape[dim]} at path {path!r}")
    if len(sizes) != 1:
        found = ", ".join(sizes.values()) or "no leaves"
        raise ValueError(f"`tree` must have one size along dimension {dim}, got {found}")
    return [map(lambda x, i=i: x.select(dim, i), tree) for i in range(*sizes)]


def ravel(tree: T) -> tuple[Tensor, Callable[[Tensor], T]]:
    """Lay all leaves end to end in one vector, in the widest of their dtypes.

    Returns:
        The vector, and the function that cuts such a vector into the tree again, each leaf in
        its own shape and dtype.

    Raises:
        ValueError: integers, real and complex numbers are mixed: no dtype holds them all exactly.

    Example:
        >>> vector, unravel = ravel({"a": torch.ones(2), "b": torch.zeros(())})
        >>> vector, unravel(vector)["b"]
        (tensor([1., 1., 0.]), tensor(0.))
    """
    parts, places = leaves(tree), relabel(tree, iter(range(len(paths(tree)))))
    for path, part in named_leaves(tree):
        if _kind(part) != _kind(parts[0]):
            raise ValueError(f"at path {path!r}: expected {_kind(parts[0])}, found {spec(part)}")
    specs = [(part.shape, part.dtype) for part in parts]
    sizes = [part.numel() for part in parts]
    vector = torch.cat([part.reshape(-1) for part in parts]) if parts else torch.zeros(0)

    def unravel(vector: Tensor) -> T:
        if vector.shape != (sum(sizes),):
            raise ValueError(f"`vector` must have shape ({sum(sizes)},), got {tuple(vector.shape)}")
        pieces = zip(torch.split(vector, sizes), specs, strict=True)
        cut = [p.reshape(s).to(d) for p, (s, d) in pieces]
        whole: T = map(lambda place: cut[place], places)
        return whole

    return vector, unravel


def _kind(leaf: Tensor) -> str:
    return "complex" if leaf.is_complex() else "real" if leaf.is_floating_point() else "integers"
