"""How good predicted class probabilities are, given the classes: proper scores, and sharpness."""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn.losses.reduction import Reduction, reduce
from fdnn.uncertainty.check import labels_fit

__all__ = ["brier_score", "nll", "sharpness"]


def nll(probs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Negative log-likelihood of the classes: $-\log p_y$.

    Of probabilities, which an average over members is; `losses.cross_entropy` takes logits. A
    probability that has rounded to 0 costs infinitely much.

    Args:
        probs: $p$, of shape `(batch, classes)`.
        targets: $y$, integers of shape `(batch,)`.
        reduction: `"mean"`, `"sum"`, or `"none"` for one value for each example.

    Returns:
        A 0-d tensor, or one of shape `(batch,)`, in nats.

    Raises:
        ValueError: the shapes do not fit, or `reduction` is none of the three.

    Example:
        >>> import torch
        >>> nll(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 1]))
        tensor(0.3466)
    """
    labels_fit("probs", probs, targets)
    return reduce(-probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1).log(), reduction)


def brier_score(probs: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Squared distance to the one-hot class: $\sum_k (p_k - [k = y])^2$, in $[0, 2]$.

    The sum over classes is Brier's own convention. Of two classes it is twice the score that
    looks at one of them alone (scikit-learn's `brier_score_loss` by default); some divide by the
    number of classes.

    Args:
        probs: $p$, of shape `(batch, classes)`.
        targets: $y$, integers of shape `(batch,)`.
        reduction: `"mean"`, `"sum"`, or `"none"` for one value for each example.

    Returns:
        A 0-d tensor, or one of shape `(batch,)`.

    Raises:
        ValueError: the shapes do not fit, or `reduction` is none of the three.

    Example:
        >>> import torch
        >>> brier_score(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([0, 1]))
        tensor(0.2500)

    References:
        Brier (1950), "Verification of forecasts expressed in terms of probability".
    """
    labels_fit("probs", probs, targets)
    one_hot = targets.unsqueeze(-1) == torch.arange(probs.shape[-1], device=probs.device)
    return reduce((probs - one_hot.to(probs.dtype)).square().sum(-1), reduction)


def sharpness(probs: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""How concentrated predictions are, right or wrong: $\sum_k p_k^2$.

    From one over the number of classes (uniform) to 1 (certain). If the classes were drawn from
    the predictions themselves, the Brier score would be 1 minus the sharpness: good forecasts are
    as sharp as calibration allows.

    Args:
        probs: $p$, of shape `(batch, classes)`.
        reduction: `"mean"`, `"sum"`, or `"none"` for one value for each example.

    Returns:
        A 0-d tensor, or one of shape `(batch,)`.

    Raises:
        ValueError: `reduction` is none of the three.

    Example:
        >>> import torch
        >>> sharpness(torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
        tensor(0.7500)

    References:
        Gneiting, Balabdaoui, Raftery (2007), "Probabilistic forecasts, calibration and sharpness"
        (the principle; this measure is the one that belongs to the Brier score).
    """
    return reduce(probs.square().sum(-1), reduction)
