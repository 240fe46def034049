"""What stacked outputs say together: a distribution over classes, or a mean and a variance."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fdnn.types import Scalar
from fdnn.uncertainty.moments import Moments, moments, variance
from fdnn.uncertainty.scores import predictive_entropy

__all__ = ["Average", "Categorical", "Gaussian", "categorical", "gaussian"]

Average = Literal["probabilities", "logits"]
"""What is averaged over the samples."""


class Categorical(NamedTuple):
    """A predictive distribution over classes.

    The scores of one distribution (`nll`, `expected_calibration_error`, ...) take `probs`; the
    mutual information is `predictive_entropy(probs) - expected_entropy`.

    Attributes:
        probs: probability of each class, `(batch, classes)`.
        std: standard deviation of it over the samples, `(batch, classes)`; torch's, so nan of
            one sample.
        expected_entropy: mean entropy of the samples, in nats, `(batch,)`.
    """

    probs: Tensor
    std: Tensor
    expected_entropy: Tensor


class Gaussian(NamedTuple):
    """A predictive distribution of numbers, by its first two moments.

    Attributes:
        mean: `(batch, *out)`.
        variance: of the same shape.
    """

    mean: Tensor
    variance: Tensor


def categorical(outputs: Tensor, average: Average = "probabilities") -> Categorical:
    r"""Turn stacked logits into a predictive distribution over classes.

    $$p = \frac{1}{T} \sum_{t=1}^T \mathrm{softmax}(o_t) \quad\text{or}\quad
    p = \mathrm{softmax}\Big(\frac{1}{T} \sum_{t=1}^T o_t\Big)$$

    The first is Bayesian model averaging: the mean over the posterior from which the samples are
    drawn. The second is the normalized geometric mean of the samples' probabilities. Which is
    better calibrated depends on the net that is sampled. Averaging probabilities makes it less
    confident, so it helps a net that is overconfident and hurts one that is not. With MC dropout
    on Fashion-MNIST (784-100-100-10, rate 0.2), probabilities won for a net that was overfitted on
    few images, and lost for one that was trained for a short time on many. Compare both on
    validation data.

    Args:
        outputs: $o_t$, logits of $T$ samples, `(samples, batch, classes)`. (Or with other
            dimensions between samples and classes.)
        average: "probabilities" or "logits". It changes `probs` alone. With logits the mutual
            information has no such meaning, and may come out negative.

    Returns:
        A `Categorical`. Half-precision logits are raised to float32.

    Raises:
        ValueError: `average` is neither, or `outputs` has no dimensions of samples and of at least
            two classes.

    Example:
        >>> logits = torch.tensor([[[4.0, 0.0]], [[0.0, 2.0]]])
        >>> categorical(logits).probs
        tensor([[0.5506, 0.4494]])
        >>> categorical(logits, "logits").probs
        tensor([[0.7311, 0.2689]])

    References:
        Gal, Ghahramani (2016), "Dropout as a Bayesian approximation: representing model uncertainty
        in deep learning".
    """
    return of_members(moments(members(outputs)), average)


def gaussian(outputs: Tensor, tau: Scalar | None = None) -> Gaussian:
    r"""Turn stacked means into a predictive mean and variance.

    $$\mu = \frac{1}{T} \sum_{t=1}^T y_t, \qquad
    \sigma^2 = \frac{1}{\tau} + \frac{1}{T} \sum_{t=1}^T (y_t - \mu)^2$$

    These are the moments of the mixture of the Gaussians $N(y_t, 1 / \tau)$: what is unsure because
    of the weights (epistemic), and the noise of the data (aleatoric).

    Args:
        outputs: $y_t$, of shape `(samples, batch, *out)`.
        tau: $\tau$, the precision of the noise: from `model_precision`, or one over the mean
            squared error on validation data. A number, or a tensor that broadcasts to
            `(batch, *out)`. None leaves the noise out.

    Returns:
        A `Gaussian`. Half precision is raised to float32.

    Raises:
        ValueError: `tau` is not positive, or `outputs` has no dimension of samples.

    Example:
        >>> found = gaussian(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), tau=10.0)
        >>> found.mean, found.variance
        (tensor([2., 2.]), tensor([1.1000, 0.1000]))

    References:
        Gal, Ghahramani (2016), "Dropout as a Bayesian approximation", section 3.
    """
    check_precision(tau)
    return of_means(moments(means(outputs)), tau)


def members(outputs: Tensor) -> Tensor:
    """For each sample: probabilities, logits and entropy, side by side."""
    if outputs.ndim < 2 or outputs.shape[-1] < 2:
        raise ValueError(
            "`outputs` must be logits of shape (samples, batch, classes), two classes at least, "
            f"got {tuple(outputs.shape)}; for one logit of two classes stack it with zeros"
        )
    logits = means(outputs)
    probs = logits.softmax(-1)
    return torch.cat([probs, logits, predictive_entropy(probs).unsqueeze(-1)], -1)


def of_members(seen: Moments, average: Average) -> Categorical:
    """Turn the moments of `members` into a distribution."""
    check_average(average)
    classes = seen.mean.shape[-1] // 2
    probs, logits, entropy = torch.split(seen.mean, [classes, classes, 1], -1)
    return Categorical(
        probs if average == "probabilities" else logits.softmax(-1),
        variance(seen, correction=1)[..., :classes].sqrt(),
        entropy.squeeze(-1),
    )


def means(outputs: Tensor) -> Tensor:
    """The samples as they are, in single precision at least."""
    if outputs.ndim == 0:
        raise ValueError("`outputs` must have a dimension of samples, got a 0-d tensor")
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def of_means(seen: Moments, tau: Scalar | None) -> Gaussian:
    """Turn the moments of `means` into a distribution."""
    spread = variance(seen)
    return Gaussian(seen.mean, spread if tau is None else spread + 1 / tau)


def check_average(average: str) -> None:
    """Raise unless `average` is one of the two."""
    if average not in ("probabilities", "logits"):
        raise ValueError(f'`average` must be "probabilities" or "logits", got {average!r}')


def check_precision(tau: Scalar | None) -> None:
    """Raise if `tau` is a number that is not positive."""
    if isinstance(tau, float | int) and not tau > 0:
        raise ValueError(f"`tau` must be positive, got {tau}")
