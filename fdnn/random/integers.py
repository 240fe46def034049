"""Draws of integers: raw bits, and numbers from a range.

Also what every other draw is made of: `raw_words`, and the checks of shapes and bounds.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fdnn.random.keys import check, split
from fdnn.random.threefry import words
from fdnn.types import Key, Shape

__all__ = ["bits", "randint"]

_UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
_SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)


def bits(key: Key, shape: Shape = (), dtype: torch.dtype = torch.uint32) -> Tensor:
    """Draw uniform random bits.

    Args:
        key: a key.
        shape: shape of the result.
        dtype: `torch.uint8`, `uint16`, `uint32` or `uint64`.

    Returns:
        Unsigned integers. torch offers few operations on them; `.to(torch.int64)` helps.

    Raises:
        ValueError: `key` is no key, `dtype` is not unsigned, or `shape` is no shape or holds
            2**32 numbers or more.

    Example:
        >>> from fdnn import random
        >>> random.bits(random.key(0), (2,)).to(torch.int64)
        tensor([4070199207, 4202968722])
    """
    if dtype not in _UNSIGNED:
        raise ValueError(f"`dtype` must be one of {names(_UNSIGNED)}, got {dtype}")
    drawn = raw_words(key, shape, torch.int64 if dtype is torch.uint64 else torch.int32)
    if dtype in (torch.uint8, torch.uint16):
        return (drawn & torch.iinfo(dtype).max).to(dtype)
    unsigned: Tensor = drawn.view(dtype)
    return unsigned


def randint(
    key: Key,
    shape: Shape,
    minval: int | Tensor,
    maxval: int | Tensor,
    dtype: torch.dtype = torch.int32,
) -> Tensor:
    """Draw integers from `[minval, maxval)`.

    Two words make one number, so the bias that a span which is no power of two brings stays
    below `span / 2**64` (`span / 2**128` for int64).

    Args:
        key: a key.
        shape: shape of the result.
        minval: lower bound: an integer, or a tensor that broadcasts to `shape`.
        maxval: upper bound, not reached, likewise. Where it is not above `minval`, `minval`
            comes back. Both are clipped to what `dtype` holds.
        dtype: int32 (as in JAX), int64, int16 or int8.

    Returns:
        Integers of `dtype`.

    Raises:
        TypeError: a bound is not an integer.
        ValueError: `dtype` is no signed integer, a bound does not broadcast to `shape`, or as in
            `bits`.

    Example:
        >>> from fdnn import random
        >>> random.randint(random.key(0), (5,), 0, 10)
        tensor([9, 0, 2, 3, 1], dtype=torch.int32)
    """
    if dtype not in _SIGNED:
        raise ValueError(f"`dtype` must be one of {names(_SIGNED)}, got {dtype}")
    check(key)
    low, high = _bound("minval", minval, key, shape), _bound("maxval", maxval, key, shape)
    first, second = split(key)
    if dtype is torch.int64:
        span = torch.where(high > low, high - low, 1)
        return low + _offset_64(
            raw_words(first, shape, dtype), raw_words(second, shape, dtype), span
        )
    info = torch.iinfo(dtype)
    low, high = low.clamp(info.min, info.max), high.clamp(info.min, info.max + 1)
    span = torch.where(high > low, high - low, 1)
    upper = raw_words(first, shape).to(torch.int64) & 0xFFFFFFFF
    lower = raw_words(second, shape).to(torch.int64) & 0xFFFFFFFF
    multiplier = (2**16 % span) ** 2 % 2**32 % span
    # JAX works modulo 2**32 throughout, so this does too.
    offset = ((upper % span * multiplier + lower % span) & 0xFFFFFFFF) % span
    return (low + offset).to(dtype)


def raw_words(key: Key, shape: Shape, dtype: torch.dtype = torch.int32) -> Tensor:
    """Draw words whose bits alone have meaning (int32, int64), or fractions of 1 (float32)."""
    check(key)
    check_shape(shape)
    count = math.prod(shape)
    if count >= 2**32:
        raise ValueError(f"`shape` must hold fewer than 2**32 numbers, got {tuple(shape)}")
    return words(key, count, dtype).reshape(tuple(shape))


def check_shape(shape: Shape) -> None:
    """Raise unless `shape` is one."""
    try:
        fits = isinstance(shape, Sequence) and all(operator.index(size) >= 0 for size in shape)
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"`shape` must be a sequence of sizes of 0 or more, got {shape}")


def check_broadcast(name: str, value: object, shape: Shape) -> None:
    """Raise unless the parameter called `name` broadcasts to `shape`."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return
    check_shape(shape)
    found, shape = tuple(value.shape), tuple(shape)
    pairs = zip(reversed(found), reversed(shape), strict=False)
    if len(found) > len(shape) or any(size not in (1, wanted) for size, wanted in pairs):
        raise ValueError(f"`{name}` must broadcast to `shape` {shape}, got shape {found}")


def names(dtypes: Iterable[torch.dtype]) -> str:
    """List dtypes in a message."""
    return ", ".join(str(dtype) for dtype in dtypes)


def _bound(name: str, value: int | Tensor, key: Key, shape: Shape) -> Tensor:
    check_broadcast(name, value, shape)
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"`{name}` must be an integer, got a tensor of {value.dtype}")
        return value.to(device=key.device, dtype=torch.int64)
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, got {value!r}") from None
    info = torch.iinfo(torch.int64)
    clipped = min(max(whole, info.min), info.max)
    return torch.full((), clipped, dtype=torch.int64, device=key.device)


def _offset_64(upper: Tensor, lower: Tensor, span: Tensor) -> Tensor:
    """`randint`'s formula on 64-bit words, which torch can only multiply and divide as signed."""
    least = torch.iinfo(torch.int64).min

    def remainder(word: Tensor) -> Tensor:
        # Halving the word makes it positive; doubling the quotient then leaves less than two
        # spans. A span that looks negative is 2**63 or more, and goes once at most.
        quotient = torch.where(span > 0, ((word >> 1) & ~least) // span * 2, 0)
        rest = word - quotient * span
        return torch.where((rest ^ least) < (span ^ least), rest, rest - span)

    multiplier = remainder(torch.full_like(span, 2**32))
    multiplier = remainder(multiplier * multiplier)
    return remainder(remainder(upper) * multiplier + remainder(lower))
