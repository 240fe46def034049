"""Range checks of hyperparameters, made when an optimizer is built."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["check"]


def check(**values: tuple[Any, float, float]) -> None:
    """Raise unless every number lies in its interval `[low, high)`, or `[low, inf]`.

    Tensors and schedules pass: their values are not known yet.

    Args:
        **values: name = (value, low, high).

    Raises:
        ValueError: the message names the argument, the interval and the value.
    """
    for name, (value, low, high) in values.items():
        if not isinstance(value, int | float):
            continue
        bound = f"[{low:g}, {high:g})" if math.isfinite(high) else f"at least {low:g}"
        if not (low <= value < high or value == high == math.inf):
            rule = f"be in {bound}" if math.isfinite(high) else f"be {bound}"
            raise ValueError(f"`{name}` must {rule}, got {value}")
