"""How good predicted normal distributions and intervals are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fdnn.losses.check import same_shape
from fdnn.losses.reduction import Reduction, reduce
from fdnn.types import Scalar

__all__ = [
    "Interval",
    "coverage",
    "gaussian_crps",
    "gaussian_interval",
    "gaussian_nll",
    "interval_width",
]


class Interval(NamedTuple):
    """An interval for each prediction.

    Attributes:
        lower: its lower end.
        upper: its upper end.
    """

    lower: Tensor
    upper: Tensor


def gaussian_nll(
    mean: Tensor, variance: Tensor, targets: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Negative log-likelihood of a normal distribution.

    $$\tfrac{1}{2} \log (2 \pi \sigma^2) + \frac{(y - \mu)^2}{2 \sigma^2}$$

    The constant is in it, and there is no floor under the variance; the training loss is
    `losses.gaussian_nll_loss`.

    Args:
        mean: $\mu$.
        variance: $\sigma^2$, of the shape of `mean`.
        targets: $y$, of the shape of `mean`.
        reduction: `"mean"`, `"sum"`, or `"none"` for one value for each target.

    Returns:
        A 0-d tensor, or one of the shape of `mean`, in nats.

    Raises:
        ValueError: the shapes differ, or `reduction` is none of the three.

    Example:
        >>> import torch
        >>> gaussian_nll(torch.zeros(2), torch.ones(2), torch.zeros(2))
        tensor(0.9189)
    """
    same_shape("mean", mean, variance=variance, targets=targets)
    terms = (2 * math.pi * variance).log() + (targets - mean).square() / variance
    return reduce(terms / 2, reduction)


def gaussian_crps(
    mean: Tensor, variance: Tensor, targets: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Continuous ranked probability score of a normal distribution, in the targets' unit.

    $$\sigma \left[ z (2 \Phi(z) - 1) + 2 \varphi(z) - 1 / \sqrt{\pi} \right],
    \quad z = (y - \mu) / \sigma$$

    It is $\int (F(t) - [y \le t])^2 dt$ for the predicted distribution function $F$: absolute
    error, generalised to distributions.

    Args:
        mean: $\mu$.
        variance: $\sigma^2$, positive, of the shape of `mean`.
        targets: $y$, of the shape of `mean`.
        reduction: `"mean"`, `"sum"`, or `"none"` for one value for each target.

    Returns:
        A 0-d tensor, or one of the shape of `mean`.

    Raises:
        ValueError: the shapes differ, or `reduction` is none of the three.

    Example:
        >>> import torch
        >>> gaussian_crps(torch.zeros(1), torch.ones(1), torch.zeros(1))
        tensor(0.2337)

    References:
        Gneiting, Raftery (2007), "Strictly proper scoring rules, prediction, and estimation".
    """
    same_shape("mean", mean, variance=variance, targets=targets)
    std = variance.sqrt()
    z = (targets - mean) / std
    density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
    terms = z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
    return reduce(std * terms, reduction)


def gaussian_interval(mean: Tensor, variance: Tensor, level: Scalar = 0.95) -> Interval:
    r"""Return the central interval of a normal distribution: $\mu \pm \sigma \Phi^{-1}((1 + l)/2)$.

    Args:
        mean: $\mu$.
        variance: $\sigma^2$, of the shape of `mean`.
        level: $l$, the probability inside, in (0, 1): a number, or a 0-d tensor (vmap over it for
            a whole calibration curve).

    Returns:
        `lower` and `upper`, of the shape of `mean`.

    Raises:
        ValueError: the shapes differ, or `level` is not in (0, 1).

    Example:
        >>> import torch
        >>> gaussian_interval(torch.zeros(1), torch.ones(1), 0.95)
        Interval(lower=tensor([-1.9600]), upper=tensor([1.9600]))
    """
    same_shape("mean", mean, variance=variance)
    if not isinstance(level, Tensor) and not 0 < level < 1:
        raise ValueError(f"`level` must be in (0, 1), got {level}")
    level = torch.as_tensor(level, dtype=mean.dtype, device=mean.device)
    reach = variance.sqrt() * math.sqrt(2) * torch.erfinv(level)
    return Interval(mean - reach, mean + reach)


def coverage(lower: Tensor, upper: Tensor, targets: Tensor) -> Tensor:
    r"""Measure the share of targets inside their intervals: mean of $[l \le y \le u]$.

    Args:
        lower: $l$.
        upper: $u$, of the shape of `lower`.
        targets: $y$, of the shape of `lower`.

    Returns:
        A 0-d tensor.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> coverage(torch.zeros(4), torch.ones(4), torch.tensor([0.0, 0.5, 1.0, 2.0]))
        tensor(0.7500)
    """
    same_shape("lower", lower, upper=upper, targets=targets)
    return ((lower <= targets) & (targets <= upper)).to(lower.dtype).mean()


def interval_width(lower: Tensor, upper: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Measure how wide intervals are: $u - l$. Of two with the same coverage, prefer the narrower.

    Args:
        lower: $l$.
        upper: $u$, of the shape of `lower`.
        reduction: `"mean"`, `"sum"`, or `"none"` for one value for each interval.

    Returns:
        A 0-d tensor, or one of the shape of `lower`, in the targets' unit.

    Raises:
        ValueError: the shapes differ, or `reduction` is none of the three.

    Example:
        >>> import torch
        >>> interval_width(torch.zeros(2), torch.tensor([1.0, 3.0]))
        tensor(2.)
    """
    same_shape("lower", lower, upper=upper)
    return reduce(upper - lower, reduction)
