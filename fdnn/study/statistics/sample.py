"""A sample: one number of each run, as float64, and which of the runs diverged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = [
    "Floats",
    "Values",
    "as_sample",
    "check_share",
    "drop_diverged",
    "finite",
    "resolution",
    "standard_deviation",
    "without_rounding",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Values: TypeAlias = Sequence[float] | npt.NDArray[Any] | Tensor


def as_sample(name: str, values: Values) -> Floats:
    """Take a tensor, an array or a list as a float64 array of one dimension."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().to(torch.float64).numpy()
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1:
        raise ValueError(
            f"`{name}` must have one dimension, one number per run, got shape {sample.shape}"
        )
    return sample


def finite(name: str, values: Values) -> tuple[Floats, int]:
    """Give the finite values, of which there must be 2, and how many others there are."""
    return drop_diverged(name, as_sample(name, values))


def drop_diverged(name: str, sample: Floats) -> tuple[Floats, int]:
    """The same of a sample."""
    kept = sample[np.isfinite(sample)]
    if len(kept) < 2:
        raise ValueError(
            f"`{name}` must have at least 2 finite values, got {len(kept)} of {len(sample)}"
        )
    return kept, len(sample) - len(kept)


def check_share(name: str, value: float) -> None:
    """See that a confidence, a level or a power is one."""
    if not 0 < value < 1:
        raise ValueError(f"`{name}` must be in (0, 1), got {value}")


def resolution(*samples: Floats) -> float:
    """How far apart differences of these numbers may be by rounding alone.

    Numbers that all are float32's count as rounded to float32.
    """
    numbers = np.concatenate(samples)
    with np.errstate(over="ignore", under="ignore"):
        single = numbers.astype(np.float32)
        largest = np.abs(single if (single == numbers).all() else numbers).max()
    return 4 * float(np.spacing(largest))


def without_rounding(a: Floats, b: Floats) -> Floats:
    """Round `a - b`, so that differences which only rounding tells apart are equal.

    The grid is decimal, as the measures of runs are: accuracies come in ten-thousandths.
    """
    decimals = -math.ceil(math.log10(resolution(a, b)))
    return np.round(a - b, decimals) if decimals < 300 else a - b


def standard_deviation(sample: Floats, step: float | None = None) -> float:
    """Estimate that of the population; 0 where the values spread by `step` at most.

    The default of `step` is what rounding does to float64 numbers of this size.
    """
    step = 8 * float(np.spacing(np.abs(sample).max())) if step is None else step
    return 0.0 if np.ptp(sample) <= step else float(sample.std(ddof=1))
