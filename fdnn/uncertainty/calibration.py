r"""Whether predicted probabilities are frequencies: reliability, and errors of calibration.

Bins are $[a, b)$; the last one contains 1 as well.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdnn.uncertainty.check import at_least_1, labels_fit, two_dimensions

__all__ = [
    "Reliability",
    "adaptive_calibration_error",
    "classwise_calibration_error",
    "expected_calibration_error",
    "reliability",
]


class Reliability(NamedTuple):
    """Confidence and accuracy, bin by bin.

    Attributes:
        edges: where bins begin and end, of shape `(num_bins + 1,)`.
        confidence: mean probability of the predicted class, `(num_bins,)`, nan in an empty bin.
        accuracy: share of right predictions, `(num_bins,)`, nan in an empty bin.
        counts: how many examples there are, `(num_bins,)`, int64.
    """

    edges: Tensor
    confidence: Tensor
    accuracy: Tensor
    counts: Tensor


def reliability(probs: Tensor, targets: Tensor, num_bins: int = 15) -> Reliability:
    r"""Sort predictions by confidence $\max_k p_k$ into equally wide bins and count the right ones.

    Args:
        probs: $p$, of shape `(batch, classes)`.
        targets: classes, integers of shape `(batch,)`.
        num_bins: how many bins there are between 0 and 1.

    Returns:
        The bins' edges, mean confidence, accuracy and counts.

    Raises:
        ValueError: the shapes do not fit, or `num_bins` is not positive.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.8, 0.2], [0.4, 0.6], [1.0, 0.0]])
        >>> found = reliability(probs, torch.tensor([0, 1, 1]), num_bins=4)
        >>> found.confidence, found.counts
        (tensor([   nan,    nan, 0.6000, 0.9000]), tensor([0, 0, 1, 2]))

    References:
        DeGroot, Fienberg (1983), "The comparison and evaluation of forecasters".
        Niculescu-Mizil, Caruana (2005), "Predicting good probabilities with supervised learning".
    """
    confidence, correct = _top_label(probs, targets, num_bins)
    edges = torch.linspace(0, 1, num_bins + 1, dtype=probs.dtype, device=probs.device)
    bins = _equal_width(confidence, num_bins)
    counts = _sum_by(bins, torch.ones_like(bins), num_bins)
    return Reliability(
        edges,
        _sum_by(bins, confidence, num_bins) / counts,
        _sum_by(bins, correct, num_bins) / counts,
        counts,
    )


def expected_calibration_error(probs: Tensor, targets: Tensor, num_bins: int = 15) -> Tensor:
    r"""Measure the mean gap between confidence and accuracy, in equally wide bins (ECE).

    $$\sum_b \frac{n_b}{n} \left| \mathrm{acc}_b - \mathrm{conf}_b \right|$$

    with confidence $\max_k p_k$, and $n_b$ of $n$ examples in bin $b$. The estimate is biased: 0 is
    not reached even by perfect predictions, so compare only with equal `num_bins` and batch.

    Args:
        probs: $p$, of shape `(batch, classes)`.
        targets: classes, integers of shape `(batch,)`.
        num_bins: how many bins there are between 0 and 1.

    Returns:
        A 0-d tensor. Its gradient is that of the confidences within their bins.

    Raises:
        ValueError: the shapes do not fit, or `num_bins` is not positive.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.8, 0.2], [0.4, 0.6], [1.0, 0.0]])
        >>> expected_calibration_error(probs, torch.tensor([0, 1, 1]))
        tensor(0.5333)

    References:
        Naeini, Cooper, Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian
        binning"; Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks"
        (bins $(a, b]$ there, $[a, b)$ here and in torchmetrics, which keeps a confidence of
        exactly 1 in a bin of its own).
    """
    confidence, correct = _top_label(probs, targets, num_bins)
    return _gap(confidence, correct, _equal_width(confidence, num_bins), num_bins)


def classwise_calibration_error(probs: Tensor, targets: Tensor, num_bins: int = 15) -> Tensor:
    r"""Measure the same gap for the probability of every class, and average over classes.

    $$\frac{1}{K} \sum_k \sum_b \frac{n_{bk}}{n} \left| \mathrm{freq}_{bk} - \bar p_{bk} \right|$$

    with $n_{bk}$ examples whose $p_k$ is in bin $b$, $\bar p_{bk}$ its mean there and
    $\mathrm{freq}_{bk}$ the share of class $k$ among them. Also called static calibration error.

    Args:
        probs: $p$, of shape `(batch, classes)`.
        targets: classes, integers of shape `(batch,)`.
        num_bins: how many bins there are between 0 and 1, for each class.

    Returns:
        A 0-d tensor.

    Raises:
        ValueError: the shapes do not fit, or `num_bins` is not positive.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.8, 0.2], [0.4, 0.6], [1.0, 0.0]])
        >>> classwise_calibration_error(probs, torch.tensor([0, 1, 1]))
        tensor(0.5333)

    References:
        Kull et al. (2019), "Beyond temperature scaling: obtaining well-calibrated multiclass
        probabilities with Dirichlet calibration"; Nixon et al. (2019), "Measuring calibration in
        deep learning".
    """
    _fit(probs, targets, num_bins)
    is_class = targets.unsqueeze(-1) == torch.arange(probs.shape[-1], device=probs.device)

    def gap(p: Tensor, is_class: Tensor) -> Tensor:
        return _gap(p, is_class, _equal_width(p, num_bins), num_bins)

    return torch.vmap(gap)(probs.T.contiguous(), is_class.T.to(probs.dtype)).mean()


def adaptive_calibration_error(probs: Tensor, targets: Tensor, num_bins: int = 15) -> Tensor:
    r"""Measure the gap between confidence and accuracy in bins of equally many examples.

    Where most confidences are near 1, equally wide bins are nearly all empty; these are not. The
    error is that of `expected_calibration_error`, over bins of $n / b$ examples in the order of
    their confidence (some hold one more if it does not divide). Examples of equal confidence count
    with their common accuracy, so that their order changes nothing.

    Args:
        probs: of shape `(batch, classes)`.
        targets: classes, integers of shape `(batch,)`.
        num_bins: $b$, how many bins there are.

    Returns:
        A 0-d tensor.

    Raises:
        ValueError: the shapes do not fit, or `num_bins` is not positive.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.8, 0.2], [0.4, 0.6], [1.0, 0.0]])
        >>> adaptive_calibration_error(probs, torch.tensor([0, 1, 1]), num_bins=3)
        tensor(0.5333)

    References:
        Nguyen, O'Connor (2015), "Posterior calibration and exploratory analysis for natural
        language processing models"; Mukhoti et al. (2020), "Calibrating deep neural networks using
        focal loss". (Nixon et al.'s "adaptive" error is of all classes, this one of the top label.)
    """
    confidence, correct = _top_label(probs, targets, num_bins)
    confidence, order = confidence.sort()
    total = torch.nn.functional.pad(correct[order].cumsum(0), (1, 0))
    levels = confidence.detach().contiguous()
    first, last = (torch.searchsorted(levels, levels, right=right) for right in (False, True))
    n = len(confidence)
    bins = torch.arange(n, device=probs.device) * num_bins // n
    return _gap(confidence, (total[last] - total[first]) / (last - first), bins, num_bins)


def _fit(probs: Tensor, targets: Tensor, num_bins: int) -> None:
    at_least_1(num_bins=num_bins)
    two_dimensions(probs=probs)
    labels_fit("probs", probs, targets)


def _top_label(probs: Tensor, targets: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
    """The probability of the predicted class, and 1 where it is the right one."""
    _fit(probs, targets, num_bins)
    confidence, predicted = probs.max(-1)
    return confidence, (predicted == targets).to(probs.dtype)


def _equal_width(values: Tensor, num_bins: int) -> Tensor:
    edges = torch.linspace(0, 1, num_bins + 1, dtype=values.dtype, device=values.device)
    return torch.bucketize(values.detach().contiguous(), edges[1:-1], right=True)


def _sum_by(bins: Tensor, values: Tensor, num_bins: int) -> Tensor:
    return values.new_zeros(num_bins).scatter_add(0, bins, values)


def _gap(confidence: Tensor, accuracy: Tensor, bins: Tensor, num_bins: int) -> Tensor:
    """Sum over bins of `n_b / n |acc_b - conf_b|`, which is that of `|sums of both| / n`."""
    return _sum_by(bins, confidence - accuracy, num_bins).abs().sum() / len(confidence)
