"""How many seeds would settle it."""

from __future__ import annotations

import math
from typing import NamedTuple

from fdnn.study.statistics.difference import difference, finite_samples
from fdnn.study.statistics.sample import Values, check_share
from fdnn.study.statistics.scipy_stats import scipy_stats

__all__ = ["Power", "power", "seeds_needed"]


class Power(NamedTuple):
    """What `power` finds.

    Attributes:
        n: how many pairs there are.
        left_out: how many are left out, since a run of them diverged.
        delta: the true difference that is to be found.
        sd_difference: the standard deviation of the differences.
        alpha: the level of the test.
        power: the probability that the paired t test finds `delta` with `n` pairs.
        wanted_power: the probability wanted.
        seeds_needed: with how many pairs the test has it.
        more_seeds: how many that is beyond `n`; 0 if there are enough.
    """

    n: int
    left_out: int
    delta: float
    sd_difference: float
    alpha: float
    power: float
    wanted_power: float
    seeds_needed: int
    more_seeds: int


def power(
    a: Values, b: Values, delta: float | None = None, alpha: float = 0.05, power: float = 0.8
) -> Power:
    r"""Tell whether the pairs there are suffice to find a difference, and how many would.

    If the true mean difference is $\delta$ and the standard deviation of the differences is that of
    the $n$ pairs, $\sigma$, then $t$ of the paired t test has the noncentral t distribution with
    $n - 1$ degrees of freedom and noncentrality $\delta \sqrt n / \sigma$. The power is the
    probability that $|t|$ exceeds the quantile of the two-sided test at level `alpha`.

    Give `delta`, the smallest difference that would matter. For the observed difference, the
    default, the power with the seeds there are is only the p-value in other words (about one half
    where p = alpha); what is of use then is the number of seeds.

    Args:
        a: one number per run of arm A, shape `(n,)`; what is nan or infinite diverged.
        b: the same of arm B, in the same order of seeds.
        delta: the difference $\delta$ to find, in the unit of the values; its sign does not matter.
            None takes the observed mean difference.
        alpha: the level of the two-sided test.
        power: the probability wanted.

    Returns:
        The power now, and the number of seeds for the power wanted.

    Raises:
        ValueError: `delta`, or the observed difference in its place, is 0; `alpha` or `power` is
            not between 0 and 1; fewer than 2 pairs are finite; the lengths differ.

    Example:
        >>> a = [0.872, 0.880, 0.869, 0.875, 0.881]
        >>> b = [0.868, 0.882, 0.866, 0.870, 0.880]
        >>> found = power(a, b, delta=0.002)
        >>> round(found.power, 2), found.seeds_needed, found.more_seeds
        (0.24, 18, 13)

    References:
        J. Cohen (1988), Statistical Power Analysis for the Behavioral Sciences. J. Hoenig and D.
        Heisey (2001), The Abuse of Power, on the power for observed differences.
    """
    first, second, _ = finite_samples(("a", "b"), a, b, paired=True)
    found = difference(first, second, paired=True)
    if delta is None and found.mean == 0:
        raise ValueError("`delta` must be given where the observed difference is 0, got None")
    delta = found.mean if delta is None else delta
    needed = seeds_needed(found.sd, delta, alpha=alpha, power=power)
    return Power(
        n=len(first),
        left_out=len(a) - len(first),
        delta=delta,
        sd_difference=found.sd,
        alpha=alpha,
        power=_power(len(first), found.sd, delta, True, alpha),
        wanted_power=power,
        seeds_needed=needed,
        more_seeds=max(0, needed - len(first)),
    )


def seeds_needed(
    sd: float, delta: float, paired: bool = True, alpha: float = 0.05, power: float = 0.8
) -> int:
    r"""Plan a study: the number of seeds per arm with which a difference is found.

    It is the smallest $n$, 2 or more, for which the two-sided t test has the `power`, by the
    noncentral t distribution. With $n$ pairs that has $n - 1$ degrees of freedom and noncentrality
    $\delta \sqrt n / \sigma$; with two unpaired arms $2 n - 2$ and $\delta \sqrt{n / 2} / \sigma$.
    At the defaults $n$ is near $7.85\, (\sigma / \delta)^2$ for pairs, and $15.7\, (\sigma /
    \delta)^2$ for others: a few more, since the standard deviation is estimated as well.

    Args:
        sd: $\sigma$: of the differences if paired, or else of either arm.
        delta: the true difference $\delta$ to find, in the same unit.
        paired: whether the arms share their seeds.
        alpha: the level of the test.
        power: the probability wanted that the test finds it.

    Returns:
        Seeds per arm.

    Raises:
        ValueError: `sd` is negative, `delta` is 0, one of them is not finite, or `alpha` or `power`
            is not between 0 and 1.

    Example:
        >>> seeds_needed(sd=0.0025, delta=0.002)
        15
        >>> seeds_needed(sd=0.0043, delta=0.002, paired=False)
        74

    References:
        J. Cohen (1988), Statistical Power Analysis for the Behavioral Sciences.
    """
    check_share("alpha", alpha)
    check_share("power", power)
    if not (math.isfinite(sd) and sd >= 0):
        raise ValueError(f"`sd` must be finite and not negative, got {sd}")
    if not math.isfinite(delta) or delta == 0:
        raise ValueError(f"`delta` must be finite and not 0, got {delta}")
    low, high = 1, 2
    while _power(high, sd, delta, paired, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _power(middle, sd, delta, paired, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def _power(n: int, sd: float, delta: float, paired: bool, alpha: float) -> float:
    """That of the two-sided t test; $t^2$ has the noncentral F distribution."""
    if sd == 0:
        return 1.0
    stats = scipy_stats()
    freedom = n - 1 if paired else 2 * n - 2
    critical = stats.f.isf(alpha, 1, freedom)
    # Beyond 1e8 standard errors SciPy gives nan for what is 1.
    noncentrality = min(abs(delta) / sd * math.sqrt(n if paired else n / 2), 1e8) ** 2
    return float(stats.ncf.sf(critical, 1, freedom, noncentrality))
