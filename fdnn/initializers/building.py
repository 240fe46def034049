"""What all initializers share: draw in at least float32, check, then hand out as asked.

float16 and bfloat16 are drawn in float32 and rounded at the end. A draw in bfloat16 itself would
know only 128 different numbers, and no normal one beyond 2.7 standard deviations. So the two
precisions of one key agree up to rounding, and a bound holds as rounded to the dtype. (JAX draws
in the narrow dtype.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fdnn.types import Initializer, Key, Scalar, Shape

__all__ = ["as_scalar", "check_not_negative", "initializer"]

_WORKING = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}


def initializer(sample: Callable[[Key, tuple[int, ...], torch.dtype], Tensor]) -> Initializer:
    """Make an initializer of a function that draws in float32 or float64 on the key's device."""

    def init(
        key: Key,
        shape: Shape,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        if dtype not in _WORKING:
            names = ", ".join(str(known) for known in _WORKING)
            raise ValueError(f"`dtype` must be one of {names}, got {dtype}")
        shape = tuple(shape)
        drawn = sample(key, shape, _WORKING[dtype])
        if drawn.shape != shape:
            raise ValueError(
                "an initializer's hyperparameters must broadcast to "
                f"`shape` {shape}, got {tuple(drawn.shape)} with them"
            )
        return drawn.to(dtype=dtype, device=device)

    return init


def as_scalar(value: Scalar, key: Key, dtype: torch.dtype) -> Tensor:
    """Return a hyperparameter as a tensor of `dtype` beside the key."""
    if isinstance(value, Tensor):
        return value.to(dtype=dtype, device=key.device)
    return torch.full((), value, dtype=dtype, device=key.device)


def check_not_negative(name: str, value: Scalar) -> None:
    """Raise if a number is negative or NaN; what a tensor holds is not looked at."""
    if not isinstance(value, Tensor) and not value >= 0:
        raise ValueError(f"`{name}` must not be negative, got {value}")
