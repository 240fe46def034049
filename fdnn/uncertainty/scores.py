r"""How uncertain a prediction is, example by example, no target needed.

Predictive entropy is total uncertainty. It splits into what the members agree on (expected
entropy, aleatoric) and what they disagree about (mutual information, epistemic).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "expected_entropy",
    "max_probability",
    "mutual_information",
    "predictive_entropy",
    "predictive_std",
    "variation_ratio",
]


def predictive_entropy(probs: Tensor) -> Tensor:
    r"""Measure the entropy of each distribution: $H = -\sum_k p_k \log p_k$.

    In nats, from 0 (certain) to $\log$ of the number of classes. The gradient is finite where a
    probability is 0.

    Args:
        probs: $p$, of shape `(..., classes)`.

    Returns:
        A tensor of shape `(...)`.

    Example:
        >>> import torch
        >>> predictive_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.6931, 0.0000])

    References:
        Shannon (1948), "A mathematical theory of communication".
    """
    log = probs.clamp(min=torch.finfo(probs.dtype).tiny).log()
    return (probs * log).sum(-1).neg() + 0.0  # not -0


def expected_entropy(member_probs: Tensor) -> Tensor:
    r"""Measure the members' mean entropy: $\frac{1}{T} \sum_t H(p_t)$, aleatoric uncertainty.

    Args:
        member_probs: $p_t$, of shape `(samples, ..., classes)`.

    Returns:
        A tensor of shape `(...)`, in nats.

    Example:
        >>> import torch
        >>> expected_entropy(torch.tensor([[[0.5, 0.5]], [[1.0, 0.0]]]))
        tensor([0.3466])

    References:
        Depeweg, Hernandez-Lobato, Doshi-Velez, Udluft (2018), "Decomposition of uncertainty in
        Bayesian deep learning for efficient and risk-sensitive learning".
    """
    return predictive_entropy(member_probs).mean(0)


def mutual_information(member_probs: Tensor) -> Tensor:
    r"""Measure how much the members disagree: $H(\bar p) - \frac{1}{T} \sum_t H(p_t)$ (BALD).

    $\bar p = \frac{1}{T} \sum_t p_t$. It is what the label would tell about the weights: epistemic
    uncertainty, 0 where all members say the same.

    Args:
        member_probs: $p_t$, of shape `(samples, ..., classes)`.

    Returns:
        A tensor of shape `(...)`, in nats, never negative.

    Example:
        >>> import torch
        >>> mutual_information(torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]))
        tensor([0.6931, 0.0000])

    References:
        Houlsby, Huszar, Ghahramani, Lengyel (2011), "Bayesian active learning for classification
        and preference learning".
    """
    total = predictive_entropy(member_probs.mean(0))
    return (total - expected_entropy(member_probs)).clamp(min=0.0)


def variation_ratio(member_probs: Tensor) -> Tensor:
    r"""Measure the share of members that vote against the majority: $1 - \max_k v_k / T$.

    $v_k$ of the $T$ members give class $k$ the largest probability (or logit). Votes have no
    gradient.

    Args:
        member_probs: of shape `(samples, ..., classes)`.

    Returns:
        A tensor of shape `(...)`, in $[0, 1 - 1 / \text{classes}]$.

    Example:
        >>> import torch
        >>> variation_ratio(torch.tensor([[[0.9, 0.1]], [[0.8, 0.2]], [[0.4, 0.6]]]))
        tensor([0.3333])

    References:
        Freeman (1965), "Elementary applied statistics".
    """
    classes = torch.arange(member_probs.shape[-1], device=member_probs.device)
    votes = member_probs.argmax(-1, keepdim=True) == classes
    return 1 - votes.to(member_probs.dtype).mean(0).amax(-1)


def max_probability(probs: Tensor) -> Tensor:
    r"""Return the probability of the predicted class: $\max_k p_k$, the confidence.

    It rises with certainty; `1 - max_probability(probs)` is an uncertainty.

    Args:
        probs: $p$, of shape `(..., classes)`.

    Returns:
        A tensor of shape `(...)`.

    Example:
        >>> import torch
        >>> max_probability(torch.tensor([[0.2, 0.8], [0.5, 0.5]]))
        tensor([0.8000, 0.5000])

    References:
        Hendrycks, Gimpel (2017), "A baseline for detecting misclassified and out-of-distribution
        examples in neural networks".
    """
    return probs.amax(-1)


def predictive_std(outputs: Tensor, *, correction: int = 1) -> Tensor:
    r"""Measure the standard deviation over members: $\sqrt{\sum_t (f_t - \bar f)^2 / (T - c)}$.

    Args:
        outputs: $f_t$, probabilities, logits or means, of shape `(samples, ...)`.
        correction: $c$, torch's: 1 for the unbiased variance, 0 for that of the members.

    Returns:
        A tensor of shape `(...)`, nan if there are not more members than `correction`.

    Raises:
        ValueError: `outputs` is a 0-d tensor.

    Example:
        >>> import torch
        >>> predictive_std(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), correction=0)
        tensor([1., 0.])
    """
    if outputs.ndim == 0:
        raise ValueError("`outputs` must have a dimension of samples, got a 0-d tensor")
    return outputs.std(0, correction=correction)
