"""The distribution of one number over many runs."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fdnn.study.statistics.interval import Interval, bootstrap_interval, t_interval
from fdnn.study.statistics.sample import Values, check_share, finite, standard_deviation

__all__ = ["Summary", "summarize"]


class Summary(NamedTuple):
    """What `summarize` finds.

    Attributes:
        n: how many runs have a finite value; the rest is about these.
        diverged: how many have not, and are left out.
        mean: the mean.
        sd: the standard deviation between runs, with n - 1 below.
        standard_error: of the mean: sd / sqrt(n).
        min: the worst or best run.
        q05: the 5 % quantile.
        q25: the lower quartile.
        median: the median.
        q75: the upper quartile.
        q95: the 95 % quantile.
        max: the best or worst run.
        confidence: of both intervals.
        t_interval: of the mean, by the t distribution.
        bootstrap_interval: of the mean, by the bootstrap.
    """

    n: int
    diverged: int
    mean: float
    sd: float
    standard_error: float
    min: float
    q05: float
    q25: float
    median: float
    q75: float
    q95: float
    max: float
    confidence: float
    t_interval: Interval
    bootstrap_interval: Interval


def summarize(
    values: Values, confidence: float = 0.95, *, n_resamples: int = 9999, seed: int = 0
) -> Summary:
    r"""Describe the distribution of one number over runs, and how well its mean is known.

    With the mean $\bar x$ and the standard deviation $s$ of the $n$ finite `values`, the t interval
    is $\bar x \pm t_{n-1} s / \sqrt n$ with the quantile $t_{n-1}$ at `confidence`. The other one
    is the bias-corrected and accelerated bootstrap (BCa): it need not be symmetric, but below some
    20 runs it is too short. Quantiles are interpolated linearly.

    Args:
        values: one number per run, shape `(n,)`. Those that are nan or infinite diverged: they are
            counted and left out.
        confidence: how often such intervals hold the true mean.
        n_resamples: how often the bootstrap draws runs anew, 99 or more.
        seed: of these draws.

    Returns:
        Counts, moments, quantiles and intervals. Of equal values the sd and the length of the
        intervals are 0.

    Raises:
        ValueError: fewer than 2 values are finite, there is not one dimension, `confidence` is
            not between 0 and 1, or `n_resamples` is too small.

    Example:
        >>> runs = summarize([0.85, 0.87, 0.91, 0.86, float("nan")])
        >>> runs.n, runs.diverged, round(runs.mean, 4), round(runs.sd, 4)
        (4, 1, 0.8725, 0.0263)
        >>> [round(end, 3) for end in runs.t_interval]
        [0.831, 0.914]

    References:
        B. Efron (1987), Better Bootstrap Confidence Intervals. By `scipy.stats.bootstrap`.
    """
    check_share("confidence", confidence)
    sample, diverged = finite("values", values)
    n, mean, sd = len(sample), float(sample.mean()), standard_deviation(sample)
    error = sd / math.sqrt(n)
    low, q05, q25, median, q75, q95, high = np.quantile(sample, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    bootstrap = Interval(mean, mean)
    if sd > 0:
        bootstrap = bootstrap_interval(
            sample, confidence=confidence, n_resamples=n_resamples, seed=seed
        )
    return Summary(
        n=n,
        diverged=diverged,
        mean=mean,
        sd=sd,
        standard_error=error,
        min=float(low),
        q05=float(q05),
        q25=float(q25),
        median=float(median),
        q75=float(q75),
        q95=float(q95),
        max=float(high),
        confidence=confidence,
        t_interval=t_interval(mean, error, n - 1, confidence),
        bootstrap_interval=bootstrap,
    )
