"""What Laplace's approximation predicts, in closed form."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn.model import Model
from fdnn.types import Buffers, Params
from fdnn.uncertainty.jacobian import jacobian, outputs
from fdnn.uncertainty.laplace import LaplacePosterior

__all__ = ["center_logits", "laplace_predictive", "probit"]


def laplace_predictive(
    model: Model,
    params: Params,
    buffers: Buffers,
    posterior: LaplacePosterior,
    *inputs: Any,
    **keywords: Any,
) -> tuple[Tensor, Tensor]:
    r"""Predict with the model taken for linear in its parameters: outputs are then normal.

    $f(x) \sim N(f(x; \theta^*), J(x) S S^\top J(x)^\top)$, with $J$ the Jacobian of the outputs in
    the covered parameters. Eval mode.

    In regression the target's covariance is this plus $\sigma^2 I$. In classification
    `probit(*center_logits(mean, covariance))` makes probabilities of the two;
    `linearized_ensemble` of samples gives the same distribution as stacked logits.

    Args:
        model: from `functionalize`.
        params: the parameters that the posterior does not cover (others are overruled by it).
        buffers: buffers by dotted name.
        posterior: $\theta^*$ and $S$, from `laplace_posterior`.
        *inputs: what the module's `forward` takes.
        **keywords: keyword arguments of `forward`, tensors of examples.

    Returns:
        The means, `(batch, outputs)`, and covariances, `(batch, outputs, outputs)`.

    Raises:
        ValueError: the model's output is not of shape `(batch, outputs)`.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(1, 1))
        >>> posterior = LaplacePosterior({"weight": torch.ones(1, 1)}, torch.tensor([0.5]))
        >>> mean, covariance = laplace_predictive(
        ...     model, {"bias": torch.zeros(1)}, {}, posterior, torch.tensor([[1.0], [4.0]])
        ... )
        >>> mean.flatten(), covariance.flatten()
        (tensor([1., 4.]), tensor([0.2500, 4.0000]))

    References:
        Immer, Korzepa, Bauer (2021), "Improving predictions of Bayesian neural nets via local
        linearization".
    """
    params = {**params, **posterior.mean}
    mean = outputs(model, params, buffers, inputs, keywords)
    rows = jacobian(model, params, buffers, posterior.mean, inputs, keywords)
    root = rows @ posterior.scale if posterior.scale.ndim == 2 else rows * posterior.scale
    return mean, root @ root.mT


def center_logits(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    r"""Take from normal logits what they have in common: $P \mu$ and $P \Sigma P$.

    $P = I - \frac{1}{C} 1 1^\top$ subtracts the mean over the C classes. A softmax does not see it,
    and neither does a loss, so that the data say nothing of it and a Laplace approximation leaves
    it as wide as the prior. But `probit` takes that width for doubt: centre first.

    Args:
        mean: $\mu$, `(..., classes)`.
        covariance: $\Sigma$, `(..., classes, classes)`.

    Returns:
        The mean and covariance of logits that sum to 0, whose softmax has the same distribution.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> mean, covariance = torch.tensor([2.0, 0.0]), torch.full((2, 2), 9.0)
        >>> probit(mean, covariance)  # as if unsure, though only the sum is
        tensor([0.7189, 0.2811])
        >>> probit(*center_logits(mean, covariance))
        tensor([0.8808, 0.1192])
    """
    _check(mean, covariance)
    rows = covariance - covariance.mean(-2, keepdim=True)
    return mean - mean.mean(-1, keepdim=True), rows - rows.mean(-1, keepdim=True)


def probit(mean: Tensor, covariance: Tensor) -> Tensor:
    r"""Approximate the mean of a softmax of normal logits: $\text{softmax}(\mu_c / \kappa_c)$.

    $\kappa_c = \sqrt{1 + \frac{\pi}{8} \Sigma_{cc}}$: the less sure the logits, the nearer
    together. See `center_logits` first.

    Args:
        mean: $\mu$, `(..., classes)`.
        covariance: $\Sigma$, `(..., classes, classes)`.

    Returns:
        Probabilities, `(..., classes)`.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> mean = torch.tensor([2.0, 0.0])
        >>> probit(mean, torch.zeros(2, 2)), probit(mean, 20 * torch.eye(2))
        (tensor([0.8808, 0.1192]), tensor([0.6620, 0.3380]))

    References:
        Spiegelhalter, Lauritzen (1990), "Sequential updating of conditional probabilities on
        directed graphical structures"; MacKay (1992), "The evidence framework applied to
        classification networks". For more than two classes as in Gibbs (1998), "Bayesian Gaussian
        processes for regression and classification": the off-diagonal covariances are not used.
    """
    _check(mean, covariance)
    variance = torch.diagonal(covariance, dim1=-2, dim2=-1)
    return (mean / (1 + math.pi / 8 * variance).sqrt()).softmax(-1)


def _check(mean: Tensor, covariance: Tensor) -> None:
    if mean.ndim == 0 or covariance.shape != (*mean.shape, mean.shape[-1]):
        raise ValueError(
            "`covariance` must have the shape of `mean`, "
            f"{tuple(mean.shape)}, with its last dimension twice, got {tuple(covariance.shape)}"
        )
