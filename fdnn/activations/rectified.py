"""Activations made of straight pieces, and the square of one.

At a kink the derivative is torch's: that of the piece on the left for relu and its leaky kin, 0 at
both ends of hardtanh.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fdnn import random
from fdnn.types import Key

__all__ = ["hardtanh", "leaky_relu", "prelu", "relu", "relu_squared", "rrelu"]


def relu(x: Tensor) -> Tensor:
    """Cut off what is negative: max(x, 0), with derivative 0 at 0.

    Args:
        x: a tensor of any shape.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> relu(torch.tensor([-2.0, 0.0, 3.0]))
        tensor([0., 0., 3.])

    References:
        Nair, Hinton (2010), "Rectified linear units improve restricted Boltzmann machines".
    """
    return F.relu(x)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """Keep a fraction of what is negative: x if x > 0, else `negative_slope` * x.

    Args:
        x: a tensor of any shape.
        negative_slope: the derivative for x <= 0. For one that is learned, see `prelu`.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> leaky_relu(torch.tensor([-2.0, 0.0, 3.0]), 0.2)
        tensor([-0.4000,  0.0000,  3.0000])

    References:
        Maas, Hannun, Ng (2013), "Rectifier nonlinearities improve neural network acoustic models".
    """
    return F.leaky_relu(x, negative_slope)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """Keep a learned fraction of what is negative: x if x > 0, else `weight` * x.

    Args:
        x: a tensor of any shape.
        weight: one slope (0-d, or of shape (1,)), or one for each channel, of shape
            (x.shape[1],). Its derivative is the sum of x over the places where x <= 0.

    Returns:
        A tensor of the shape of `x`.

    Raises:
        ValueError: `weight` has neither one number nor one for each channel.

    Example:
        >>> prelu(torch.tensor([[-2.0, -2.0, 3.0]]), torch.tensor([0.5, 0.25, 0.0]))
        tensor([[-1.0000, -0.5000,  3.0000]])

    References:
        He, Zhang, Ren, Sun (2015), "Delving deep into rectifiers: surpassing human-level
        performance on ImageNet classification".
    """
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, channels):
        raise ValueError(
            f"`weight` must have the shape (), (1,) or ({channels},) for `x` of shape "
            f"{tuple(x.shape)}, got {tuple(weight.shape)}"
        )
    if weight.numel() == 1:
        return _leaky(x, weight.reshape(()))
    return _leaky(x, weight.reshape(-1, *(1,) * (x.ndim - 2)))


def rrelu(
    x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *, key: Key | None = None
) -> Tensor:
    """Keep a random fraction of what is negative: x if x > 0, else slope * x.

    With a key every element has a slope of its own from U(`lower`, `upper`), as in torch's
    training mode. Without one the slope is the mean, (`lower` + `upper`) / 2, as in torch's
    evaluation mode.

    Args:
        x: a tensor of any shape.
        lower: the least slope.
        upper: the greatest slope.
        key: where the slopes are drawn from.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        ValueError: `lower` is above `upper`.

    Example:
        >>> rrelu(torch.tensor([-24.0, 3.0]))
        tensor([-5.5000,  3.0000])
        >>> rrelu(torch.tensor([-24.0, 3.0]), key=random.key(0))
        tensor([-7.7383,  3.0000])

    References:
        Xu, Wang, Chen, Li (2015), "Empirical evaluation of rectified activations in convolutional
        network". There the slope is one over a draw from U(3, 8); here it is drawn itself, as in
        torch.
    """
    if not lower <= upper:
        raise ValueError(f"`lower` must not be above `upper`, got {lower} and {upper}")
    if key is None:
        return F.leaky_relu(x, (lower + upper) / 2)
    return _leaky(x, random.uniform(key, x.shape, x.dtype, lower, upper))


def relu_squared(x: Tensor) -> Tensor:
    """Square the rectified input: max(x, 0)^2.

    The first derivative 2 max(x, 0) is continuous, the second is 2 for x > 0 and 0 elsewhere.

    Args:
        x: a tensor of any shape.

    Returns:
        A tensor of the shape and dtype of `x`.

    Example:
        >>> relu_squared(torch.tensor([-2.0, 0.0, 3.0]))
        tensor([0., 0., 9.])

    References:
        So, Mańke, Liu, Dai, Shazeer, Le (2021), "Primer: searching for efficient transformers for
        language modeling".
    """
    return F.relu(x).square()


def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Cut off at both ends: min(max(x, `min_val`), `max_val`), with derivative 0 at the ends.

    Args:
        x: a tensor of any shape.
        min_val: the least value.
        max_val: the greatest value.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        ValueError: `min_val` is above `max_val`.

    Example:
        >>> hardtanh(torch.tensor([-2.0, 0.5, 3.0]))
        tensor([-1.0000,  0.5000,  1.0000])

    References:
        Collobert (2004), "Large scale machine learning".
    """
    if not min_val <= max_val:
        raise ValueError(f"`min_val` must not be above `max_val`, got {min_val} and {max_val}")
    return F.hardtanh(x, min_val, max_val)


def _leaky(x: Tensor, slope: Tensor) -> Tensor:
    """Leaky relu with a tensor of slopes.

    torch's `prelu` fails if, under vmap, the slopes have lanes and x has none. The product leaves
    out positive x: an infinite one would turn the slope's derivative, a zero there, into NaN.
    """
    positive = x > 0
    return torch.where(positive, x, slope * torch.where(positive, 0.0, x))
