"""Predicting only where one is sure: the risk that is left, against the share that is answered."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fdnn.uncertainty.check import one_for_each

__all__ = ["RiskCoverage", "aurc", "excess_aurc", "risk_coverage"]


class RiskCoverage(NamedTuple):
    """The risk of answering the surest share of examples.

    Attributes:
        coverage: the share that is answered, `1/n, 2/n, ..., 1`, of shape `(batch,)`.
        risk: the mean error among them, of shape `(batch,)`.
    """

    coverage: Tensor
    risk: Tensor


def risk_coverage(uncertainty: Tensor, errors: Tensor) -> RiskCoverage:
    r"""Order examples by uncertainty and average the errors of the $k$ surest, for every $k$.

    $$\mathrm{risk}(k / n) = \frac{1}{k} \sum_{i \le k} e_{(i)}$$

    Examples of equal uncertainty are answered in random order; this is the mean over it. The
    errors may be differentiated, the order not.

    Args:
        uncertainty: of shape `(batch,)`, for example `predictive_entropy(probs)`.
        errors: $e$, of shape `(batch,)`: booleans, 0 and 1, or any loss of each example.

    Returns:
        The curve. Its last risk is the mean error of all.

    Raises:
        ValueError: the shapes are not equal and one-dimensional.

    Example:
        >>> import torch
        >>> risk_coverage(torch.tensor([0.1, 0.9, 0.2, 0.2]), torch.tensor([0, 1, 1, 0])).risk
        tensor([0.0000, 0.2500, 0.3333, 0.5000])

    References:
        El-Yaniv, Wiener (2010), "On the foundations of noise-free selective classification";
        Geifman, El-Yaniv (2017), "Selective classification for deep neural networks".
    """
    one_for_each(uncertainty=uncertainty, errors=errors)
    errors = _float(errors)
    ordered, order = _float(uncertainty).detach().contiguous().sort()
    total = F.pad(errors[order].cumsum(0), (1, 0))
    first, last = (torch.searchsorted(ordered, ordered, right=right) for right in (False, True))
    answered = torch.arange(1, len(errors) + 1, device=errors.device)
    within = (answered - first).to(errors.dtype) / (last - first)
    risk = torch.lerp(total[first], total[last], within) / answered
    return RiskCoverage(answered.to(errors.dtype) / len(errors), risk)


def aurc(uncertainty: Tensor, errors: Tensor) -> Tensor:
    r"""Area under the risk-coverage curve: $\frac{1}{n} \sum_k \mathrm{risk}(k / n)$.

    Args:
        uncertainty: of shape `(batch,)`.
        errors: of shape `(batch,)`: booleans, 0 and 1, or any loss of each example.

    Returns:
        A 0-d tensor; smaller is better.

    Raises:
        ValueError: the shapes are not equal and one-dimensional.

    Example:
        >>> import torch
        >>> aurc(torch.tensor([0.1, 0.9, 0.2, 0.2]), torch.tensor([0, 1, 1, 0]))
        tensor(0.2708)

    References:
        Geifman, Uziel, El-Yaniv (2019), "Bias-reduced uncertainty estimation for deep neural
        classifiers".
    """
    return risk_coverage(uncertainty, errors).risk.mean()


def excess_aurc(uncertainty: Tensor, errors: Tensor) -> Tensor:
    r"""How far the area is from the least possible: $\mathrm{AURC} - \mathrm{AURC}^*$.

    $\mathrm{AURC}^*$ is that of the same errors in the best order, smallest first. So models of
    different accuracy can be compared by how well they know their mistakes.

    Args:
        uncertainty: of shape `(batch,)`.
        errors: of shape `(batch,)`: booleans, 0 and 1, or any loss of each example.

    Returns:
        A 0-d tensor; 0 for the best order.

    Raises:
        ValueError: the shapes are not equal and one-dimensional.

    Example:
        >>> import torch
        >>> excess_aurc(torch.tensor([0.1, 0.9, 0.2, 0.2]), torch.tensor([0, 1, 1, 0]))
        tensor(0.0625)

    References:
        Geifman, Uziel, El-Yaniv (2019), "Bias-reduced uncertainty estimation for deep neural
        classifiers" (the exact least area here, its limit for many examples there).
    """
    return aurc(uncertainty, errors) - aurc(errors, errors)


def _float(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())
