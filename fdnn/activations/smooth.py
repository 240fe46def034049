"""Activations of the form x times a gate between 0 and 1: smooth relus that dip below 0."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fdnn.types import Scalar

__all__ = ["gelu", "hardswish", "mish", "silu", "swish"]


def gelu(x: Tensor, approximate: Literal["none", "tanh", "sigmoid"] = "none") -> Tensor:
    """Gaussian error linear unit: x * Phi(x), Phi the standard normal distribution function.

    "tanh" puts (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2 for Phi(x), which changes the
    result by 4.8e-4 at most; "sigmoid" puts 1 / (1 + exp(-1.702 x)), by 0.0204 at most.

    Args:
        x: a tensor of any shape.
        approximate: "none", "tanh" or "sigmoid". (torch has the first two.)

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        ValueError: `approximate` is none of these.

    Example:
        >>> gelu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.1587,  0.0000,  0.8413])
        >>> gelu(torch.tensor([-1.0, 0.0, 1.0]), "sigmoid")
        tensor([-0.1542,  0.0000,  0.8458])

    References:
        Hendrycks, Gimpel (2016), "Gaussian error linear units (GELUs)", for all three.
    """
    if approximate == "sigmoid":
        return swish(x, 1.702)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"`approximate` must be one of none, tanh, sigmoid, got {approximate!r}")
    return F.gelu(x, approximate=approximate)


def swish(x: Tensor, beta: Scalar = 1.0) -> Tensor:
    """Gate x by its own sigmoid: x / (1 + exp(-`beta` * x)).

    With `beta` 0 this is x / 2; as `beta` grows it comes to relu, from which it is
    0.2785 / `beta` away at most.

    Args:
        x: a tensor of any shape.
        beta: a number, or a tensor that broadcasts to `x` and may be learned: 0-d, (C,) where
            channels are the last dimension, (C, 1, 1) for images.

    Returns:
        A tensor of the shape of `x`.

    Example:
        >>> swish(torch.tensor([-1.0, 0.0, 1.0]), 0.6)
        tensor([-0.3543,  0.0000,  0.6457])
        >>> swish(torch.ones(2), torch.tensor([0.0, 100.0]))
        tensor([0.5000, 1.0000])

    References:
        Ramachandran, Zoph, Le (2017), "Searching for activation functions".
    """
    if not isinstance(beta, Tensor) and beta == 1:
        return F.silu(x)
    return x * torch.sigmoid(beta * x)


def silu(x: Tensor) -> Tensor:
    """Sigmoid linear unit: x / (1 + exp(-x)), which is `swish` with `beta` 1.

    Args:
        x: a tensor of any shape.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> silu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.2689,  0.0000,  0.7311])

    References:
        Elfwing, Uchibe, Doya (2018), "Sigmoid-weighted linear units for neural network function
        approximation in reinforcement learning".
    """
    return F.silu(x)


def mish(x: Tensor) -> Tensor:
    """Gate x by the tanh of its softplus: x * tanh(log(1 + exp(x))).

    Args:
        x: a tensor of any shape.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> mish(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.3034,  0.0000,  0.8651])

    References:
        Misra (2019), "Mish: a self regularized non-monotonic activation function".
    """
    return F.mish(x)


def hardswish(x: Tensor) -> Tensor:
    """Gate x by straight pieces, which cost little: x * min(max(x + 3, 0), 6) / 6.

    Args:
        x: a tensor of any shape.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> hardswish(torch.tensor([-3.0, -1.0, 0.0, 3.0]))
        tensor([-0.0000, -0.3333,  0.0000,  3.0000])

    References:
        Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam (2019),
        "Searching for MobileNetV3".
    """
    return F.hardswish(x)
