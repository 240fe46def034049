"""Comparisons against SciPy, published examples, closed forms and simulated posteriors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fdnn.study import Comparison, compare, equivalence

PAIRS = st.lists(st.tuples(st.integers(-640, 640), st.integers(-640, 640)), min_size=2, max_size=7)
both = pytest.mark.parametrize("paired", [True, False])

# Hours of sleep gained with two drugs, ten patients: Student (1908), R's data set `sleep`.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def draws(seed: int, n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    return a, 0.7 * a + 0.5 * rng.normal(size=n) - 0.2


def test_students_pairs() -> None:
    """As R's `t.test(DRUG_1, DRUG_2, paired=TRUE)` prints it."""
    found = compare(DRUG_1, DRUG_2)
    assert found.difference == pytest.approx(-1.58)
    assert found.difference / found.standard_error == pytest.approx(-4.0621, abs=5e-5)
    assert found.degrees_of_freedom == 9
    assert found.t_test_p == pytest.approx(0.002833, abs=5e-7)
    np.testing.assert_allclose(found.t_interval, [-2.4598858, -0.7001142], atol=5e-8)
    # Student's own words of the odds: 0.9985, or 666 to 1, that 2 is the better soporific.
    assert 1 - found.probability_above == pytest.approx(0.9985, abs=1e-4)


def test_welchs_example() -> None:
    """As R's `t.test(extra ~ group, data=sleep)` prints it."""
    found = compare(DRUG_1, DRUG_2, paired=False)
    assert found.difference / found.standard_error == pytest.approx(-1.8608, abs=5e-5)
    assert found.degrees_of_freedom == pytest.approx(17.776, abs=5e-4)
    assert found.t_test_p == pytest.approx(0.07939, abs=5e-6)
    np.testing.assert_allclose(found.t_interval, [-3.3654832, 0.2054832], atol=5e-8)


def test_paired_is_scipys() -> None:
    a, b = draws(0)
    found, t = compare(a, b, confidence=0.9), stats.ttest_rel(a, b)
    assert found.t_test_p == pytest.approx(t.pvalue, rel=1e-12)
    np.testing.assert_allclose(found.t_interval, t.confidence_interval(0.9), rtol=1e-12)
    assert found.rank_test_p == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-12)
    assert found.correlation == pytest.approx(stats.pearsonr(a, b).statistic, rel=1e-12)
    assert found.probability_above == pytest.approx(
        1 - stats.ttest_rel(a, b, alternative="greater").pvalue, rel=1e-12
    )


def test_unpaired_is_scipys() -> None:
    a, b = draws(1, 30)
    b = 4 * b[:12] + 1
    found, t = compare(a, b, paired=False), stats.ttest_ind(a, b, equal_var=False)
    assert (found.n_a, found.n_b) == (30, 12)
    assert found.t_test_p == pytest.approx(t.pvalue, rel=1e-12)
    assert found.degrees_of_freedom == pytest.approx(t.df, rel=1e-12)
    np.testing.assert_allclose(found.t_interval, t.confidence_interval(), rtol=1e-12)
    assert found.rank_test_p == pytest.approx(stats.mannwhitneyu(a, b).pvalue, rel=1e-12)
    assert math.isnan(found.correlation)


def test_effect_sizes() -> None:
    a, b = draws(2)
    d = a - b
    assert compare(a, b).effect_size == pytest.approx(d.mean() / d.std(ddof=1), rel=1e-12)
    b = b[:6]
    pooled = math.sqrt((19 * a.var(ddof=1) + 5 * b.var(ddof=1)) / 24)
    found = compare(a, b, paired=False).effect_size * pooled / (a.mean() - b.mean())
    assert found == pytest.approx(0.9684, abs=5e-5)  # Hedges' J of 24, tabulated
    assert found == pytest.approx(1 - 3 / (4 * 24 - 1), abs=2e-4)  # and his approximation


def test_hedges_g_is_unbiased() -> None:
    rng, trials, truth = np.random.default_rng(3), 400, 0.8
    g = [
        compare(*rng.normal([[truth], [0]], size=(2, 4)), paired=False, n_resamples=99).effect_size
        for _ in range(trials)
    ]
    error = np.std(g, ddof=1) / math.sqrt(trials)
    assert abs(np.mean(g) - truth) < 3 * error


def test_superiority_counts_ties_one_half() -> None:
    a, b = [1.0, 2.0, 3.0, 5.0], [1.0, 1.0, 4.0, 2.0]
    assert compare(a, b).probability_of_superiority == (0.5 + 1 + 0 + 1) / 4
    wins = sum((x > y) + (x == y) / 2 for x in a for y in b)
    assert compare(a, b, paired=False).probability_of_superiority == wins / 16


def test_posterior_of_pairs_by_simulation() -> None:
    """Draw variance and mean from the posterior under the prior 1 / sigma^2."""
    a, b = draws(4, 6)
    d, rng, trials = a - b, np.random.default_rng(4), 200_000
    variance = 5 * d.var(ddof=1) / rng.chisquare(5, trials)
    share = (d.mean() + rng.normal(size=trials) * np.sqrt(variance / 6) > 0).mean()
    found = compare(a, b).probability_above
    assert 0.6 < found < 0.99
    assert abs(share - found) < 4 * math.sqrt(found * (1 - found) / trials)


def test_posterior_of_unpaired_arms_is_near_behrens_and_fishers() -> None:
    a, b = draws(5, 12)
    b = 2 * b[:8]
    rng, trials = np.random.default_rng(5), 200_000
    mean_a, mean_b = (x.mean() + rng.standard_t(len(x) - 1, trials) * stats.sem(x) for x in (a, b))
    found = compare(a, b, paired=False).probability_above
    assert abs((mean_a > mean_b).mean() - found) < 0.01


def test_bootstrap_of_pairs_keeps_them() -> None:
    """The arms vary a hundred times as much as their differences."""
    rng = np.random.default_rng(6)
    a = 10 * rng.normal(size=100)
    b = a + 0.1 * rng.normal(size=100)
    pairs, alone = compare(a, b), compare(a + 30, b, paired=False)
    np.testing.assert_allclose(
        pairs.bootstrap_interval, pairs.t_interval, atol=0.3 * pairs.standard_error
    )
    np.testing.assert_allclose(
        alone.bootstrap_interval, alone.t_interval, atol=0.3 * alone.standard_error
    )


@both
def test_size_of_the_tests(paired: bool) -> None:
    """Arms without a difference; unpaired ones with unequal spread and number."""
    rng, trials = np.random.default_rng(7), 400
    found = [
        compare(rng.normal(size=8), scale * rng.normal(size=m), paired=paired, n_resamples=99)
        for scale, m in [(1, 8) if paired else (3, 12)] * trials
    ]
    error = math.sqrt(0.05 * 0.95 / trials)
    assert abs(np.mean([f.t_test_p < 0.05 for f in found]) - 0.05) < 4 * error
    assert abs(np.mean([f.t_interval.low > 0 or f.t_interval.high < 0 for f in found]) - 0.05) < (
        4 * error
    )
    uniform = stats.kstest([f.probability_above for f in found], "uniform")
    assert uniform.pvalue > 1e-4


def test_diverged_pairs_are_left_out() -> None:
    a = [1.0, math.nan, 3.0, 4.0, 5.5, 2.0]
    b = [0.5, 2.0, math.inf, 3.0, 5.0, math.nan]
    found = compare(a, b)
    assert (found.n_a, found.n_b, found.left_out) == (3, 3, 3)
    assert (found.diverged_a, found.diverged_b) == (1, 2)
    rest = compare([1.0, 4.0, 5.5], [0.5, 3.0, 5.0])
    assert found._replace(diverged_a=0, diverged_b=0, left_out=0) == rest
    alone = compare(a, b, paired=False)
    assert (alone.n_a, alone.n_b, alone.left_out) == (5, 4, 3)
    assert found.verdict("new", "old").endswith(
        " Left out beside these 3 pairs: 3, since runs diverged (1 of new, 2 of old)."
    )
    assert "Left out beside these 9 runs: 3" in alone.verdict()
    assert "Left out" not in rest.verdict()


def same(found: Comparison, expected: Comparison, *leave: str) -> None:
    for name, value in expected._asdict().items():
        if name not in leave and value is not None:
            np.testing.assert_allclose(
                getattr(found, name), value, rtol=1e-9, atol=1e-9, err_msg=name
            )


@both
@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS)
def test_swapping_negates(paired: bool, pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs).T / 64
    one, other = (compare(*arms, paired=paired, n_resamples=99) for arms in ((a, b), (b, a)))
    same(
        one,
        other._replace(
            mean_a=other.mean_b,
            mean_b=other.mean_a,
            difference=-other.difference,
            t_interval=tuple(-end for end in reversed(other.t_interval)),
            bootstrap_interval=tuple(-end for end in reversed(other.bootstrap_interval)),
            effect_size=-other.effect_size,
            probability_of_superiority=1 - other.probability_of_superiority,
            probability_above=1 - other.probability_above,
        ),
        *([] if paired else ["bootstrap_interval"]),  # where the arms draw one after the other
    )


@both
@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS, shift=st.integers(-64, 64), power=st.integers(-3, 3))
def test_shift_and_scale(
    paired: bool, pairs: list[tuple[int, int]], shift: int, power: int
) -> None:
    a, b = np.array(pairs).T / 64
    factor = 2.0**power
    one = compare(a, b, paired=paired, n_resamples=99)
    moved = compare(a * factor + shift, b * factor + shift, paired=paired, n_resamples=99)
    scaled = {
        name: np.array(getattr(one, name)) * factor
        for name in ("difference", "sd_difference", "standard_error")
    }
    ends = {
        name: tuple(end * factor for end in getattr(one, name))
        for name in ("t_interval", "bootstrap_interval")
    }
    means = {"mean_a": one.mean_a * factor + shift, "mean_b": one.mean_b * factor + shift}
    same(moved, one._replace(**scaled, **ends, **means))


@both
def test_equal_arms(paired: bool) -> None:
    found = compare([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], paired=paired)
    assert (found.t_test_p, found.rank_test_p, found.effect_size) == (1, 1, 0)
    assert found.probability_above == found.probability_of_superiority == 0.5
    assert found.verdict().startswith("Not settled: A is equal to B by 0 on average")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_differences(dtype: torch.dtype) -> None:
    """What rounding adds to them is no spread."""
    a = torch.tensor([0.8710, 0.8823, 0.8699], dtype=dtype)
    found = compare(a, torch.tensor([0.8700, 0.8813, 0.8689], dtype=dtype))
    assert found.sd_difference == found.t_test_p == 0
    assert found.t_interval == found.bootstrap_interval == (found.difference,) * 2
    assert found.rank_test_p == 0.25
    assert "3 pairs without any spread" in found.verdict()


def test_verdict() -> None:
    a, b = np.array(DRUG_1), np.array(DRUG_2)
    assert compare(b, a).verdict("2", "1") == (
        "2 is above 1 by 1.58 on average (2 - 1: 95 % interval 0.7 to 2.46, 10 pairs, "
        f"t test p = 0.0028, Wilcoxon p = {compare(b, a).rank_test_p:.2g})."
    )
    assert compare(a, b).verdict().startswith("A is below B by 1.58 on average")
    alone = compare(b, a, paired=False).verdict()
    assert alone.startswith("Not settled: A is above B by 1.58") and "10 and 10 runs" in alone
    assert "90 % interval" in compare(b, a, confidence=0.9).verdict()
    assert compare(b, a, paired=False, confidence=0.9).verdict().startswith("A is above B")
    assert "t test p < 1e-16" in compare(np.arange(50.0) + 1e3, np.sin(np.arange(50.0))).verdict()


@both
def test_equivalence_is_two_one_sided_tests(paired: bool) -> None:
    a, b = draws(8)
    margin = 0.4
    found = equivalence(a, b, margin, paired=paired)
    arguments = {} if paired else {"equal_var": False}
    test = stats.ttest_rel if paired else stats.ttest_ind
    expected = max(
        test(a + margin, b, alternative="greater", **arguments).pvalue,
        test(a - margin, b, alternative="less", **arguments).pvalue,
    )
    assert found.p_value == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(
        found.interval, compare(a, b, paired=paired, confidence=0.9).t_interval, rtol=1e-12
    )


def test_equivalence_rejects_where_the_interval_is_within_the_margin() -> None:
    a, b = draws(9)
    reach = max(abs(end) for end in equivalence(a, b, 1.0, 0.1).interval)
    assert equivalence(a, b, reach * 1.001, 0.1).p_value < 0.1
    assert equivalence(a, b, reach * 0.999, 0.1).p_value > 0.1


def test_size_of_equivalence() -> None:
    """At a true difference that is the margin it errs in 5 % of the cases."""
    rng, trials = np.random.default_rng(10), 1500
    p = [
        equivalence(1 + 0.3 * rng.normal(size=10), np.zeros(10), 1.0).p_value for _ in range(trials)
    ]
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / trials)


def test_equivalence_without_spread() -> None:
    a, b = np.array([1.0, 2.0]), np.array([1.5, 2.5])
    assert equivalence(a, b, 0.6).p_value == 0
    assert equivalence(a, b, 0.4).p_value == 1


@pytest.mark.parametrize(
    ("a", "b", "paired", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], True, "`a` and `b` must have equal lengths.*got 2 and 3"),
        ([1.0, math.nan, 2.0], [math.nan, 1.0, 2.0], True, "2 pairs of finite values, got 1 of 3"),
        ([math.nan] * 2, [1.0, 2.0], True, "2 pairs of finite values, got 0 of 2"),
        ([1.0, 2.0], [math.nan] * 2, False, "`b` must have at least 2 finite values, got 0 of 2"),
        ([1.0], [1.0, 2.0], False, "`a` must have at least 2 finite values, got 1 of 1"),
        ([1.0, 2.0], [[1.0, 2.0]], True, r"`b` must have one dimension.*got shape \(1, 2\)"),
    ],
)
def test_sample_errors(a: list[float], b: list[float], paired: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(a, b, paired=paired)
    with pytest.raises(ValueError, match=message):
        equivalence(a, b, 1.0, paired=paired)


def test_argument_errors() -> None:
    a = [1.0, 2.0]
    with pytest.raises(ValueError, match=r"`confidence` must be in \(0, 1\), got 1.5"):
        compare(a, a, confidence=1.5)
    with pytest.raises(ValueError, match="`n_resamples` must be at least 99, got 20"):
        compare(a, [0.0, 3.0], n_resamples=20)
    for margin in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"`margin` must be positive, got {margin}"):
            equivalence(a, a, margin)
    with pytest.raises(ValueError, match=r"`alpha` must be below 0.5, got 0.5"):
        equivalence(a, a, 1.0, 0.5)
