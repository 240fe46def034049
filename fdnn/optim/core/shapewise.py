"""Functions that look at shapes, for all leaves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fdnn import tree
from fdnn.types import Tree

__all__ = ["all_but_first", "shapewise", "unit_norm"]


def shapewise(fn: Callable[..., Tensor], stored: Tree, *rest: Tree) -> Tree:
    """Apply `fn` to every leaf in its own shape: `tree.map`, but for complex numbers.

    Parts get complex numbers as pairs of reals, one more dimension. Here they are put together
    before `fn` and taken apart again behind it.

    Args:
        fn: takes one leaf of each tree of `rest`, and returns a tensor like it.
        stored: the leaves as they are stored.
        *rest: trees of that structure, widened.

    Example:
        >>> pairs = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> shapewise(lambda z: z / z.abs().max(), torch.ones(2) * 1j, pairs)
        tensor([[0.6000, 0.8000],
                [0.0000, 0.4000]])
    """

    def apply(like: Tensor, *leaves: Tensor) -> Tensor:
        if not like.is_complex():
            return fn(*leaves)
        return torch.view_as_real(fn(*map(torch.view_as_complex, leaves)))

    return tree.map(apply, stored, *rest)


def all_but_first(x: Tensor) -> tuple[int, ...]:
    """List the dimensions over which a unit's weights run: a neuron's, a kernel's.

    Example:
        >>> all_but_first(torch.ones(8, 3, 5, 5))
        (1, 2, 3)
    """
    return tuple(range(1, x.ndim))


def unit_norm(x: Tensor, dim: tuple[int, ...] | None = None) -> Tensor:
    """Return the Euclidean norm over `dim` (or of all of `x`), in dimensions that broadcast.

    Example:
        >>> unit_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), (1,))
        tensor([[5.],
                [0.]])
    """
    norm: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return norm
