"""Shares of runs: of those that diverge, and of those below a number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from fdnn.study.statistics.interval import Interval
from fdnn.study.statistics.sample import Values, as_sample, check_share, finite
from fdnn.study.statistics.scipy_stats import scipy_stats

__all__ = ["Position", "Proportion", "proportion", "where"]


class Proportion(NamedTuple):
    """What `proportion` finds.

    Attributes:
        n: how many runs there are.
        successes: of how many the value is true.
        share: successes / n.
        confidence: of the interval.
        interval: of the true share, Wilson's.
    """

    n: int
    successes: int
    share: float
    confidence: float
    interval: Interval


class Position(NamedTuple):
    """What `where` finds.

    Attributes:
        n: how many runs have a finite value; the rest is about these.
        diverged: how many have not, and are left out.
        below: how many are below the threshold.
        equal: how many are equal to it.
        share: the share of runs below, where an equal one counts one half: 0.05 says that the
            threshold is the 5th percentile.
        confidence: of the interval.
        interval: of the true share below, Wilson's.
    """

    n: int
    diverged: int
    below: int
    equal: int
    share: float
    confidence: float
    interval: Interval


def proportion(values: Values, confidence: float = 0.95) -> Proportion:
    r"""Estimate a share of runs, and how well it is known.

    With the share $p$ of $n$ runs, and the normal quantile $z$ at `confidence`, Wilson's interval
    is
    $$\frac{1}{1 + z^2 / n} \Bigl( p + \frac{z^2}{2 n} \pm
    z \sqrt{\frac{p (1 - p)}{n} + \frac{z^2}{4 n^2}} \Bigr).$$
    It stays within 0 and 1, and has a length where none or all of the runs are successes.

    Args:
        values: booleans, one per run, shape `(n,)`. A comparison with nan is
            false, so look at runs that diverged by themselves: `proportion(~np.isfinite(loss))`.
        confidence: how often such intervals hold the true share.

    Returns:
        The share, with its interval.

    Raises:
        ValueError: `values` are not booleans, there are none, there is not one dimension, or
            `confidence` is not between 0 and 1.

    Example:
        >>> accuracy = np.array([0.87, 0.10, 0.86, 0.88, 0.10, 0.87, 0.86, 0.88, 0.87, 0.85])
        >>> found = proportion(accuracy < 0.5)
        >>> found.share, [round(end, 3) for end in found.interval]
        (0.2, [0.057, 0.51])

    References:
        E. Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference.
    """
    check_share("confidence", confidence)
    dtype = str(values.dtype) if isinstance(values, Tensor) else str(np.asarray(values).dtype)
    sample = as_sample("values", values)
    if not len(sample):
        raise ValueError("`values` must have at least 1 value, got 0")
    if dtype not in ("bool", "torch.bool"):
        raise ValueError(f"`values` must be booleans, as `x < 0.5` gives, got {dtype}")
    n, successes = len(sample), int(sample.sum())
    interval = _wilson(successes, n, confidence)
    return Proportion(n, successes, successes / n, confidence, interval)


def where(values: Values, threshold: float, confidence: float = 0.95) -> Position:
    """Tell where a number, such as a published one, is in the distribution over runs.

    Args:
        values: one number per run, shape `(n,)`. Those that are nan or infinite diverged: they are
            counted and left out.
        threshold: the number to look for.
        confidence: how often such intervals hold the true share of runs below.

    Returns:
        The share of runs below it, with an interval: from the low end for runs below to the high
        end for runs below or equal.

    Raises:
        ValueError: fewer than 2 values are finite, there is not one dimension, `threshold` is nan,
            or `confidence` is not between 0 and 1.

    Example:
        >>> accuracy = [0.69, 0.86, 0.88, 0.85, 0.91, 0.87, 0.83, 0.80, 0.90, 0.89]
        >>> found = where(accuracy, 0.716)
        >>> found.share, [round(end, 3) for end in found.interval]
        (0.1, [0.018, 0.404])
    """
    check_share("confidence", confidence)
    if np.isnan(threshold):
        raise ValueError(f"`threshold` must be a number, got {threshold}")
    sample, diverged = finite("values", values)
    n, below = len(sample), int((sample < threshold).sum())
    equal = int((sample == threshold).sum())
    interval = Interval(
        _wilson(below, n, confidence).low, _wilson(below + equal, n, confidence).high
    )
    return Position(n, diverged, below, equal, (below + equal / 2) / n, confidence, interval)


def _wilson(successes: int, n: int, confidence: float) -> Interval:
    found = scipy_stats().binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))
