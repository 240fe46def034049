"""Checks of functions of one tensor that act on each number by itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, vmap
from torch.func import grad, jvp

Curve = Callable[[Tensor], Tensor]

FLOATS = [torch.float64, torch.float32, torch.bfloat16]
# The ends, the kinks of every activation, and a multiple of torch's vector length.
POINTS = [
    *(-math.inf, -1e30, -100.0, -6.0, -3.0, -1.5, -1.0, -0.7, -1e-3, -0.0),
    *(0.0, 1e-3, 0.5, 1.0, 1.7, 2.0, 3.0, 6.0, 10.0, 30.0, 1e30, math.inf, math.nan),
]


def slope(fn: Curve, x: Tensor) -> Tensor:
    """The derivative at every point, by torch's tape."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(fn(x).sum(), x)[0]


def assert_same_curve(ours: Curve, theirs: Curve, dtype: torch.dtype) -> None:
    """Values, and derivatives by the tape and by transforms, at ends and kinks too."""
    x = torch.tensor(POINTS, dtype=dtype)
    eps = torch.finfo(dtype).eps
    same = {"rtol": 4 * eps, "atol": 4 * eps, "equal_nan": True}
    assert ours(x).dtype == dtype
    torch.testing.assert_close(ours(x), theirs(x), **same)
    wanted = slope(theirs, x)
    torch.testing.assert_close(slope(ours, x), wanted, **same)
    # Eagerly a lane is one number, which torch's kernels may round otherwise than a vector.
    finite = x.isfinite() & (x.abs() < 1e20)
    torch.testing.assert_close(vmap(grad(ours))(x)[finite], wanted[finite], **same)


def assert_differentiable(fn: Curve, kinks: tuple[float, ...] = ()) -> None:
    """First and second derivatives are those of the values, backward, forward and in lanes."""
    x = torch.linspace(-4.05, 4.03, 41, dtype=torch.float64)
    for kink in kinks:
        x = x[(x - kink).abs() > 1e-3]
    x.requires_grad_()
    assert torch.autograd.gradcheck(fn, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(fn, x, check_batched_grad=True)
    x = x.detach()
    forward = vmap(lambda x: jvp(fn, (x,), (torch.ones_like(x),))[1])(x)
    torch.testing.assert_close(forward, slope(fn, x))
