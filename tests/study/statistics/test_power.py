"""Power against published figures, the normal approximation and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fdnn.study import compare, power, seeds_needed


@pytest.mark.parametrize(
    ("effect", "pairs", "per_arm"),
    [(0.2, 199, 394), (0.5, 34, 64), (0.8, 15, 26)],  # Cohen's small, medium, large; 80 %, 5 %
)
def test_cohens_tables(effect: float, pairs: int, per_arm: int) -> None:
    assert seeds_needed(1.0, effect) == pairs
    assert seeds_needed(1.0, effect, paired=False) == per_arm


def test_power_t_test_of_r() -> None:
    """`power.t.test(power=.90, delta=1)` gives n = 22.02110."""
    assert seeds_needed(1.0, 1.0, paired=False, power=0.9) == 23
    assert seeds_needed(1.0, 0.5, power=0.95) == 54  # G*Power, d_z = 0.5


@pytest.mark.parametrize(("paired", "rule"), [(True, 7.85), (False, 15.7)])
def test_normal_approximation_for_many(paired: bool, rule: float) -> None:
    """What estimating sd costs is z^2 / 2 pairs, z^2 / 4 per arm: 2 and 1 seeds."""
    for delta in (0.1, 0.01, 0.001):
        approximate = rule / delta**2
        extra = 1.92 if paired else 0.96
        assert abs(seeds_needed(1.0, delta, paired) - approximate - extra) < 1 + 5e-4 * approximate


@pytest.mark.parametrize(("alpha", "wanted"), [(0.05, 0.8), (0.01, 0.9)])
def test_normal_quantiles_give_the_rule(alpha: float, wanted: float) -> None:
    factor = (stats.norm.isf(alpha / 2) + stats.norm.ppf(wanted)) ** 2
    found = seeds_needed(1.0, 1e-4, alpha=alpha, power=wanted)
    assert found == pytest.approx(factor * 1e8, rel=1e-5)


def arms(n: int, sd: float) -> tuple[np.ndarray, np.ndarray]:
    """Arms whose differences have exactly this standard deviation, and the mean 0.3."""
    d = np.random.default_rng(n).normal(size=n)
    return 0.3 + sd * (d - d.mean()) / d.std(ddof=1), np.zeros(n)


@pytest.mark.parametrize(
    ("n", "delta", "alpha"), [(5, 0.9, 0.05), (10, 0.6, 0.05), (10, 0.9, 0.01), (40, 0.2, 0.1)]
)
def test_achieved_power_by_simulation(n: int, delta: float, alpha: float) -> None:
    trials = 20_000
    d = delta + 0.7 * np.random.default_rng(0).normal(size=(trials, n))
    share = (stats.ttest_1samp(d, 0, axis=1).pvalue < alpha).mean()
    found = power(*arms(n, 0.7), delta=delta, alpha=alpha)
    assert abs(share - found.power) < 4 * math.sqrt(found.power * (1 - found.power) / trials)


@pytest.mark.parametrize(("sd", "delta", "paired"), [(1.0, 0.9, True), (1.0, 1.1, False)])
def test_seeds_needed_have_the_power(sd: float, delta: float, paired: bool) -> None:
    """And one seed fewer has not, by simulation."""
    n, trials, rng = seeds_needed(sd, delta, paired), 40_000, np.random.default_rng(1)
    shares = []
    for m in (n, n - 1):
        a = delta + sd * rng.normal(size=(trials, m))
        if paired:
            p = stats.ttest_1samp(a, 0, axis=1).pvalue
        else:
            p = stats.ttest_ind(a, sd * rng.normal(size=(trials, m)), axis=1).pvalue
        shares.append((p < 0.05).mean())
    error = math.sqrt(0.8 * 0.2 / trials)
    assert shares[0] > 0.8 - 4 * error
    assert shares[1] < 0.8 + 4 * error
    assert shares[0] - shares[1] > 0.01


def test_one_seed_more_crosses_the_line() -> None:
    needed = seeds_needed(0.7, 0.4)
    assert power(*arms(needed, 0.7), delta=0.4).power >= 0.8
    assert power(*arms(needed - 1, 0.7), delta=0.4).power < 0.8


def test_noncentral_t_where_scipy_has_it() -> None:
    n, delta = 12, 0.5
    found = power(*arms(n, 0.7), delta=delta)
    critical, center = stats.t.isf(0.025, n - 1), delta / 0.7 * math.sqrt(n)
    tails = stats.nct.sf(critical, n - 1, center) + stats.nct.cdf(-critical, n - 1, center)
    assert found.power == pytest.approx(tails, abs=1e-12)


def test_fields() -> None:
    a, b = arms(10, 0.7)
    found = power(np.append(a, np.nan), np.append(b, 0.0), delta=0.4)
    assert (found.n, found.left_out, found.delta, found.wanted_power) == (10, 1, 0.4, 0.8)
    assert found.sd_difference == pytest.approx(0.7, rel=1e-12)
    assert found.seeds_needed == seeds_needed(found.sd_difference, 0.4)
    assert found.more_seeds == found.seeds_needed - 10
    assert power(a, b, delta=40.0).more_seeds == 0
    assert power(a, b, delta=-0.4) == power(a, b, delta=0.4)._replace(delta=-0.4)


def test_default_is_the_observed_difference() -> None:
    """At p = alpha its power is about one half."""
    a, b = arms(30, 0.7)
    found = power(a, b)
    assert found == power(a, b, delta=compare(a, b).difference)
    edge = stats.t.isf(0.025, 29) / math.sqrt(30)
    at_alpha = a - a.mean() + 0.7 * edge
    assert compare(at_alpha, b).t_test_p == pytest.approx(0.05)
    assert power(at_alpha, b).power == pytest.approx(0.5, abs=0.03)


def test_power_of_nothing_is_alpha() -> None:
    assert power(*arms(8, 1.0), delta=1e-9, alpha=0.03).power == pytest.approx(0.03)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.01, 10),
    st.floats(0.01, 10),
    st.booleans(),
    st.floats(0.001, 0.2),
    st.integers(-3, 3),
)
def test_monotone_and_free_of_units(
    sd: float, delta: float, paired: bool, alpha: float, exponent: int
) -> None:
    n = seeds_needed(sd, delta, paired, alpha)
    assert n >= 2
    assert n == seeds_needed(sd * 2.0**exponent, -delta * 2.0**exponent, paired, alpha)
    assert n <= seeds_needed(1.5 * sd, delta, paired, alpha)
    assert n <= seeds_needed(sd, delta, paired, alpha, power=0.9)
    assert n <= seeds_needed(sd, delta, paired, alpha / 2)


def test_extremes() -> None:
    assert seeds_needed(0.0, 1.0) == seeds_needed(1.0, 1e12) == 2
    assert seeds_needed(1.0, 1e-9) == pytest.approx(7.8489e18, rel=1e-4)
    assert power([1.0, 2.0], [0.0, 1.0]).power == 1


def test_errors() -> None:
    a = [1.0, 2.0, 4.0]
    with pytest.raises(ValueError, match="`delta` must be given where the observed"):
        power(a, a)
    for call in (lambda **kw: seeds_needed(1.0, **kw), lambda **kw: power(a, [0.0] * 3, **kw)):
        for delta in (0.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"`delta` must be finite and not 0, got {delta}"):
                call(delta=delta)
        with pytest.raises(ValueError, match=r"`alpha` must be in \(0, 1\), got 5"):
            call(delta=1.0, alpha=5)
        with pytest.raises(ValueError, match=r"`power` must be in \(0, 1\), got 80"):
            call(delta=1.0, power=80)
    for sd in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"`sd` must be finite and not negative, got {sd}"):
            seeds_needed(sd, 1.0)
    with pytest.raises(ValueError, match="`a` and `b` must have equal lengths"):
        power(a, a[:2])
