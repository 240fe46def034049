"""How well a score tells two kinds apart: mistakes from hits, foreign inputs from familiar ones.

Ties are exact: the result does not depend on the order of examples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fdnn.uncertainty.check import one_for_each

__all__ = ["auroc", "average_precision"]


def auroc(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Area under the receiver operating characteristic.

    $$P(s^+ > s^-) + \tfrac{1}{2} P(s^+ = s^-)
    = \frac{\sum_{i : l_i = 1} r_i - P (P + 1) / 2}{P N}$$

    over pairs of a positive and a negative example, with $P$ positives, $N$ negatives, and ranks
    $r$ of which equal scores share the mean. 0.5 is chance, 1 is perfect. For misclassification,
    labels are the mistakes and scores an uncertainty; for out-of-distribution detection, labels
    are the foreign inputs. Ranks have no gradient.

    Args:
        scores: $s$, larger for positives, of shape `(batch,)`.
        labels: $l$, booleans, or 1 for positives and 0 for negatives, of shape `(batch,)`.

    Returns:
        A 0-d tensor, nan unless there are both kinds.

    Raises:
        ValueError: the shapes are not equal and one-dimensional.

    Example:
        >>> import torch
        >>> auroc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.8750)

    References:
        Hanley, McNeil (1982), "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve".
    """
    scores, positive = _checked(scores, labels)
    ordered = scores.sort().values
    below = torch.searchsorted(ordered, scores)
    up_to = torch.searchsorted(ordered, scores, right=True)
    positives = positive.sum()
    pairs = positives * (len(scores) - positives)
    twice = (positive * (below + up_to + 1)).sum() - positives * (positives + 1)  # whole numbers
    return twice.to(_float(scores)) / (2 * pairs).to(_float(scores))


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Area under the precision-recall curve (AUPR), as a step function.

    $$\frac{1}{P} \sum_{i : l_i = 1} \frac{\#\{j : s_j \ge s_i, l_j = 1\}}{\#\{j : s_j \ge s_i\}}$$

    with $P$ positives: scikit-learn's `average_precision_score`. Chance is the share of
    positives, so compare only with equal shares. It has no gradient.

    Args:
        scores: $s$, larger for positives, of shape `(batch,)`.
        labels: $l$, booleans, or 1 for positives and 0 for negatives, of shape `(batch,)`.

    Returns:
        A 0-d tensor, nan if there are no positives.

    Raises:
        ValueError: the shapes are not equal and one-dimensional.

    Example:
        >>> import torch
        >>> average_precision(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.8333)

    References:
        Davis, Goadrich (2006), "The relationship between precision-recall and ROC curves".
    """
    scores, positive = _checked(scores, labels)
    ordered, order = scores.sort()
    below = torch.searchsorted(ordered, scores)
    positives_below = F.pad(positive[order].cumsum(0), (1, 0))[below]
    positives = positive.sum()
    precision = (positives - positives_below).to(_float(scores)) / (len(scores) - below)
    return (positive * precision).sum() / positives


def _checked(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    one_for_each(scores=scores, labels=labels)
    return scores.detach().contiguous(), labels.bool().long()


def _float(scores: Tensor) -> torch.dtype:
    return scores.dtype if scores.is_floating_point() else torch.get_default_dtype()
