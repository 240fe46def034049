"""Regression by Monte Carlo dropout: the precision of the noise, and the likelihood of targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fdnn.types import Scalar
from fdnn.uncertainty.predictive import check_precision, means

__all__ = ["model_precision", "predictive_log_likelihood"]


def model_precision(
    p: Scalar, length_scale: Scalar, weight_decay: Scalar, num_examples: Scalar
) -> Scalar:
    r"""Compute the noise precision that training with dropout and weight decay implies.

    $$\tau = \frac{l^2 (1 - p)}{2 N \lambda}$$

    for weights trained to minimize $\frac{1}{N} \sum_n \frac{1}{2} \|y_n - f(x_n)\|^2 + \lambda
    \sum_w w^2$. For other objectives give the $\lambda$ that this one has after scaling: with
    `mse_loss` (no half) plus $c \sum_w w^2$ it is $c / 2$, with `mse_loss` and the coupled weight
    decay $d$ of `optim.sgd` or `optim.adam` (which is a penalty of $d / 2$) it is $d / 4$. The
    published code minimizes `mse_loss` plus $\lambda \sum_w w^2$ as it is.

    Args:
        p: $p$, the probability that dropout sets a unit to 0.
        length_scale: $l$, the prior length scale of the functions, in units of the inputs.
        weight_decay: $\lambda$.
        num_examples: $N$, how many were trained on.

    Returns:
        $\tau$, in units of one over the square of the targets that were trained on. For targets
        divided by their standard deviation $s$, the precision of the original is $\tau / s^2$.

    Raises:
        ValueError: `p` is not in [0, 1), or another argument is not positive.

    Example:
        >>> model_precision(0.05, 0.01, weight_decay=1e-6, num_examples=455)
        0.1043956043956044

    References:
        Gal, Ghahramani (2016), "Dropout as a Bayesian approximation", equation 7, where $p$ is the
        probability that a unit is kept.
    """
    if isinstance(p, float | int) and not 0 <= p < 1:
        raise ValueError(f"`p` must be in [0, 1), got {p}")
    for name, value in (
        ("length_scale", length_scale),
        ("weight_decay", weight_decay),
        ("num_examples", num_examples),
    ):
        if isinstance(value, float | int) and not value > 0:
            raise ValueError(f"`{name}` must be positive, got {value}")
    return length_scale**2 * (1 - p) / (2 * num_examples * weight_decay)


def predictive_log_likelihood(outputs: Tensor, targets: Tensor, tau: Scalar) -> Tensor:
    r"""Compute the log-density of targets under a mixture of Gaussians, one a sample.

    $$\log \frac{1}{T} \sum_{t=1}^T N(y; y_t, \tau^{-1} I)
    = \mathrm{logsumexp}_t \Big(-\frac{\tau}{2} \|y - y_t\|^2\Big) - \log T
    - \frac{D}{2} \log 2 \pi + \frac{D}{2} \log \tau$$

    Args:
        outputs: $y_t$, means of $T$ samples, `(samples, batch, *out)`, $D$ numbers an example.
        targets: $y$, of shape `(batch, *out)`.
        tau: $\tau$, precision of the noise; a number, or a tensor that broadcasts to `targets`.

    Returns:
        One number for each example, `(batch,)`, in nats. Half precision is raised to float32.

    Raises:
        ValueError: the shape of `targets` is not that of one sample, or `tau` is not positive.

    Example:
        >>> outputs = torch.tensor([[[0.0]], [[2.0]]])
        >>> predictive_log_likelihood(outputs, torch.tensor([[1.0]]), tau=1.0)
        tensor([-1.4189])

    References:
        Gal, Ghahramani (2016), "Dropout as a Bayesian approximation", equation 8.
    """
    check_precision(tau)
    outputs = means(outputs)
    if outputs.ndim < 2 or outputs.shape[1:] != targets.shape:
        raise ValueError(
            "`targets` must have the shape of one sample of `outputs`, (batch, *out): expected "
            f"{tuple(outputs.shape[1:])}, got {tuple(targets.shape)}"
        )
    tau = torch.as_tensor(tau, dtype=outputs.dtype, device=outputs.device).expand_as(targets)
    log_density = tau.log() - math.log(2 * math.pi) - tau * (targets - outputs).square()
    terms = log_density.flatten(2).sum(2) if outputs.ndim > 2 else log_density
    return (terms / 2).logsumexp(0) - math.log(len(outputs))
