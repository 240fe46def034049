"""The nearest point of a set: Euclidean projections of a tensor, as pure functions.

The sets are those of optax, by its names, on one tensor instead of a tree. `project` makes an
optimizer stay in one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

from fdnn.optim.core.check import check
from fdnn.types import Scalar

__all__ = [
    "projection_box",
    "projection_l2_ball",
    "projection_non_negative",
    "projection_simplex",
    "shrink",
]

Dim = int | tuple[int, ...] | None


def projection_non_negative(x: Tensor) -> Tensor:
    """Return the nearest tensor without negative elements: each of them becomes 0.

    Of complex numbers it projects the two parts.

    Example:
        >>> projection_non_negative(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    return _of_reals(lambda parts: parts.clamp(min=0.0), x)


def projection_box(x: Tensor, lower: Scalar | Tensor, upper: Scalar | Tensor) -> Tensor:
    """Return the nearest tensor between two bounds: each element is clamped.

    Of complex numbers it projects the two parts.

    Args:
        x: any tensor.
        lower: lower bound, a number or a tensor that broadcasts.
        upper: upper bound, likewise.

    Raises:
        ValueError: `lower` is a number above the number `upper`.

    Example:
        >>> projection_box(torch.tensor([-1.0, 0.5, 2.0]), 0.0, 1.0)
        tensor([0.0000, 0.5000, 1.0000])
    """
    if isinstance(lower, Real) and isinstance(upper, Real) and lower > upper:
        raise ValueError(f"`lower` must be at most `upper`, got {lower} and {upper}")

    def clamped(parts: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(parts, _like(lower, parts)), _like(upper, parts))

    return _of_reals(clamped, x)


def projection_l2_ball(x: Tensor, scale: Scalar = 1.0, dim: Dim = None) -> Tensor:
    r"""Return the nearest tensor of norm at most `scale`: $x \min(1, s / \lVert x \rVert_2)$.

    Args:
        x: any tensor.
        scale: the radius $s$.
        dim: over which the norm runs: `dim=-1` takes each row as a vector of its own. All of `x`
            is one vector if left out.

    Raises:
        ValueError: `scale` is negative.

    Example:
        >>> projection_l2_ball(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), dim=-1)
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    check(scale=(scale, 0.0, math.inf))
    return shrink(x, scale, dim)[0]


def projection_simplex(x: Tensor, scale: Scalar = 1.0, dim: int | None = None) -> Tensor:
    r"""Return the nearest tensor without negative elements whose sum is `scale`.

    $y_i = \max(x_i - \theta, 0)$ with $\theta = \max_k (\sum_{i \leq k} x_{(i)} - s) / k$, where
    $x_{(1)} \geq x_{(2)} \geq \dots$ are the elements in order. Zeros are exact.

    Args:
        x: a real tensor.
        scale: the sum $s$.
        dim: along which the elements sum to `scale`: `dim=-1` takes each row as a vector of its
            own. All of `x` is one vector if left out.

    Raises:
        ValueError: `scale` is negative, or `x` is complex.

    Example:
        >>> projection_simplex(torch.tensor([0.8, 0.6, -1.0]))
        tensor([0.6000, 0.4000, 0.0000])

    References:
        Held, Wolfe, Crowder (1974), "Validation of subgradient optimization". Duchi,
        Shalev-Shwartz, Singer, Chandra (2008), "Efficient projections onto the l1-ball for
        learning in high dimensions". The threshold is found as a maximum, which is the same.
    """
    check(scale=(scale, 0.0, math.inf))
    if x.is_complex():
        raise ValueError(f"`x` must be real, got {x.dtype}")
    if dim is None:
        return projection_simplex(x.reshape(-1), scale, 0).reshape(x.shape)
    if x.shape[dim] == 0:
        return x
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    # A shift of all elements changes nothing; beside the largest, sums are of the size of `scale`.
    shifted = wide - wide.detach().amax(dim, keepdim=True)
    ordered = shifted.movedim(dim, -1).sort(descending=True).values
    ranks = torch.arange(1, x.shape[dim] + 1, dtype=wide.dtype, device=x.device)
    thresholds = (ordered.cumsum(-1) - _like(scale, wide)) / ranks
    theta = thresholds.amax(-1).unsqueeze(dim)
    return (shifted - theta).clamp(min=0.0).to(x.dtype)


def shrink(x: Tensor, radius: Scalar, dim: Dim, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """Shrink each vector to a radius, and tell which ones were longer.

    Args:
        x: the vectors.
        radius: the largest norm. A vector counts as longer if it is so by more than rounding
            explains, so that to shrink twice is to shrink once.
        dim: over which they run (all of `x` is one if None).
        eps: added to the norm by which a vector is divided.

    Example:
        >>> shrink(torch.tensor([[3.0, 4.0], [0.0, 0.5]]), 1.0, 1)
        (tensor([[0.6000, 0.8000],
                [0.0000, 0.5000]]), tensor([[ True],
                [False]]))
    """
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else None
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=dtype)
    radius = _like(radius, norm)
    is_longer = norm > radius * (1 + 4 * torch.finfo(x.dtype).eps)
    # A radius of infinity must not reach the product, where it would spoil derivatives.
    factor = torch.where(is_longer, radius, 0.0) / torch.where(is_longer, norm + eps, 1.0)
    return torch.where(is_longer, (x * factor).to(x.dtype), x), is_longer


def _of_reals(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply an elementwise function to real numbers, or to the parts of complex ones."""
    return (
        torch.view_as_complex(fn(torch.view_as_real(x.resolve_conj()))) if x.is_complex() else fn(x)
    )


def _like(value: Scalar | Tensor, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(device=like.device, dtype=like.dtype)
    return torch.full((), value, dtype=like.dtype, device=like.device)
