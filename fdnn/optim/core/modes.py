"""For optimizers that look at shapes: leaves by path, and matrices along a tensor's dimensions.

A slot of such an optimizer holds something for some leaves only (a matrix for each dimension, row
sums). It is a flat dict from the leaf's path, in which the other leaves have no entry: tensors
only, whatever containers the parameters are in, so that it vmaps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.types import Tree

__all__ = [
    "Matrices",
    "eigh",
    "gram",
    "like",
    "mode_product",
    "real_leaves",
    "square_zeros",
]

Matrices = dict[str, Tensor]
"""A square matrix for some dimensions of a tensor, by the dimension's number ("0", "1", ...)."""


def like(leaves: Tree, values: dict[str, Any]) -> Tree:
    """Put what `tree.select` gave, or others in its place, back into the containers of `leaves`."""
    return tree.map_with_path(lambda path, _: values[path], leaves)


def real_leaves(name: str, params: Tree) -> dict[str, Tensor]:
    """Return the parameters by path, or raise TypeError if one is complex."""
    found = tree.select(params)
    for path, leaf in found.items():
        if leaf.is_complex():
            raise TypeError(
                f"at path {path!r}: `{name}` expects real parameters, "
                f"found {str(leaf.dtype).removeprefix('torch.')}; "
                "give complex ones another optimizer with `optim.partition`"
            )
    return found


def square_zeros(
    leaves: dict[str, Tensor], dims: Callable[[Tensor], Iterable[int]]
) -> dict[str, Matrices]:
    """Return a matrix of zeros for some dimensions of each leaf that has elements.

    Its dtype is the leaf's, or float32 where that is half.

    Args:
        leaves: by path.
        dims: the dimensions of a leaf that have a matrix.
    """
    found = {}
    for path, leaf in leaves.items():
        half = leaf.dtype in (torch.float16, torch.bfloat16)
        dtype = torch.float32 if half else leaf.dtype
        sizes = {str(i): leaf.shape[i] for i in dims(leaf)} if leaf.numel() else {}
        if sizes:
            found[path] = {i: leaf.new_zeros((n, n), dtype=dtype) for i, n in sizes.items()}
    return found


def gram(x: Tensor, dim: int) -> Tensor:
    """Return the matrix of inner products of the slices of `x` along a dimension.

    Example:
        >>> gram(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), 0)
        tensor([[5., 2.],
                [2., 1.]])
    """
    rows = x.movedim(dim, 0).flatten(1) if x.ndim > 1 else x.unsqueeze(1)
    return rows @ rows.mT


def mode_product(x: Tensor, matrices: Matrices, *, transpose: bool = False) -> Tensor:
    """Multiply `x` by a matrix (or its transpose) along each dimension that has one.

    Example:
        >>> mode_product(torch.eye(2), {"1": torch.tensor([[0.0, 2.0], [1.0, 0.0]])})
        tensor([[0., 1.],
                [2., 0.]])
    """
    for name, matrix in matrices.items():
        dim, along = int(name), 0 if transpose else 1
        x = torch.tensordot(x, matrix.to(x.dtype), dims=([dim], [along])).movedim(-1, dim)
    return x


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors, NaN for a matrix that is not finite.

    torch raises for that, and one lane of a vmapped run that diverges would end them all.
    """
    finite = torch.isfinite(matrix).all()
    values, vectors = torch.linalg.eigh(torch.where(finite, matrix, 0.0))
    return torch.where(finite, values, torch.nan), torch.where(finite, vectors, torch.nan)
