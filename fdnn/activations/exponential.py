"""Activations made of exponentials: saturating on the left, linear on the right."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["celu", "elu", "selu", "softplus"]


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Exponential linear unit: x if x > 0, else `alpha` * (exp(x) - 1).

    At 0 the derivative is `alpha`, that from the left.

    Args:
        x: a tensor of any shape.
        alpha: minus the value far to the left. With 1 the derivative is continuous.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> elu(torch.tensor([-torch.inf, 0.0, 3.0]), alpha=0.5)
        tensor([-0.5000,  0.0000,  3.0000])

    References:
        Clevert, Unterthiner, Hochreiter (2016), "Fast and accurate deep network learning by
        exponential linear units (ELUs)".
    """
    return F.elu(x, alpha)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Elu with a continuous derivative: max(x, 0) + min(0, `alpha` * (exp(x / `alpha`) - 1)).

    Args:
        x: a tensor of any shape.
        alpha: minus the value far to the left.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        ValueError: `alpha` is 0.

    Example:
        >>> celu(torch.tensor([-torch.inf, 0.0, 3.0]), alpha=0.5)
        tensor([-0.5000,  0.0000,  3.0000])

    References:
        Barron (2017), "Continuously differentiable exponential linear units".
    """
    if alpha == 0:
        raise ValueError(f"`alpha` must not be 0, got {alpha}")
    return F.celu(x, alpha)


def selu(x: Tensor) -> Tensor:
    """Scaled elu, which draws means to 0 and variances to 1 from layer to layer.

    selu(x) = lambda * (x if x > 0, else alpha * (exp(x) - 1)), where alpha = 1.6733 and
    lambda = 1.0507 are such that selu of a standard normal variable has mean 0 and variance 1.
    Both are computed from the paper's closed form. At 0 the derivative is lambda * alpha.

    Weights of variance 1 / fan_in belong to it: `initializers.for_activation("selu")`.

    Args:
        x: a tensor of any shape.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> selu(torch.tensor([-torch.inf, 0.0, 1.0]))
        tensor([-1.7581,  0.0000,  1.0507])

    References:
        Klambauer, Unterthiner, Mayr, Hochreiter (2017), "Self-normalizing neural networks",
        equation 14.
    """
    # The operator behind `F.elu`, which takes the scale too.
    activated: Tensor = torch.ops.aten.elu.default(x, _ALPHA, _LAMBDA)
    return activated


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """Smooth relu: log(1 + exp(`beta` * x)) / `beta`.

    Args:
        x: a tensor of any shape.
        beta: how sharp the bend is; the largest difference from relu is log(2) / `beta`, at 0.
        threshold: where `beta` * x is above it the result is x itself.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> softplus(torch.tensor([-torch.inf, 0.0, 30.0]))
        tensor([ 0.0000,  0.6931, 30.0000])

    References:
        Dugas, Bengio, Bélisle, Nadeau, Garcia (2001), "Incorporating second-order functional
        knowledge for better option pricing".
    """
    return F.softplus(x, beta, threshold)


def _fixed_point() -> tuple[float, float]:
    """Solve E[selu(z)] = 0 and E[selu(z)^2] = 1 for z from N(0, 1): alpha and lambda."""
    # E[exp(z); z < 0] and E[exp(2z); z < 0]
    once = math.exp(0.5) * math.erfc(math.sqrt(0.5)) / 2
    twice = math.exp(2.0) * math.erfc(math.sqrt(2.0)) / 2
    # E[z; z > 0] + alpha E[exp(z) - 1; z < 0] = 0
    alpha = 1 / math.sqrt(2 * math.pi) / (0.5 - once)
    # lambda^2 (E[z^2; z > 0] + alpha^2 E[(exp(z) - 1)^2; z < 0]) = 1
    return alpha, 1 / math.sqrt(0.5 + alpha**2 * (twice - 2 * once + 0.5))


_ALPHA, _LAMBDA = _fixed_point()
