"""Two arms that are as good as equal: two one-sided tests."""

from __future__ import annotations

from typing import NamedTuple

from fdnn.study.statistics.difference import difference, finite_samples, ratio
from fdnn.study.statistics.interval import Interval, t_interval
from fdnn.study.statistics.sample import Values, check_share
from fdnn.study.statistics.scipy_stats import scipy_stats

__all__ = ["Equivalence", "equivalence"]


class Equivalence(NamedTuple):
    """What `equivalence` finds.

    Attributes:
        n_a: how many runs of A are compared.
        n_b: how many runs of B; of pairs the same number.
        diverged_a: how many runs of A diverged.
        diverged_b: how many runs of B diverged.
        difference: mean of A minus mean of B.
        margin: the largest difference that does not matter.
        alpha: the level of the test.
        interval: of the difference, at the confidence 1 - 2 alpha. The test rejects if this lies
            within the margin.
        p_value: of the hypothesis that the true difference is as large as the margin, or larger.
    """

    n_a: int
    n_b: int
    diverged_a: int
    diverged_b: int
    difference: float
    margin: float
    alpha: float
    interval: Interval
    p_value: float


def equivalence(
    a: Values, b: Values, margin: float, alpha: float = 0.05, *, paired: bool = True
) -> Equivalence:
    r"""Test whether two arms differ by less than a margin.

    A difference that no test found may still be large. This turns the question round: with the
    standard error $e$ of the mean difference $\bar d$, the larger of the one-sided p-values of
    $t = (\bar d + m) / e$, to be above 0, and of $t = (\bar d - m) / e$, to be below 0, where $m$
    is `margin`.

    Args:
        a: one number per run of arm A, shape `(n,)`; what is nan or infinite diverged.
        b: the same of arm B.
        margin: the largest difference that does not matter, in the unit of the values; chosen
            before the values are seen.
        alpha: the level of the test, which sets the interval given.
        paired: whether runs with the same position share seed, start or data.

    Returns:
        The p-value: if it is `alpha` or below, the arms differ by less than the margin.

    Raises:
        ValueError: `margin` is not positive, `alpha` not in (0, 0.5), or the arms cannot be
            compared (see `compare`).

    Example:
        >>> a = [0.870, 0.881, 0.866, 0.874, 0.879]
        >>> b = [0.871, 0.880, 0.867, 0.873, 0.880]
        >>> found = equivalence(a, b, margin=0.003)
        >>> round(found.difference, 4), round(found.p_value, 4)
        (-0.0002, 0.0023)

    References:
        D. Schuirmann (1987), A Comparison of the Two One-Sided Tests Procedure and the Power
        Approach.
    """
    if not margin > 0:
        raise ValueError(f"`margin` must be positive, got {margin}")
    check_share("alpha", alpha)
    if alpha >= 0.5:
        raise ValueError(f"`alpha` must be below 0.5, got {alpha}")
    first, second, diverged = finite_samples(("a", "b"), a, b, paired)
    found = difference(first, second, paired)
    error, freedom = found.standard_error, found.degrees_of_freedom
    sf = scipy_stats().t.sf
    p_value = max(
        sf(ratio(found.mean + margin, error), freedom),
        sf(ratio(margin - found.mean, error), freedom),
    )
    return Equivalence(
        n_a=len(first),
        n_b=len(second),
        diverged_a=diverged[0],
        diverged_b=diverged[1],
        difference=found.mean,
        margin=margin,
        alpha=alpha,
        interval=t_interval(found.mean, error, freedom, 1 - 2 * alpha),
        p_value=float(p_value),
    )
