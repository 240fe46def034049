"""Two arms compared: how large the difference is, and how sure that there is one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fdnn.study.statistics.difference import Difference, difference, finite_samples, ratio
from fdnn.study.statistics.interval import Interval, bootstrap_interval, t_interval
from fdnn.study.statistics.sample import (
    Floats,
    Values,
    check_share,
    standard_deviation,
    without_rounding,
)
from fdnn.study.statistics.scipy_stats import scipy_stats

__all__ = ["Comparison", "compare", "compare_named"]


class Comparison(NamedTuple):
    """What `compare` finds of A - B.

    Attributes:
        paired: whether run i of A is compared with run i of B.
        n_a: how many runs of A are compared.
        n_b: how many runs of B; of pairs the same number.
        diverged_a: how many runs of A diverged.
        diverged_b: how many runs of B diverged.
        left_out: how many runs (of pairs: pairs) are left out for that.
        mean_a: the mean of A.
        mean_b: the mean of B.
        difference: mean of A minus mean of B.
        sd_difference: the standard deviation of the differences; of unpaired runs that of a run of
            A minus a run of B, drawn independently.
        standard_error: of `difference`.
        degrees_of_freedom: of the t distribution: pairs - 1, or Welch's.
        confidence: of both intervals.
        t_interval: of the difference of the means, by the t distribution.
        bootstrap_interval: the same by the bootstrap, of pairs or of each arm.
        t_test_p: two-sided p-value of the paired t test, or of Welch's.
        rank_test_p: that of Wilcoxon's signed rank test, or of the Mann-Whitney U test.
        effect_size: Cohen's d_z (difference over sd_difference), or Hedges' g.
        correlation: Pearson's, of the arms over pairs. Pairing pays where it is high. nan if
            unpaired or if an arm is constant.
        probability_of_superiority: that a run of A is above its partner of B, or above any of B;
            ties count one half.
        probability_above: Bayesian probability that the true mean of A is above that of B.
        p_holm: `t_test_p` after Holm's correction; None if this is the only comparison.
    """

    paired: bool
    n_a: int
    n_b: int
    diverged_a: int
    diverged_b: int
    left_out: int
    mean_a: float
    mean_b: float
    difference: float
    sd_difference: float
    standard_error: float
    degrees_of_freedom: float
    confidence: float
    t_interval: Interval
    bootstrap_interval: Interval
    t_test_p: float
    rank_test_p: float
    effect_size: float
    correlation: float
    probability_of_superiority: float
    probability_above: float
    p_holm: float | None = None

    def verdict(self, a: str = "A", b: str = "B") -> str:
        """Say it in English.

        Settled is what the t test rejects at the level 1 - `confidence`, after Holm's correction
        where there was one.

        Args:
            a: the name of A.
            b: the name of B.

        Returns:
            One sentence, and another one if runs are left out.
        """
        low, high = self.t_interval
        tests = f"t test {_p(self.t_test_p)}"
        if self.p_holm is not None:
            tests += f", Holm-corrected {_p(self.p_holm)}"
        tests += f", {'Wilcoxon' if self.paired else 'Mann-Whitney'} {_p(self.rank_test_p)}"
        runs = f"{self.n_a} pairs" if self.paired else f"{self.n_a} and {self.n_b} runs"
        if self.sd_difference == 0:
            runs += " without any spread"
        numbers = (
            f"by {abs(self.difference):.3g} on average ({a} - {b}: {100 * self.confidence:g} % "
            f"interval {low:.3g} to {high:.3g}, {runs}, {tests})."
        )
        side = "equal to" if not self.difference else "above" if self.difference > 0 else "below"
        p = self.t_test_p if self.p_holm is None else self.p_holm
        if p < 1 - self.confidence:
            said = f"{a} is {side} {b} {numbers}"
        else:
            said = f"Not settled: {a} is {side} {b} {numbers}"
        if self.left_out:
            kept = f"{self.n_a} pairs" if self.paired else f"{self.n_a + self.n_b} runs"
            said += (
                f" Left out beside these {kept}: {self.left_out}, since runs diverged "
                f"({self.diverged_a} of {a}, {self.diverged_b} of {b})."
            )
        return said


def compare(
    a: Values,
    b: Values,
    *,
    paired: bool = True,
    confidence: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> Comparison:
    r"""Compare two arms over their runs.

    Of $n$ pairs with differences $d_i = a_i - b_i$, of mean $\bar d$ and standard deviation $s_d$,
    $t = \bar d \sqrt n / s_d$ gives the t test and the interval
    $\bar d \pm t_{n-1} s_d / \sqrt n$. Unpaired arms have Welch's, which allows unequal variances.

    `probability_above` is the posterior probability that the true mean of A is above that of B:
    $T_{n-1}(t)$, with the distribution function $T$ of Student's t. It is exact for normal
    differences and the noninformative prior $p(\mu, \sigma^2) \propto 1 / \sigma^2$, with which it
    is 1 minus the one-sided p-value. For unpaired arms, with Welch's degrees of freedom, it
    approximates the posterior of Behrens and Fisher.

    All of this is about runs that differ by their seeds. What arms share, above all a finite test
    set, is a chance that no number of seeds shows.

    Args:
        a: one number per run of arm A, shape `(n,)`; what is nan or infinite diverged.
        b: the same of arm B; of pairs in the same order of seeds.
        paired: whether runs with the same position share seed, start or data.
        confidence: how often such intervals hold the true difference.
        n_resamples: how often the bootstrap (BCa) draws runs anew, 99 or more.
        seed: of these draws.

    Returns:
        The difference, its intervals, tests and effect sizes; `verdict()` says it in English. A
        pair of which one diverged is left out, and counted. Should all differences be
        equal, `sd_difference` is 0, and the t test's p-value is 1 if they are 0, and 0 if not.

    Raises:
        ValueError: fewer than 2 pairs, or runs of an arm, are finite; pairs whose arms have
            different lengths; `confidence` is not between 0 and 1; `n_resamples` is too small.

    Example:
        >>> a = [0.872, 0.880, 0.869, 0.875, 0.881]
        >>> b = [0.861, 0.874, 0.860, 0.862, 0.873]
        >>> found = compare(a, b)
        >>> print(found.verdict("cosine", "constant"))  # doctest: +NORMALIZE_WHITESPACE
        cosine is above constant by 0.0094 on average (cosine - constant: 95 % interval 0.00605 to
        0.0128, 5 pairs, t test p = 0.0015, Wilcoxon p = 0.062).
        >>> round(found.effect_size, 2), round(found.probability_above, 4)
        (3.48, 0.9993)

    References:
        Student (1908), The Probable Error of a Mean. B. L. Welch (1947), The Generalization of
        "Student's" Problem. F. Wilcoxon (1945), Individual Comparisons by Ranking Methods. J. Cohen
        (1988), Statistical Power Analysis for the Behavioral Sciences. L. Hedges (1981),
        Distribution Theory for Glass's Estimator of Effect Size. Before the signed rank test,
        differences which only rounding tells apart are made equal.
    """
    return compare_named(("a", "b"), a, b, paired, confidence, n_resamples, seed)


def compare_named(
    names: tuple[str, str],
    a: Values,
    b: Values,
    paired: bool,
    confidence: float,
    n_resamples: int,
    seed: int,
) -> Comparison:
    """`compare`, with other names of the arms in errors."""
    check_share("confidence", confidence)
    first, second, diverged = finite_samples(names, a, b, paired)
    found = difference(first, second, paired)
    t = scipy_stats().t
    bootstrap = Interval(found.mean, found.mean)
    if found.sd > 0:
        samples = (first - second,) if paired else (first, second)
        bootstrap = bootstrap_interval(
            *samples, confidence=confidence, n_resamples=n_resamples, seed=seed
        )
    rank_test_p, superiority = (_signed_rank if paired else _rank_sum)(first, second)
    all_pairs_or_runs = len(a) if paired else len(a) + len(b)
    return Comparison(
        paired=paired,
        n_a=len(first),
        n_b=len(second),
        diverged_a=diverged[0],
        diverged_b=diverged[1],
        left_out=all_pairs_or_runs - len(first) - (0 if paired else len(second)),
        mean_a=float(first.mean()),
        mean_b=float(second.mean()),
        difference=found.mean,
        sd_difference=found.sd,
        standard_error=found.standard_error,
        degrees_of_freedom=found.degrees_of_freedom,
        confidence=confidence,
        t_interval=t_interval(
            found.mean, found.standard_error, found.degrees_of_freedom, confidence
        ),
        bootstrap_interval=bootstrap,
        t_test_p=float(2 * t.sf(abs(found.t), found.degrees_of_freedom)),
        rank_test_p=rank_test_p,
        effect_size=_effect_size(first, second, found, paired),
        correlation=_correlation(first, second) if paired else math.nan,
        probability_of_superiority=superiority,
        probability_above=float(t.cdf(found.t, found.degrees_of_freedom)),
    )


def _signed_rank(a: Floats, b: Floats) -> tuple[float, float]:
    """Wilcoxon's p-value, and the share of pairs with a above b."""
    change = without_rounding(a, b)
    p = float(scipy_stats().wilcoxon(change).pvalue) if change.any() else 1.0
    return p, float((1 + np.sign(change)).mean() / 2)


def _rank_sum(a: Floats, b: Floats) -> tuple[float, float]:
    """The p-value of Mann and Whitney, and the share of couples with a above b."""
    found = scipy_stats().mannwhitneyu(a, b)
    return float(found.pvalue), float(found.statistic) / (len(a) * len(b))


def _effect_size(a: Floats, b: Floats, found: Difference, paired: bool) -> float:
    """Cohen's d_z, or Hedges' g with the exact correction for small samples."""
    if paired:
        return ratio(found.mean, found.sd)
    freedom = len(a) + len(b) - 2
    shares = math.sqrt((len(a) - 1) / freedom), math.sqrt((len(b) - 1) / freedom)
    pooled = math.hypot(shares[0] * standard_deviation(a), shares[1] * standard_deviation(b))
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2))
    return ratio(found.mean, pooled) * correction / math.sqrt(freedom / 2)


def _correlation(a: Floats, b: Floats) -> float:
    """Pearson's; nan of a constant."""
    if not standard_deviation(a) or not standard_deviation(b):
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 1e-16 else "p < 1e-16"
