"""Gated linear units: one half of a tensor gates the other.

`z` is split along `dim` into z1, the first half, and z2, the second. **Which half gates differs:**
in `glu` it is the second, as in torch; in `swiglu`, `geglu` and `reglu` it is the first, as in
Shazeer's paper. Weights trained in the other order have their halves swapped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn.activations.rectified import relu
from fdnn.activations.smooth import gelu, swish
from fdnn.types import Scalar

__all__ = ["geglu", "glu", "reglu", "swiglu"]


def glu(z: Tensor, dim: int = -1) -> Tensor:
    """Gated linear unit: z1 * sigmoid(z2). The second half gates, as in torch.

    Args:
        z: a tensor whose size along `dim` is even.
        dim: the dimension that is halved.

    Returns:
        A tensor with half of that size.

    Raises:
        ValueError: the size is odd, or `z` has no dimension.

    Example:
        >>> glu(torch.tensor([3.0, 8.0, 0.0, -torch.inf]))
        tensor([1.5000, 0.0000])

    References:
        Dauphin, Fan, Auli, Grangier (2017), "Language modeling with gated convolutional networks".
    """
    # Not `F.glu`: its forward derivative has no batching rule, which Hessians need.
    z1, z2 = _halves(z, dim)
    return z1 * torch.sigmoid(z2)


def swiglu(z: Tensor, beta: Scalar = 1.0, dim: int = -1) -> Tensor:
    """Swish-gated linear unit: swish(z1, `beta`) * z2. The first half gates.

    `F.silu(beta * z1) * z2`, which one also meets, is `beta` times as much.

    Args:
        z: a tensor whose size along `dim` is even.
        beta: as in `swish`: a number, or a tensor that broadcasts to z1 and may be learned.
        dim: the dimension that is halved.

    Returns:
        A tensor with half of that size.

    Raises:
        ValueError: the size is odd, or `z` has no dimension.

    Example:
        >>> swiglu(torch.tensor([1.0, 0.0, 2.0, 5.0]))
        tensor([1.4621, 0.0000])

    References:
        Shazeer (2020), "GLU variants improve transformer".
    """
    z1, z2 = _halves(z, dim)
    return swish(z1, beta) * z2


def geglu(z: Tensor, dim: int = -1) -> Tensor:
    """Gelu-gated linear unit: gelu(z1) * z2. The first half gates.

    Args:
        z: a tensor whose size along `dim` is even.
        dim: the dimension that is halved.

    Returns:
        A tensor with half of that size.

    Raises:
        ValueError: the size is odd, or `z` has no dimension.

    Example:
        >>> geglu(torch.tensor([1.0, 0.0, 2.0, 5.0]))
        tensor([1.6827, 0.0000])

    References:
        Shazeer (2020), "GLU variants improve transformer".
    """
    z1, z2 = _halves(z, dim)
    return gelu(z1) * z2


def reglu(z: Tensor, dim: int = -1) -> Tensor:
    """Relu-gated linear unit: relu(z1) * z2. The first half gates.

    Args:
        z: a tensor whose size along `dim` is even.
        dim: the dimension that is halved.

    Returns:
        A tensor with half of that size.

    Raises:
        ValueError: the size is odd, or `z` has no dimension.

    Example:
        >>> reglu(torch.tensor([1.0, -1.0, 2.0, 5.0]))
        tensor([2., 0.])

    References:
        Shazeer (2020), "GLU variants improve transformer".
    """
    z1, z2 = _halves(z, dim)
    return relu(z1) * z2


def _halves(z: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    if z.ndim == 0 or z.shape[dim] % 2:
        raise ValueError(f"`z` must have an even size along `dim` {dim}, got {tuple(z.shape)}")
    half = z.shape[dim] // 2
    return z.narrow(dim, 0, half), z.narrow(dim, half, half)
