"""Losses of real numbers: by their error, or by their likelihood."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fdnn.losses.check import above_0, at_least_0, same_shape
from fdnn.losses.reduction import Reduction, check_reduction, reduce, weighted_mean
from fdnn.types import Scalar

__all__ = ["gaussian_nll_loss", "huber_loss", "l1_loss", "mse_loss", "smooth_l1_loss"]


def mse_loss(
    input: Tensor, target: Tensor, *, reduction: Reduction = "mean", weight: Tensor | None = None
) -> Tensor:
    r"""Square the error: $\ell = w \, (x - y)^2$.

    Args:
        input: $x$, of any shape.
        target: $y$, of the shape of `input`.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of elements, or by the
            sum of the weights.
        weight: $w$, of the shape of `input`, 1 if left out.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    Example:
        >>> mse_loss(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))
        tensor(5.)
    """
    check_reduction(reduction)
    same_shape("input", input, target=target, weight=weight)
    if weight is None:
        return F.mse_loss(input, target, reduction=reduction)
    return _weighted(F.mse_loss(input, target, reduction="none"), weight, reduction)


def l1_loss(
    input: Tensor, target: Tensor, *, reduction: Reduction = "mean", weight: Tensor | None = None
) -> Tensor:
    r"""Take the size of the error: $\ell = w \, |x - y|$, whose mean is the mean absolute error.

    At 0 the gradient is 0.

    Args:
        input: $x$, of any shape.
        target: $y$, of the shape of `input`.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of elements, or by the
            sum of the weights.
        weight: $w$, of the shape of `input`, 1 if left out.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    Example:
        >>> l1_loss(torch.tensor([[1.0], [-3.0]]), torch.zeros(2, 1))
        tensor(2.)
    """
    check_reduction(reduction)
    same_shape("input", input, target=target, weight=weight)
    if weight is None:
        return F.l1_loss(input, target, reduction=reduction)
    return _weighted(F.l1_loss(input, target, reduction="none"), weight, reduction)


def huber_loss(
    input: Tensor,
    target: Tensor,
    *,
    reduction: Reduction = "mean",
    delta: Scalar = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    r"""Square small errors, and let large ones count by their size.

    $\ell = w \, e^2 / 2$ if $|e| \le \delta$, else $w \, \delta (|e| - \delta / 2)$, with
    $e = x - y$. It is `smooth_l1_loss(beta=delta)` times $\delta$.

    Args:
        input: $x$, of any shape.
        target: $y$, of the shape of `input`.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of elements, also with
            weights. (torch divides by the sum of the weights in `mse_loss` and `l1_loss`, but not
            here.)
        delta: $\delta$, where the parabola ends.
        weight: $w$, of the shape of `input`, 1 if left out.

    Raises:
        ValueError: the shapes differ, `delta` is not positive, or `reduction` is unknown.

    Example:
        >>> huber_loss(torch.tensor([0.5, 3.0]), torch.zeros(2), reduction="none")
        tensor([0.1250, 2.5000])

    References:
        Huber (1964), "Robust estimation of a location parameter".
    """
    check_reduction(reduction)
    above_0(delta=delta)
    same_shape("input", input, target=target, weight=weight)
    # torch's takes a float; errors are measured in units of delta instead.
    input, target = input / delta, target / delta
    if weight is None:
        unit = F.huber_loss(input, target, reduction=reduction)
    else:
        unit = reduce(weight * F.huber_loss(input, target, reduction="none"), reduction)
    return unit * delta * delta


def smooth_l1_loss(
    input: Tensor, target: Tensor, *, reduction: Reduction = "mean", beta: Scalar = 1.0
) -> Tensor:
    r"""Take the size of the error, rounded off at 0.

    $\ell = e^2 / (2 \beta)$ if $|e| < \beta$, else $|e| - \beta / 2$, with $e = x - y$: slope 1 far
    out, whatever $\beta$, and `l1_loss` at $\beta = 0$.

    Args:
        input: $x$, of any shape.
        target: $y$, of the shape of `input`.
        reduction: "none", "mean" or "sum".
        beta: $\beta$, where the parabola ends; positive if it is a tensor.

    Raises:
        ValueError: the shapes differ, `beta` is negative, or `reduction` is unknown.

    Example:
        >>> smooth_l1_loss(torch.tensor([0.5, 3.0]), torch.zeros(2), reduction="none", beta=2.0)
        tensor([0.0625, 2.0000])

    References:
        Girshick (2015), "Fast R-CNN".
    """
    check_reduction(reduction)
    at_least_0(beta=beta)
    same_shape("input", input, target=target)
    if not isinstance(beta, Tensor) and beta == 0:
        return F.l1_loss(input, target, reduction=reduction)
    return F.smooth_l1_loss(input / beta, target / beta, reduction=reduction) * beta


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    *,
    full: bool = False,
    eps: float = 1e-6,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Take the negative log-likelihood of a Gaussian whose mean and variance are predicted.

    $\ell = \frac12 \left( \log v + (x - y)^2 / v \right)$, and $+ \frac12 \log 2 \pi$ if `full`,
    with $v = \max(\sigma^2, \epsilon)$. As in torch the gradient with respect to $\sigma^2$ is that
    with respect to $v$, so that a variance below $\epsilon$ can leave it again.

    Args:
        input: $x$, the predicted mean, of any shape.
        target: $y$, of the shape of `input`.
        var: $\sigma^2$, the predicted variance: of the shape of `input`, or of that without its
            last dimension, or of one that broadcasts to it, or a number. Entries that are negative
            give nan, since a value cannot be looked at under `vmap`; torch raises.
        full: whether to add the constant.
        eps: $\epsilon$, the least variance.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: the shapes do not fit, `var` is a negative number, `eps` is not positive, or
            `reduction` is unknown.

    Example:
        >>> mean, y, var = torch.zeros(2), torch.tensor([0.0, 2.0]), torch.tensor([1.0, 4.0])
        >>> gaussian_nll_loss(mean, y, var, reduction="none")
        tensor([0.0000, 1.1931])

    References:
        Nix, Weigend (1994), "Estimating the mean and variance of the target probability
        distribution".
    """
    above_0(eps=eps)
    same_shape("input", input, target=target)
    if not isinstance(var, Tensor):
        at_least_0(var=var)
        var = input.new_full((), var)
    if var.shape == input.shape[:-1] and var.ndim < input.ndim:
        var = var.unsqueeze(-1)
    if var.ndim > input.ndim or any(
        size not in (1, whole)
        for size, whole in zip(reversed(var.shape), reversed(input.shape), strict=False)
    ):
        raise ValueError(
            f"`var` must broadcast to the shape of `input`, {tuple(input.shape)}, "
            f"or have it without the last dimension, got {tuple(var.shape)}"
        )
    var = var.masked_fill(var < 0, math.nan)
    var = torch.where(var < eps, var + (eps - var).detach(), var)
    terms = 0.5 * (var.log() + (input - target).square() / var)
    return reduce(terms + 0.5 * math.log(2 * math.pi) if full else terms, reduction)


def _weighted(terms: Tensor, weight: Tensor, reduction: Reduction) -> Tensor:
    """Reduce weighted terms, the mean being divided by the weights."""
    return (
        weighted_mean(terms, weight) if reduction == "mean" else reduce(weight * terms, reduction)
    )
