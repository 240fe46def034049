"""Wilson's interval against published figures; where a number stands in a distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fdnn.study import proportion, where


def share_of(successes: int, n: int) -> np.ndarray:
    return np.arange(n) < successes


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # R. Newcombe (1998), Two-sided confidence intervals for the single proportion, table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_newcombes_table(successes: int, n: int, low: float, high: float) -> None:
    found = proportion(share_of(successes, n))
    assert (found.n, found.successes, found.share) == (n, successes, successes / n)
    np.testing.assert_allclose(found.interval, [low, high], atol=5.1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.floats(0, 1), st.floats(0.5, 0.999))
def test_closed_form_and_symmetry(n: int, part: float, confidence: float) -> None:
    runs = share_of(round(part * n), n)
    found = proportion(runs, confidence)
    p, z = found.share, stats.norm.isf((1 - confidence) / 2)
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    np.testing.assert_allclose(found.interval, [center - reach, center + reach], atol=1e-9)
    others = proportion(~runs, confidence).interval
    np.testing.assert_allclose(found.interval, [1 - others.high, 1 - others.low], atol=1e-9)


def test_coverage() -> None:
    """Exactly, over the binomial law of 40 runs: near 95 % for every share on average."""
    n, shares = 40, np.linspace(0.05, 0.95, 91)
    intervals = np.array([proportion(share_of(k, n)).interval for k in range(n + 1)])
    covers = (intervals[:, :1] <= shares) & (shares <= intervals[:, 1:])
    coverage = (stats.binom.pmf(np.arange(n + 1)[:, None], n, shares) * covers).sum(0)
    assert coverage.mean() == pytest.approx(0.95, abs=0.01)
    assert coverage.min() > 0.88


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_takes_booleans_of_any_kind(kind: object) -> None:
    assert proportion(kind([True, False, False])) == proportion(share_of(1, 3))  # type: ignore[operator]


def test_where() -> None:
    values = [1.0, 2.0, 2.0, 3.0, math.nan, 5.0]
    found = where(values, 2.0)
    assert (found.n, found.diverged, found.below, found.equal) == (5, 1, 1, 2)
    assert found.share == pytest.approx(stats.percentileofscore([1, 2, 2, 3, 5], 2.0, "mean") / 100)
    assert found.interval.low == proportion(share_of(1, 5)).interval.low
    assert found.interval.high == proportion(share_of(3, 5)).interval.high
    assert where(values, 9.0).share == 1
    assert where(values, -math.inf).share == 0


def test_where_covers_the_true_position() -> None:
    rng, trials, n = np.random.default_rng(0), 500, 60
    truth = stats.norm.cdf(-1.5)
    found = [where(x, -1.5).interval for x in rng.normal(size=(trials, n))]
    share = np.mean([low <= truth <= high for low, high in found])
    k = np.arange(n + 1)
    ends = np.array([proportion(share_of(i, n)).interval for i in k])
    covers = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    expected = stats.binom.pmf(k, n, truth)[covers].sum()
    assert 0.92 < expected < 0.98
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / trials)


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=30), st.integers(-20, 20))
@settings(max_examples=50, deadline=None)
def test_where_of_negated_runs(values: list[int], threshold: int) -> None:
    one, other = where(values, threshold), where([-value for value in values], -threshold)
    assert one.share == pytest.approx(1 - other.share)
    np.testing.assert_allclose(
        one.interval, [1 - other.interval.high, 1 - other.interval.low], atol=1e-9
    )
    assert one.interval.low <= one.share <= one.interval.high


def test_errors() -> None:
    for values, found in (
        ([0.2, 0.4], "float64"),
        ([0, 1], "int64"),
        (torch.tensor([0.5]), "torch.float32"),
    ):
        with pytest.raises(ValueError, match=f"`values` must be booleans.*got {found}"):
            proportion(values)
    with pytest.raises(ValueError, match="`values` must have at least 1 value, got 0"):
        proportion([])
    with pytest.raises(ValueError, match=r"`values` must have one dimension.*got shape \(1, 1\)"):
        proportion(np.array([[True]]))
    with pytest.raises(ValueError, match="`threshold` must be a number, got nan"):
        where([1.0, 2.0], math.nan)
    with pytest.raises(ValueError, match="`values` must have at least 2 finite values, got 1 of 2"):
        where([1.0, math.nan], 0.5)
    for call in (lambda c: proportion([True], c), lambda c: where([1.0, 2.0], 1.5, c)):
        with pytest.raises(ValueError, match=r"`confidence` must be in \(0, 1\), got 2"):
            call(2)
