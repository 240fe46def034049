"""Operations on tensors, leaf by leaf or over all leaves."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from fdnn.tree.containers import spec
from fdnn.tree.mapping import leaves, map, map_with_path
from fdnn.types import Tree

__all__ = [
    "all_finite",
    "cast",
    "global_norm",
    "where",
    "zeros_like",
]

T = TypeVar("T")
"""A tree of one type; what comes back is of the same."""


def zeros_like(tree: T, dtype: torch.dtype | None = None) -> T:
    """Return zeros of the same structure, shapes and devices.

    Example:
        >>> zeros_like({"w": torch.ones(2)})
        {'w': tensor([0., 0.])}
    """
    zeros: T = map(lambda x: torch.zeros_like(x, dtype=dtype), tree)
    return zeros


def global_norm(tree: Tree) -> Tensor:
    """Return the Euclidean norm of all leaves taken as one vector, a 0-d tensor.

    An empty tree has norm 0.

    Example:
        >>> global_norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])})
        tensor(5.)
    """
    norms = [torch.linalg.vector_norm(leaf) for leaf in leaves(tree)]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def all_finite(tree: Tree) -> Tensor:
    """Tell whether no number of a tree is nan or infinite, as a 0-d boolean tensor.

    An empty tree is finite.

    Example:
        >>> all_finite({"a": torch.tensor([1.0, torch.nan]), "b": torch.tensor(2)})
        tensor(False)
    """
    finite = [torch.isfinite(leaf).all() for leaf in leaves(tree)]
    return torch.stack(finite).all() if finite else torch.ones((), dtype=torch.bool)


def cast(tree: T, dtype: torch.dtype) -> T:
    """Convert the floating-point leaves to `dtype`; integers, booleans and keys stay.

    Example:
        >>> cast({"w": torch.ones(1), "n": torch.tensor(3)}, torch.float64)
        {'w': tensor([1.], dtype=torch.float64), 'n': tensor(3)}
    """
    converted: T = map(lambda x: x.to(dtype) if x.is_floating_point() else x, tree)
    return converted


def where(condition: Tensor, new: T, old: T) -> T:
    """Choose leaf by leaf: `new` where `condition`, else `old`. The `if` that vmaps.

    Args:
        condition: a boolean tensor, 0-d or broadcasting from the left against every leaf, so
            that shape `(lanes,)` chooses lane by lane in a stacked tree.
        new: the tree taken where `condition` holds.
        old: the tree taken elsewhere, of the same structure and shapes.

    Raises:
        ValueError: `new` and `old` differ, or `condition` does not fit a leaf.

    Example:
        >>> where(torch.tensor([True, False]), {"w": torch.ones(2, 1)}, {"w": torch.zeros(2, 1)})
        {'w': tensor([[1.],
                [0.]])}
    """
    shape = tuple(condition.shape)

    def choose(path: str, a: Tensor, b: Tensor) -> Tensor:
        aligned = shape + (1,) * (a.ndim - len(shape))
        fits = [c in (1, n) for c, n in zip(aligned, a.shape, strict=False)]
        if getattr(b, "shape", None) != a.shape or len(aligned) > a.ndim or not all(fits):
            found = f"`condition` of shape {shape}, `new` {spec(a)}, `old` {spec(b)}"
            raise ValueError(f"at path {path!r}: expected shapes that fit, found {found}")
        return torch.where(condition.reshape(aligned), a, b)

    chosen: T = map_with_path(choose, new, old)
    return chosen
