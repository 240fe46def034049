"""Checks of hyperparameters, made when an optimizer is built, and of what `update` is given."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from torch import Tensor

__all__ = ["check", "extra_argument", "is_zero"]


def check(**values: tuple[Any, float, float]) -> None:
    """Raise unless every number lies in its interval `[low, high)`, or `[low, inf]`.

    0-d tensors and schedules pass: their values are not known yet.

    Args:
        **values: name = (value, low, high).

    Raises:
        TypeError: a value is neither a number, nor a 0-d tensor, nor a schedule.
        ValueError: a number is outside its interval; the message names the argument, the
            interval and the value.
    """
    for name, (value, low, high) in values.items():
        if callable(value) or (isinstance(value, Tensor) and value.ndim == 0):
            continue
        if not isinstance(value, Real):
            raise TypeError(f"`{name}` must be a number, a 0-d tensor or a schedule, got {value!r}")
        number = float(value)
        if not (low <= number < high or number == high == math.inf):
            rule = f"in [{low:g}, {high:g})" if math.isfinite(high) else f"at least {low:g}"
            raise ValueError(f"`{name}` must be {rule}, got {value}")


def is_zero(value: Any) -> bool:
    """Tell whether `value` is the number 0 (not a tensor, which may change)."""
    return isinstance(value, Real) and value == 0


def extra_argument(extra: dict[str, Any], name: str, reader: str) -> Any:
    """Return an extra argument of `update`, or say how it is passed.

    Args:
        extra: what `update` was given besides gradients, state and parameters.
        name: `value` or `value_and_grad`.
        reader: the optimizer that needs it.

    Raises:
        ValueError: it was not given.
    """
    if extra.get(name) is None:
        raise ValueError(
            f"`{name}` must be given to `update`, since `{reader}` needs {_EXTRA[name]}; "
            "`train.make_step` passes it, and by hand it is "
            f"`optim.step(tx, params, grads, state, {name}=...)`"
        )
    return extra[name]


_EXTRA = {
    "value": "the loss at `params`, a 0-d tensor",
    "value_and_grad": "a function `params -> (value, grads)`, the loss on the same batch",
}
