"""The evidence of Laplace's approximation, and the prior under which it is highest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fdnn import tree
from fdnn.losses.check import above_0
from fdnn.types import Scalar
from fdnn.uncertainty.laplace import LaplaceFit, precision_factor, tensor

__all__ = ["log_marginal_likelihood", "maximize_marginal_likelihood"]


def log_marginal_likelihood(
    fit: LaplaceFit, prior_precision: Scalar = 1.0, sigma_noise: Scalar = 1.0
) -> Tensor:
    r"""Approximate the log probability of the data given prior and noise, the evidence.

    $\log p(D \mid \theta^*) - \frac{1}{2} \delta \lVert \theta^* \rVert^2 + \frac{1}{2} \log\det
    \delta I - \frac{1}{2} \log\det (H / \sigma^2 + \delta I)$: a fit's quality less what a model
    pays for parameters that the data did not need. It compares priors, noises and models without
    validation data, differentiates, and vmaps over a grid.

    Args:
        fit: $\theta^*$, $H$ and the log likelihood, from `laplace_fit`.
        prior_precision: $\delta$, as in `laplace_posterior`.
        sigma_noise: $\sigma$, as in `laplace_posterior`.

    Returns:
        A 0-d tensor.

    Raises:
        ValueError: `prior_precision` or `sigma_noise` is not positive.

    Example:
        >>> one = torch.ones(())
        >>> fit = LaplaceFit({"w": torch.ones(1)}, 8 * torch.ones(1), one, 0 * one)
        >>> grid = torch.tensor([0.1, 1.0, 10.0])
        >>> torch.vmap(lambda precision: log_marginal_likelihood(fit, precision))(grid)
        tensor([-3.2472, -2.5986, -6.2939])
    """
    factor = precision_factor(fit, prior_precision, sigma_noise)
    diagonal = factor if factor.ndim == 1 else factor.diagonal()
    theta, _ = tree.ravel(fit.mean)
    precision = tensor(prior_precision, factor).expand(theta.shape)
    sigma = tensor(sigma_noise, factor)
    noise = fit.count * (sigma.log() + 0.5 * math.log(2 * math.pi))
    log_likelihood = -fit.loss / sigma.square() - noise
    log_ratio = 2 * diagonal.log().sum() - precision.log().sum()
    return log_likelihood - 0.5 * (precision * theta.square()).sum() - 0.5 * log_ratio


def maximize_marginal_likelihood(
    fit: LaplaceFit,
    prior_precision: Scalar = 1.0,
    sigma_noise: Scalar | None = None,
    *,
    num_steps: int = 50,
) -> tuple[Tensor, Tensor]:
    r"""Find the prior, and in regression the noise, under which the data are most probable.

    MacKay's fixed point in the logarithm, halfway at each step:
    $\delta \leftarrow \sqrt{\delta \cdot \gamma / \lVert \theta^* \rVert^2}$, with
    $\gamma = \sum_i \lambda_i / (\lambda_i + \sigma^2 \delta)$ the number of parameters that the
    data determine, $\lambda$ the eigenvalues of $H$. For a given $\sigma$ there is one maximum, and
    every step at least halves the distance to it in $\log \delta$. With noise also
    $\sigma^2 \leftarrow \sqrt{\sigma^2 \cdot 2 L / (n - \gamma)}$, $L$ the loss of n numbers.

    Args:
        fit: $\theta^*$, $H$ and $L$, from `laplace_fit`.
        prior_precision: where $\delta$ starts.
        sigma_noise: where $\sigma$ starts, in regression; in classification None, which holds it
            at 1.
        num_steps: how many steps are taken.

    Returns:
        $(\delta, \sigma)$, 0-d tensors.

    Raises:
        ValueError: `prior_precision` or `sigma_noise` is not positive, or `num_steps` below 1.

    Example:
        >>> one = torch.ones(())
        >>> fit = LaplaceFit({"w": torch.ones(1)}, 8 * torch.ones(1), one, 0 * one)
        >>> maximize_marginal_likelihood(fit)  # 8 / (8 + d) = d
        (tensor(0.8990), tensor(1.))

    References:
        MacKay (1992), "Bayesian interpolation". The halfway step is ours: the plain one turns over
        and over where the prior outweighs the data.
    """
    above_0(
        prior_precision=prior_precision, sigma_noise=1.0 if sigma_noise is None else sigma_noise
    )
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}")
    eigenvalues = fit.curvature
    if eigenvalues.ndim == 2:
        eigenvalues = torch.linalg.eigvalsh(fit.curvature).clamp(min=0)
    theta, _ = tree.ravel(fit.mean)
    norm = theta.square().sum()
    delta = tensor(prior_precision, eigenvalues)
    variance = tensor(1.0 if sigma_noise is None else sigma_noise, eigenvalues).square()
    for _ in range(num_steps):
        gamma = (eigenvalues / (eigenvalues + variance * delta)).sum()
        delta = (delta * gamma / norm).sqrt()
        if sigma_noise is not None:
            variance = (variance * 2 * fit.loss / (fit.count - gamma)).sqrt()
    return delta, variance.sqrt()
