"""Intervals of a mean: by the t distribution, and by the bootstrap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fdnn.study.statistics.sample import Floats
from fdnn.study.statistics.scipy_stats import scipy_stats

__all__ = ["Interval", "bootstrap_interval", "t_interval"]

NUMBERS_AT_ONCE = 1_000_000  # of a bootstrap: 8 MB


class Interval(NamedTuple):
    """Two ends.

    Attributes:
        low: the lower one.
        high: the upper one.
    """

    low: float
    high: float


def t_interval(
    mean: float, standard_error: float, degrees_of_freedom: float, confidence: float
) -> Interval:
    """Mean, plus or minus the t quantile times the standard error."""
    reach = standard_error * float(scipy_stats().t.isf((1 - confidence) / 2, degrees_of_freedom))
    return Interval(mean - reach, mean + reach)


def bootstrap_interval(
    *samples: Floats, confidence: float, n_resamples: int, seed: int
) -> Interval:
    """Resample the mean of one sample, or the difference of the means of two (BCa)."""
    if n_resamples < 99:
        raise ValueError(f"`n_resamples` must be at least 99, got {n_resamples}")

    def mean(first: Floats, *rest: Floats, axis: int) -> Floats:
        means: Floats = first.mean(axis=axis)
        return means - rest[0].mean(axis=axis) if rest else means

    # BCa counts the resamples below what was observed, and one half of those equal to it: the same
    # runs in another order are equal, whatever the order of summation does to the last place.
    observed = mean(*samples, axis=-1)
    close = 1e-9 * sum(np.ptp(sample) for sample in samples)

    def statistic(*resamples: Floats, axis: int) -> Floats:
        means = mean(*resamples, axis=axis)
        return np.where(np.abs(means - observed) <= close, observed, means)

    longest = max(len(sample) for sample in samples)
    found = scipy_stats().bootstrap(
        samples,
        statistic,
        n_resamples=n_resamples,
        batch=max(1, NUMBERS_AT_ONCE // longest),
        vectorized=True,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    return Interval(*(float(end) for end in found.confidence_interval))
