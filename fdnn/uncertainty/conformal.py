r"""Split conformal prediction: sets and intervals that contain the truth as often as promised.

Held-out examples give scores of nonconformity $s_i$; their quantile $\hat q$ is the threshold; a
prediction holds every value whose score is at most $\hat q$. If the new example and the $n$
held-out ones are exchangeable, then whatever the model,

$$1 - \alpha \le P(y \in C(x)) \le 1 - \alpha + \frac{1}{n + 1},$$

the right side if no scores are equal. The probability is over held-out and new examples together,
not for each $x$.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn import random
from fdnn.losses.check import same_shape
from fdnn.types import Key, Scalar
from fdnn.uncertainty.check import labels_fit, one_dimension, two_dimensions
from fdnn.uncertainty.regression import Interval

__all__ = [
    "aps_scores",
    "aps_sets",
    "conformal_quantile",
    "lac_scores",
    "lac_sets",
    "residual_interval",
    "residual_scores",
    "set_coverage",
]


def conformal_quantile(scores: Tensor, alpha: Scalar) -> Tensor:
    r"""Return the threshold: the $\lceil (n + 1)(1 - \alpha) \rceil$-th smallest of $n$ scores.

    Args:
        scores: of nonconformity, of held-out examples, of shape `(n,)`.
        alpha: $\alpha$, the share of misses that is allowed, in (0, 1): a number, or a 0-d tensor.

    Returns:
        A 0-d tensor. It is infinite, so that predictions hold everything, where $n$ is too small
        for `alpha`: below $1 / \alpha - 1$.

    Raises:
        ValueError: `scores` is not one-dimensional, or `alpha` not in (0, 1).

    Example:
        >>> import torch
        >>> conformal_quantile(torch.arange(1.0, 10.0), 0.2)  # of 9 the 8th
        tensor(8.)

    References:
        Papadopoulos, Proedrou, Vovk, Gammerman (2002), "Inductive confidence machines for
        regression"; Vovk, Gammerman, Shafer (2005), "Algorithmic learning in a random world".
    """
    one_dimension(scores=scores)
    if not isinstance(alpha, Tensor) and not 0 < alpha < 1:
        raise ValueError(f"`alpha` must be in (0, 1), got {alpha}")
    n = len(scores)
    alpha = torch.as_tensor(alpha, dtype=torch.float64, device=scores.device)
    # The factor: what rounding takes from a whole number must not cost a rank.
    rank = n + 1 - torch.floor((n + 1) * alpha * (1 + 1e-7)).long()
    ordered = torch.cat([scores.sort().values, scores.new_full((1,), torch.inf)])
    return ordered.gather(0, (rank - 1).clamp(0, n).reshape(1))[0]


def lac_scores(probs: Tensor, targets: Tensor) -> Tensor:
    r"""Score held-out examples by what their class lacks in probability: $1 - p_y$.

    Args:
        probs: $p$, of shape `(batch, classes)`.
        targets: $y$, integers of shape `(batch,)`.

    Returns:
        Scores of shape `(batch,)`.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import torch
        >>> lac_scores(torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([1, 0]))
        tensor([0.2500, 0.5000])

    References:
        Sadinle, Lei, Wasserman (2019), "Least ambiguous set-valued classifiers with bounded error
        levels".
    """
    labels_fit("probs", probs, targets)
    return _of_target(1 - probs, targets)


def lac_sets(probs: Tensor, threshold: Tensor) -> Tensor:
    r"""Return the classes that are probable enough: $\{k : 1 - p_k \le \hat q\}$.

    If probabilities are right, they are the smallest on average of all sets with this coverage.
    Some may be empty.

    Args:
        probs: $p$, of shape `(batch, classes)`.
        threshold: $\hat q$, `conformal_quantile` of `lac_scores`.

    Returns:
        Booleans of the shape of `probs`: whether the class is in the set.

    Example:
        >>> import torch
        >>> lac_sets(torch.tensor([[0.1, 0.3, 0.6]]), torch.tensor(0.8))
        tensor([[False,  True,  True]])
    """
    return 1 - probs <= threshold


def aps_scores(probs: Tensor, targets: Tensor, *, key: Key | None = None) -> Tensor:
    r"""Score held-out examples by the probability of what ranks before their class.

    $$s = \sum_{k : p_k > p_y} p_k + u \, p_y, \quad u \sim U(0, 1)$$

    (adaptive prediction sets). Equally probable classes rank by number.

    Args:
        probs: $p$, of shape `(batch, classes)`.
        targets: $y$, integers of shape `(batch,)`.
        key: for $u$; without it $u = 1$, and sets are somewhat larger.

    Returns:
        Scores of shape `(batch,)`.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import torch
        >>> aps_scores(torch.tensor([[0.1, 0.3, 0.6]]), torch.tensor([1]))
        tensor([0.9000])

    References:
        Romano, Sesia, Candes (2020), "Classification with valid and adaptive coverage".
    """
    labels_fit("probs", probs, targets)
    return _of_target(_aps(probs, key), targets)


def aps_sets(probs: Tensor, threshold: Tensor, *, key: Key | None = None) -> Tensor:
    r"""Return the most probable classes, until they are enough: $\{k : s_k \le \hat q\}$.

    $s_k$ is the score that class $k$ would have (`aps_scores`). Sets are larger where the model is
    unsure, so that their coverage varies less from one $x$ to another than that of `lac_sets`.

    Args:
        probs: of shape `(batch, classes)`.
        threshold: $\hat q$, `conformal_quantile` of `aps_scores`.
        key: for the random $u$, another one than for the scores; give it in both or in neither.
            With it sets may be empty.

    Returns:
        Booleans of the shape of `probs`: whether the class is in the set.

    Raises:
        ValueError: `probs` is not two-dimensional.

    Example:
        >>> import torch
        >>> aps_sets(torch.tensor([[0.1, 0.3, 0.6]]), torch.tensor(0.95))
        tensor([[False,  True,  True]])

    References:
        Romano, Sesia, Candes (2020), "Classification with valid and adaptive coverage".
    """
    return _aps(probs, key) <= threshold


def set_coverage(sets: Tensor, targets: Tensor) -> Tensor:
    """Measure the share of examples whose class is in their set; `sets.sum(-1)` is their size.

    Args:
        sets: booleans of shape `(batch, classes)`.
        targets: classes, integers of shape `(batch,)`.

    Returns:
        A 0-d tensor.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import torch
        >>> sets = torch.tensor([[True, False], [True, True]])
        >>> set_coverage(sets, torch.tensor([1, 1]))
        tensor(0.5000)
    """
    labels_fit("sets", sets, targets)
    return _of_target(sets, targets).to(torch.get_default_dtype()).mean()


def residual_scores(predictions: Tensor, targets: Tensor, *, scale: Tensor | None = None) -> Tensor:
    r"""Score held-out examples by their absolute residual: $|y - \mu|$, or $|y - \mu| / \sigma$.

    Args:
        predictions: $\mu$, of shape `(batch,)`.
        targets: $y$, of the same shape.
        scale: $\sigma$, positive, of the same shape: where large residuals are expected, such as
            `predictive_std` of an ensemble. Without it all intervals are equally wide.

    Returns:
        Scores of the same shape.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> scale = torch.tensor([2.0, 1.0])
        >>> residual_scores(torch.zeros(2), torch.tensor([3.0, -1.0]), scale=scale)
        tensor([1.5000, 1.0000])

    References:
        Lei, G'Sell, Rinaldo, Tibshirani, Wasserman (2018), "Distribution-free predictive inference
        for regression" (5.2 for the scale).
    """
    same_shape("predictions", predictions, targets=targets, scale=scale)
    residuals = (targets - predictions).abs()
    return residuals if scale is None else residuals / scale


def residual_interval(
    predictions: Tensor, threshold: Tensor, *, scale: Tensor | None = None
) -> Interval:
    r"""Return the interval around each prediction: $\mu \pm \hat q$, or $\mu \pm \hat q \sigma$.

    Args:
        predictions: $\mu$, of shape `(batch,)`.
        threshold: $\hat q$, `conformal_quantile` of `residual_scores`.
        scale: $\sigma$, of the same shape, if the scores were given one.

    Returns:
        `lower` and `upper`, for `coverage` and `interval_width`.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> residual_interval(torch.tensor([0.0, 5.0]), torch.tensor(2.0))
        Interval(lower=tensor([-2.,  3.]), upper=tensor([2., 7.]))
    """
    same_shape("predictions", predictions, scale=scale)
    reach = threshold if scale is None else threshold * scale
    return Interval(predictions - reach, predictions + reach)


def _of_target(scores: Tensor, targets: Tensor) -> Tensor:
    return scores.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def _aps(probs: Tensor, key: Key | None) -> Tensor:
    """The score of every class, were it the right one."""
    two_dimensions(probs=probs)
    ordered, order = probs.sort(stable=True, dim=-1, descending=True)
    u = 1.0 if key is None else random.uniform(key, (len(probs), 1), probs.dtype)
    scores = ordered.cumsum(-1) - (1 - u) * ordered
    return torch.zeros_like(probs).scatter(-1, order, scores)
