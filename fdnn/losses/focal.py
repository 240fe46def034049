"""Focal losses: cross-entropy in which examples that are right already count less."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fdnn.losses.check import at_least_0, in_0_1
from fdnn.losses.classification import binary_cross_entropy_with_logits
from fdnn.losses.reduction import Reduction, check_reduction, reduce
from fdnn.types import Scalar

__all__ = ["sigmoid_focal_loss", "softmax_focal_loss"]


def sigmoid_focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    alpha: Scalar | None = 0.25,
    gamma: Scalar = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Compare logits with yes or no, hard examples first.

    $\ell = -\alpha_t (1 - p_t)^\gamma \log p_t$ with $p = \sigma(x)$ and $p_t = p$, $\alpha_t =
    \alpha$ for a target of 1, $p_t = 1 - p$, $\alpha_t = 1 - \alpha$ for 0. Between them
    cross-entropy, $p_t$ and $\alpha_t$ are mixed. With $\gamma = 0$ and no $\alpha$ it is
    `binary_cross_entropy_with_logits`.

    Args:
        input: $x$, logits of any shape.
        target: in [0, 1], of the shape of `input`.
        alpha: $\alpha$, the weight of positives, None for no weights.
        gamma: $\gamma$, how fast easy examples fade.
        reduction: "none", "mean" or "sum". (The paper divides the sum by the number of anchors
            that have an object.)

    Raises:
        ValueError: the shapes differ, `alpha` is not in [0, 1], `gamma` is negative, or
            `reduction` is unknown.

    Example:
        >>> logits, target = torch.tensor([0.0, 4.0]), torch.tensor([1.0, 1.0])
        >>> sigmoid_focal_loss(logits, target, reduction="none")
        tensor([4.3322e-02, 1.4679e-06])

    References:
        Lin, Goyal, Girshick, He, Dollár (2017), "Focal loss for dense object detection". Names and
        defaults are torchvision's, but for its reduction, "none".
    """
    at_least_0(gamma=gamma)
    target = target if target.is_floating_point() else target.to(input.dtype)
    terms = binary_cross_entropy_with_logits(input, target, reduction="none")
    miss = target * torch.sigmoid(-input) + (1 - target) * torch.sigmoid(input)
    terms = _power(miss, gamma) * terms
    if alpha is not None:
        in_0_1(alpha=alpha)
        terms = (alpha * target + (1 - alpha) * (1 - target)) * terms
    return reduce(terms, reduction)


def softmax_focal_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: Scalar = 2.0,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Compare logits with classes, hard examples first.

    $\ell = -w_t (1 - p_t)^\gamma \log p_t$ with $p = \mathrm{softmax}(x)$. With $\gamma = 0$ it is
    `cross_entropy`.

    Args:
        input: $x$, logits of shape `(C,)`, `(n, C)` or `(n, C, ...)`.
        target: $t$, classes of shape `()`, `(n,)` or `(n, ...)`, integers.
        weight: $w$, of shape `(C,)`: the paper's $\alpha_t$.
        gamma: $\gamma$, how fast easy examples fade.
        ignore_index: a class that marks what does not count.
        reduction: "none", "mean" or "sum". The mean is that of `cross_entropy`: the sum divided by
            that of the $w_t$ which count.

    Raises:
        ValueError: `target` holds no integers, `gamma` is negative, or `reduction` is unknown.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
        >>> softmax_focal_loss(logits, torch.tensor([0, 0]), reduction="none")
        tensor([1.7329e-01, 5.8716e-06])

    References:
        Lin, Goyal, Girshick, He, Dollár (2017), "Focal loss for dense object detection", which
        has the sigmoid form and names this one.
    """
    at_least_0(gamma=gamma)
    check_reduction(reduction)
    if target.is_floating_point():
        raise ValueError(f"`target` must hold integers, got {target.dtype}")
    plain = F.cross_entropy(input, target, ignore_index=ignore_index, reduction="none")
    counts = target != ignore_index
    share = counts.to(plain.dtype)
    if weight is not None:
        share = share * weight[torch.where(counts, target, 0)]
    terms = share * _power(-torch.expm1(-plain), gamma) * plain
    return terms.sum() / share.sum() if reduction == "mean" else reduce(terms, reduction)


def _power(miss: Tensor, gamma: Scalar) -> Tensor:
    """The power of a probability that may be 0, where a gamma below 1 has an infinite slope."""
    return miss.clamp_min(torch.finfo(miss.dtype).tiny) ** gamma
