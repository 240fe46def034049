"""Laplace's approximation: a normal distribution around trained parameters."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fdnn import random, tree
from fdnn.losses.check import above_0
from fdnn.model import Model
from fdnn.train.batches import arguments, is_tensors
from fdnn.types import Buffers, Key, Params, Scalar, Where
from fdnn.uncertainty.jacobian import jacobian, last_layer, outputs

__all__ = [
    "LaplaceFit",
    "LaplacePosterior",
    "laplace_fit",
    "laplace_posterior",
    "laplace_sample",
    "precision_factor",
    "tensor",
]

Likelihood = Literal["classification", "regression"]
Structure = Literal["full", "diagonal"]


class LaplaceFit(NamedTuple):
    """What Laplace's approximation needs of the data; prior and noise come after it.

    Attributes:
        mean: the covered parameters, by dotted name.
        curvature: the generalized Gauss-Newton matrix of `loss` in them, `(p, p)`, in the order
            of `tree.ravel(mean)`; or its diagonal, `(p,)`.
        loss: the negative log likelihood of all examples, 0-d: the cross entropy, or half the
            squared error.
        count: how many numbers were predicted with Gaussian noise, 0-d: 0 in classification.
    """

    mean: Params
    curvature: Tensor
    loss: Tensor
    count: Tensor  # type: ignore[assignment]


class LaplacePosterior(NamedTuple):
    """A normal distribution of parameters.

    Attributes:
        mean: its mean, by dotted name.
        scale: S, `(p, p)`, of the covariance S S^T in the order of `tree.ravel(mean)`; or the
            standard deviations, `(p,)`, of a diagonal one.
    """

    mean: Params
    scale: Tensor


def laplace_fit(
    model: Model,
    params: Params,
    buffers: Buffers,
    data: Any,
    *,
    likelihood: Likelihood = "classification",
    where: Where | None = None,
    structure: Structure = "full",
    batch_size: int = 100,
) -> LaplaceFit:
    r"""Measure how sharply the data hold trained parameters: the Gauss-Newton matrix of the loss.

    $H = \sum_n J_n^\top \Lambda_n J_n$, where $J_n$ is the Jacobian of the outputs for example $n$
    in the covered parameters and $\Lambda_n$ the Hessian of its negative log likelihood in the
    outputs: $\text{diag}(p) - p p^\top$ with softmax probabilities $p$, or the identity in
    regression (noise of variance 1; `laplace_posterior` scales it). Eval mode.

    Args:
        model: from `functionalize`.
        params: trained parameters, near an optimum of the loss with its weight decay.
        buffers: buffers by dotted name.
        data: tensors `(*inputs, target)` of equal length, or an iterable of such batches. Outputs
            are `(batch, classes)` logits for targets `(batch,)`, or `(batch, outputs)` means for
            targets of their shape.
        likelihood: `"classification"` or `"regression"`.
        where: which parameters are covered, a glob on dotted names for example, `"*"` for all;
            those of the last layer if left out. The others count as known.
        structure: `"full"`, or `"diagonal"` where p is too large for a matrix.
        batch_size: how many examples at once, if `data` is tensors. A Jacobian takes `batch_size`
            times outputs times p numbers.

    Returns:
        The fit, for `laplace_posterior` and `log_marginal_likelihood`.

    Raises:
        ValueError: `likelihood` or `structure` is none of the two, `where` matches nothing, there
            are no examples, or outputs and targets have other shapes than these.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
        >>> data = random.normal(random.key(0), (20, 4)), torch.arange(20) % 3
        >>> fit = laplace_fit(model, model.params, model.buffers, data)
        >>> sorted(fit.mean), fit.curvature.shape
        (['2.bias', '2.weight'], torch.Size([27, 27]))

    References:
        MacKay (1992), "A practical Bayesian framework for backpropagation networks"; Daxberger,
        Kristiadi, Immer, Eschenhagen, Bauer, Hennig (2021), "Laplace redux: effortless Bayesian
        deep learning".
    """
    for argument, value, known in (
        ("likelihood", likelihood, ("classification", "regression")),
        ("structure", structure, ("full", "diagonal")),
    ):
        if value not in known:
            raise ValueError(f"`{argument}` must be one of {known}, got {value!r}")
    chosen = tree.select(params, last_layer(model) if where is None else where)
    if not chosen:
        raise ValueError("`where` must choose at least one parameter, got none")
    batches = data
    if is_tensors(data):
        batches = zip(*(torch.split(part, batch_size) for part in data), strict=True)
    parts = []
    for *inputs, target in batches:
        args, keywords = arguments(inputs)
        output = outputs(model, params, buffers, args, keywords)
        loss, root, count = _loss_and_root(likelihood, output, target)
        rows = jacobian(model, params, buffers, chosen, args, keywords, root).flatten(0, 1)
        curvature = rows.mT @ rows if structure == "full" else rows.square().sum(0)
        parts.append((curvature, loss, loss.new_full((), float(count))))
    if not parts:
        raise ValueError("`data` must hold at least one batch, got none")
    return LaplaceFit(chosen, *(sum(part[1:], part[0]) for part in zip(*parts, strict=True)))


def laplace_posterior(
    fit: LaplaceFit, prior_precision: Scalar = 1.0, sigma_noise: Scalar = 1.0
) -> LaplacePosterior:
    r"""Combine what the data say with a prior: $N(\theta^*, (H / \sigma^2 + \delta I)^{-1})$.

    Args:
        fit: $\theta^*$ and $H$, from `laplace_fit`.
        prior_precision: $\delta$, one over the variance of the prior $N(0, I / \delta)$: a number,
            a 0-d tensor, or one for each covered parameter, `(p,)`. Weight decay $\lambda$ on a
            loss that is a mean over N examples is $\delta = \lambda N$.
        sigma_noise: $\sigma$, the standard deviation of the targets' noise in regression. In
            classification 1; $\sigma^2$ is then a temperature.

    Returns:
        The posterior, for `laplace_sample` and `laplace_predictive`.

    Raises:
        ValueError: `prior_precision` or `sigma_noise` is not positive.

    Example:
        >>> one = torch.ones(())
        >>> fit = LaplaceFit({"w": torch.zeros(2)}, torch.tensor([3.0, 15.0]), one, one)
        >>> laplace_posterior(fit, prior_precision=1.0).scale
        tensor([0.5000, 0.2500])
    """
    factor = precision_factor(fit, prior_precision, sigma_noise)
    if factor.ndim == 1:
        return LaplacePosterior(fit.mean, 1 / factor)
    eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
    return LaplacePosterior(fit.mean, inverse.mT)


def laplace_sample(key: Key, posterior: LaplacePosterior) -> Params:
    r"""Draw the covered parameters: $\theta^* + S z$, $z$ standard normal.

    Args:
        key: a key; vmap over keys gives stacked parameters. `linearized_ensemble` takes them as
            they are, `deep_ensemble` together with the others: `{**params, **samples}`.
        posterior: $\theta^*$ and $S$.

    Returns:
        Parameters by dotted name.

    Example:
        >>> posterior = LaplacePosterior({"w": torch.zeros(2)}, torch.tensor([0.5, 0.25]))
        >>> laplace_sample(random.key(0), posterior)["w"]
        tensor([0.8113, 0.5063])
    """
    mean, unravel = tree.ravel(posterior.mean)
    noise = random.normal(key, mean.shape, posterior.scale.dtype)
    scaled = posterior.scale @ noise if posterior.scale.ndim == 2 else posterior.scale * noise
    sample: Params = unravel(mean + scaled)
    return sample


def precision_factor(fit: LaplaceFit, prior_precision: Scalar, sigma_noise: Scalar) -> Tensor:
    """Return the posterior precision's lower Cholesky factor, or a diagonal's square roots."""
    above_0(prior_precision=prior_precision, sigma_noise=sigma_noise)
    likelihood = fit.curvature / tensor(sigma_noise, fit.curvature).square()
    precision = tensor(prior_precision, likelihood)
    if likelihood.ndim == 1:
        return (likelihood + precision).sqrt()
    factor: Tensor = torch.linalg.cholesky(
        likelihood + torch.diag_embed(precision.expand(len(likelihood)))
    )
    return factor


def tensor(value: Scalar, like: Tensor) -> Tensor:
    """Return a hyperparameter as a tensor of the dtype and device of another."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _loss_and_root(
    likelihood: Likelihood, output: Tensor, target: Tensor
) -> tuple[Tensor, Tensor | None, int]:
    """The loss, R of its Hessian R R^T in each output (None: the identity), the Gaussian count."""
    if likelihood == "regression":
        if target.shape != output.shape:
            raise ValueError(
                f"`data` must have targets of the outputs' shape {tuple(output.shape)}, got "
                f"{tuple(target.shape)}"
            )
        return 0.5 * (output - target).square().sum(), None, target.numel()
    if target.shape != output.shape[:1] or output.shape[1] < 2:
        raise ValueError(
            "`data` must have targets of shape (batch,) for logits of shape (batch, classes) with "
            f"2 classes or more, got {tuple(target.shape)} for {tuple(output.shape)}"
        )
    share = output.softmax(-1)
    # diag(p) - p p^T = R R^T with R = diag(q) - p q^T, q the square roots of p
    root = torch.diag_embed(share.sqrt()) - share.unsqueeze(-1) * share.sqrt().unsqueeze(-2)
    return F.cross_entropy(output, target, reduction="sum"), root, 0
