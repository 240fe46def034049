"""Summaries against NumPy, SciPy and closed forms; coverage of their intervals by simulation."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fdnn.study import summarize
from fdnn.study.statistics.sample import without_rounding

SIXTY_FOURTHS = st.lists(st.integers(-640, 640), min_size=2, max_size=12)


def test_moments_and_quantiles() -> None:
    x = np.random.default_rng(0).gamma(2.0, size=101)
    found = summarize(x)
    assert (found.n, found.diverged) == (101, 0)
    assert found.mean == pytest.approx(x.mean(), rel=1e-15)
    assert found.sd == pytest.approx(math.sqrt(((x - x.mean()) ** 2).sum() / 100), rel=1e-12)
    assert found.standard_error == pytest.approx(stats.sem(x), rel=1e-12)
    ordered = np.sort(x)  # of 101 numbers the quantiles are numbers themselves
    quantiles = (found.min, found.q05, found.q25, found.median, found.q75, found.q95, found.max)
    np.testing.assert_allclose(quantiles, ordered[[0, 5, 25, 50, 75, 95, 100]], rtol=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_t_interval_is_scipys(confidence: float) -> None:
    x = np.random.default_rng(1).normal(size=7)
    expected = stats.ttest_1samp(x, 0).confidence_interval(confidence)
    np.testing.assert_allclose(summarize(x, confidence).t_interval, expected, rtol=1e-12)


def test_bootstrap_is_seeded() -> None:
    x = np.random.default_rng(2).gamma(1.0, size=30)
    first, again, other = (summarize(x, seed=seed).bootstrap_interval for seed in (0, 0, 1))
    assert first == again != other
    np.testing.assert_allclose(first, other, atol=0.05 * x.std())


def test_bootstrap_agrees_with_t_for_many_normal_runs() -> None:
    """Both are mean +- 1.96 standard errors; the quantiles of 9999 draws err by 3 % of them."""
    found = summarize(np.random.default_rng(3).normal(size=400))
    np.testing.assert_allclose(
        found.bootstrap_interval, found.t_interval, atol=0.15 * found.standard_error
    )


def test_bootstrap_follows_skewness() -> None:
    found = summarize(np.random.default_rng(4).lognormal(sigma=1.2, size=60))
    low, high = found.bootstrap_interval
    assert high - found.mean > 1.2 * (found.mean - low)


@pytest.mark.parametrize(
    ("draw", "gate"),
    [("normal", 0.95), ("exponential", 0.9)],  # of skewed runs the intervals are a bit short
)
def test_coverage(draw: str, gate: float) -> None:
    rng, trials, n = np.random.default_rng(5), 300, 25
    truth = 0.0 if draw == "normal" else 1.0
    found = [summarize(getattr(rng, draw)(size=n), n_resamples=399) for _ in range(trials)]
    for intervals in ([f.t_interval for f in found], [f.bootstrap_interval for f in found]):
        share = np.mean([low <= truth <= high for low, high in intervals])
        error = math.sqrt(gate * (1 - gate) / trials)
        assert gate - 4 * error < share < 0.95 + 3 * error


def test_coverage_at_four_runs() -> None:
    """Here a normal interval, 1.96 standard errors, would cover 85 %."""
    rng, trials = np.random.default_rng(6), 1000
    found = [summarize(x, n_resamples=99).t_interval for x in rng.normal(size=(trials, 4))]
    share = np.mean([low <= 0 <= high for low, high in found])
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_diverged_runs_are_counted_and_left_out() -> None:
    found = summarize([1.0, math.nan, 2.0, math.inf, 4.0, -math.inf])
    assert found.diverged == 3
    assert found._replace(diverged=0) == summarize([1.0, 2.0, 4.0])


def test_equal_runs_have_no_spread() -> None:
    found = summarize([0.1] * 7)
    assert found.sd == 0
    assert found.t_interval == found.bootstrap_interval == (found.mean, found.mean)
    assert summarize([0.3, 0.1 + 0.2]).sd == 0  # rounding, not chance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_takes_tensors(dtype: torch.dtype) -> None:
    x = torch.tensor([1, 2, 4, 8], dtype=dtype)
    if dtype.is_floating_point:
        x.requires_grad_()
    assert summarize(x) == summarize([1.0, 2.0, 4.0, 8.0]) == summarize(np.array([1, 2, 4, 8]))


@settings(max_examples=50, deadline=None)
@given(SIXTY_FOURTHS, st.integers(-64, 64), st.integers(-3, 3))
def test_moves_and_scales_with_the_runs(values: list[int], shift: int, power: int) -> None:
    x = np.array(values) / 64
    found = np.array([*_places(x * 2.0**power + shift)])
    np.testing.assert_allclose(found, _places(x) * 2.0**power + shift, rtol=1e-9, atol=1e-9)


def _places(x: np.ndarray) -> np.ndarray:
    found = summarize(x, n_resamples=99)
    ends = [*found.t_interval, *found.bootstrap_interval]
    return np.array([found.mean, found.min, found.q05, found.median, found.q95, found.max, *ends])


@given(SIXTY_FOURTHS)
@settings(max_examples=50, deadline=None)
def test_intervals_hold_the_mean(values: list[int]) -> None:
    found = summarize(values, n_resamples=99)
    assert found.t_interval.low <= found.mean <= found.t_interval.high
    assert found.min <= found.bootstrap_interval.low <= found.bootstrap_interval.high <= found.max


def test_rounding_of_float32_is_not_a_difference() -> None:
    a, b = np.array([8710, 8823, 8699, 3]), np.array([8700, 8813, 8689, -7])
    for dtype in (np.float32, np.float64):
        first, second = ((x / 1e4).astype(dtype).astype(float) for x in (a, b))
        assert len({*(first - second)}) > 1
        assert without_rounding(first, second).tolist() == [0.001] * 4


@pytest.mark.parametrize("size", [1e-320, 1e-30, 1.0, 1e30, 1e300])
def test_differences_of_any_size_stay(size: float) -> None:
    a, b = np.array([3.0, 1.0]) * size, np.array([1.0, 2.0]) * size
    np.testing.assert_allclose(without_rounding(a, b), a - b, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], r"`values` must have at least 2 finite values, got 1 of 1"),
        ([math.nan] * 3, r"`values` must have at least 2 finite values, got 0 of 3"),
        ([[1.0, 2.0]], r"`values` must have one dimension.*got shape \(1, 2\)"),
        (torch.tensor(1.0), r"`values` must have one dimension.*got shape \(\)"),
    ],
)
def test_values_errors(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarize(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_confidence_errors(confidence: float) -> None:
    with pytest.raises(ValueError, match=rf"`confidence` must be in \(0, 1\), got {confidence}"):
        summarize([1.0, 2.0], confidence)


def test_scipy_is_needed_only_when_used() -> None:
    script = (
        "import sys\n"
        "import fdnn, fdnn.study\n"
        "assert not {'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.modules['scipy'] = None\n"
        "try: fdnn.study.summarize([1.0, 2.0])\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'fdnn-torch[study]'" in done.stdout, done.stderr
