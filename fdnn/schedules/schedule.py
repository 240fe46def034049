"""What a schedule is: a function of the step count that has a length and can be multiplied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fdnn.types import Scalar

__all__ = ["Schedule", "as_schedule", "product"]


class Schedule:
    """A pure function of the number of steps taken, which knows its length.

    Called with a count, an int or an integer tensor (0-d, or elementwise), it returns a float64
    tensor of the count's shape, on the count's device (float32 on MPS, which has no float64).
    `schedule * other` multiplies by a number, a 0-d tensor or another schedule; so a warm-up
    never erases a drop, and either can be tested alone. Inside a compiled function, write the
    product with a tensor as `chained([schedule, tensor])`: the compiler does not know the operator.

    A finite schedule raises a `ValueError` beyond its length, wherever the count is known: for
    ints, and for tensors on the CPU in eager code. Where it is not known (compiled, vmapped, on
    another device), the last value stays.

    Args:
        fn: from a float64 tensor of counts to a value.
        total_steps: how many steps the schedule covers; None if it never ends.

    Attributes:
        total_steps: as given.

    Example:
        >>> halving = Schedule(lambda count: 0.5**count, total_steps=3)
        >>> halving(2), (halving * 0.1)(0)
        (tensor(0.2500, dtype=torch.float64), tensor(0.1000, dtype=torch.float64))
    """

    def __init__(self, fn: Callable[[Tensor], Scalar], total_steps: int | None = None) -> None:
        self.fn = fn
        self.total_steps = total_steps

    def __call__(self, count: int | Tensor) -> Tensor:
        """Return the value for the step that comes after `count` steps."""
        if not isinstance(count, Tensor):
            count = torch.tensor(count, dtype=torch.float64)
        if _is_known(count):
            if (count < 0).any():
                raise ValueError(f"`count` must be at least 0, got {count.min():g}")
            if self.total_steps is not None and (count >= self.total_steps).any():
                raise ValueError(
                    f"`count` must be below {self.total_steps}, the length of the schedule, "
                    f"got {count.max():g}: it was made for fewer steps than are taken"
                )
        return self.at(count.to(torch.float32 if count.device.type == "mps" else torch.float64))

    def at(self, count: Tensor) -> Tensor:
        """Return the value at a float64 count; beyond the end, the last value."""
        if self.total_steps is not None:
            count = count.clamp(max=self.total_steps - 1)
        return torch.zeros_like(count) + self.fn(count)

    def __mul__(self, other: Any) -> Schedule:
        return product([self, other]) if _can_be(other) else NotImplemented

    def __rmul__(self, other: Any) -> Schedule:
        return product([other, self]) if _can_be(other) else NotImplemented


def as_schedule(value: Any) -> Schedule:
    """Make a schedule of a number, a 0-d tensor or any function of the count.

    Raises:
        TypeError: `value` is none of these.

    Example:
        >>> as_schedule(0.1)(7)
        tensor(0.1000, dtype=torch.float64)
    """
    if isinstance(value, Schedule):
        return value
    if not _can_be(value):
        raise TypeError(f"a schedule, a number or a 0-d tensor is needed, got {value!r}")
    return Schedule(value if callable(value) else lambda count: value)


def product(factors: Iterable[Any]) -> Schedule:
    """Multiply schedules, numbers and 0-d tensors.

    Raises:
        TypeError: a factor is none of these.
        ValueError: there are no factors, or two have different lengths.

    Example:
        >>> product([0.1, Schedule(lambda count: 0.5**count)])(1)
        tensor(0.0500, dtype=torch.float64)
    """
    parts = [as_schedule(factor) for factor in factors]
    if not parts:
        raise ValueError("at least one schedule is needed, got none")
    lengths = sorted({part.total_steps for part in parts if part.total_steps is not None})
    if len(lengths) > 1:
        raise ValueError(f"schedules that are multiplied must have one length, got {lengths}")
    return Schedule(
        lambda count: math.prod([part.at(count) for part in parts]),
        lengths[0] if lengths else None,
    )


def _can_be(value: Any) -> bool:
    """Tell whether a value can be made a schedule."""
    return (
        callable(value)
        or isinstance(value, int | float)
        or (isinstance(value, Tensor) and value.ndim == 0)
    )


def _is_known(count: Tensor) -> bool:
    """Tell whether the numbers can be looked at, and at once."""
    return (
        not torch.compiler.is_compiling()
        and type(count) is Tensor
        and count.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(count)
    )
