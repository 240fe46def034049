"""The difference between the means of two samples: what tests and intervals are made of."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fdnn.study.statistics.sample import (
    Floats,
    Values,
    as_sample,
    drop_diverged,
    resolution,
    standard_deviation,
)

__all__ = ["Difference", "difference", "finite_samples", "ratio"]


class Difference(NamedTuple):
    """A difference of means and its error.

    Attributes:
        mean: mean of a minus mean of b.
        sd: the standard deviation of a - b, for a run of a and a run of b.
        standard_error: of the mean.
        degrees_of_freedom: n - 1 for pairs, Welch's for others.
    """

    mean: float
    sd: float
    standard_error: float
    degrees_of_freedom: float

    @property
    def t(self) -> float:
        """The difference in standard errors; infinite if there is no error."""
        return ratio(self.mean, self.standard_error)


def ratio(mean: float, spread: float) -> float:
    """Divide, where 0 / 0 is 0, and another number over 0 is infinite."""
    if spread == 0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / spread


def finite_samples(
    names: tuple[str, str], a: Values, b: Values, paired: bool
) -> tuple[Floats, Floats, tuple[int, int]]:
    """The values to compare, and how many runs of each diverged."""
    first, second = as_sample(names[0], a), as_sample(names[1], b)
    fine = np.isfinite(first), np.isfinite(second)
    diverged = int((~fine[0]).sum()), int((~fine[1]).sum())
    if not paired:
        return drop_diverged(names[0], first)[0], drop_diverged(names[1], second)[0], diverged
    if len(first) != len(second):
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must have equal lengths to be pairs, "
            f"got {len(first)} and {len(second)}"
        )
    kept = fine[0] & fine[1]
    if kept.sum() < 2:
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must have at least 2 pairs of finite values, "
            f"got {kept.sum()} of {len(first)}"
        )
    return first[kept], second[kept], diverged


def difference(a: Floats, b: Floats, paired: bool) -> Difference:
    """Take the difference of finite samples."""
    mean = float((a - b).mean() if paired else a.mean() - b.mean())
    if paired:
        sd = standard_deviation(a - b, resolution(a, b))
        return Difference(mean, sd, sd / math.sqrt(len(a)), len(a) - 1)
    parts = [(standard_deviation(sample), len(sample)) for sample in (a, b)]
    error = math.hypot(*(sd / math.sqrt(n) for sd, n in parts))
    # Welch and Satterthwaite, in parts of the whole, which cannot overflow.
    shares = [(ratio(sd / math.sqrt(n), error), n) for sd, n in parts]
    freedom = 1 / sum(share**4 / (n - 1) for share, n in shares) if error else len(a) + len(b) - 2
    return Difference(mean, math.hypot(*(sd for sd, _ in parts)), error, freedom)
