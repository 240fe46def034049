"""Draws from the usual distributions: `(key, shape) -> tensor`, with `jax.random`'s bits.

Every function is pure, vmaps over keys and parameters, and traces under
`torch.compile(fullgraph=True)`. The dtype defaults to float32, as in JAX.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fdnn.random.keys import check, split
from fdnn.random.threefry import words
from fdnn.types import Key, Scalar, Shape

__all__ = [
    "bernoulli",
    "bits",
    "exponential",
    "gumbel",
    "normal",
    "randint",
    "truncated_normal",
    "uniform",
]

# Mantissa bits of each float, and how many random bits one draw takes.
_MANTISSA = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
_DRAWN = {torch.float64: 64, torch.float32: 32, torch.float16: 16, torch.bfloat16: 8}
_UNSIGNED = {torch.uint8: 8, torch.uint16: 16, torch.uint32: 32, torch.uint64: 64}
_SIGNED = {torch.int8: 8, torch.int16: 16, torch.int32: 32, torch.int64: 64}


def bits(key: Key, shape: Shape = (), dtype: torch.dtype = torch.uint32) -> Tensor:
    """Draw uniform random bits.

    Args:
        key: a key.
        shape: shape of the result.
        dtype: `torch.uint8`, `uint16`, `uint32` or `uint64`.

    Returns:
        Unsigned integers. torch offers few operations on them; `.to(torch.int64)` helps.

    Raises:
        ValueError: `dtype` is not unsigned, or `shape` holds 2**32 numbers or more.

    Example:
        >>> from fdnn import random
        >>> random.bits(random.key(0), (2,)).to(torch.int64)
        tensor([4070199207, 2042213184])
    """
    if dtype not in _UNSIGNED:
        raise ValueError(f"`dtype` must be one of {_names(_UNSIGNED)}, got {dtype}")
    drawn = raw_words(key, shape, 64 if dtype is torch.uint64 else 32)
    if dtype in (torch.uint32, torch.uint64):
        return drawn.view(dtype)
    return (drawn & (2 ** _UNSIGNED[dtype] - 1)).to(dtype)


def uniform(
    key: Key,
    shape: Shape = (),
    dtype: torch.dtype = torch.float32,
    minval: Scalar = 0.0,
    maxval: Scalar = 1.0,
) -> Tensor:
    """Draw from the uniform distribution on `[minval, maxval)`.

    Args:
        key: a key.
        shape: shape of the result.
        dtype: float64, float32, float16 or bfloat16.
        minval: lower bound (a number, or a tensor that broadcasts to `shape`).
        maxval: upper bound, likewise.

    Raises:
        ValueError: `dtype` is not one of these floats.

    Example:
        >>> from fdnn import random
        >>> random.uniform(random.key(0), (3,))
        tensor([0.9477, 0.4755, 0.6548])
    """
    if dtype not in _MANTISSA:
        raise ValueError(f"`dtype` must be one of {_names(_MANTISSA)}, got {dtype}")
    mantissa, drawn = _MANTISSA[dtype], _DRAWN[dtype]
    raw = raw_words(key, shape, 64 if drawn == 64 else 32)
    # The top `mantissa` bits of the drawn ones, as a fraction: exact in `dtype`, and never 1.
    fraction = (raw >> (drawn - mantissa)).bitwise_and_(2**mantissa - 1).to(dtype)
    fraction = fraction.mul_(2.0**-mantissa)
    if isinstance(minval, float | int) and isinstance(maxval, float | int):
        if (minval, maxval) == (0, 1):
            return fraction
    low, high = _as(minval, fraction), _as(maxval, fraction)
    return torch.maximum(low, fraction * (high - low) + low)


def normal(key: Key, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw from the standard normal distribution, by the inverse of its distribution function.

    Args:
        key: a key.
        shape: shape of the result.
        dtype: float64, float32, float16, bfloat16, or a complex dtype (total variance 1).

    Returns:
        Standard normal numbers; equal to JAX's up to the last places of `erfinv`.

    Example:
        >>> from fdnn import random
        >>> random.normal(random.key(0), (3,))
        tensor([ 1.6226,  2.0253, -0.4336]) 
    """
    if dtype.is_complex:
        real, imaginary = split(key)
        part = dtype.to_real()
        pair = normal(real, shape, part), normal(imaginary, shape, part)
        return torch.complex(*pair) / math.sqrt(2)
    lowest = -1 + torch.finfo(dtype).eps / 2 if dtype in _MANTISSA else -1.0
    return _normal_quantile(uniform(key, shape, dtype, lowest, 1.0))


def truncated_normal(
    key: Key,
    lower: Scalar,
    upper: Scalar,
    shape: Shape = (),
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw from the standard normal distribution restricted to `(lower, upper)`.

    Args:
        key: a key.
        lower: lower bound (a number, or a tensor that broadcasts to `shape`).
        upper: upper bound, likewise.
        shape: shape of the result.
        dtype: float64, float32, float16 or bfloat16.

    Example:
        >>> from fdnn import random
        >>> draws = random.truncated_normal(random.key(0), -2.0, 2.0, (1000,))
        >>> bool(draws.abs().max() < 2)
        True
    """
    like = torch.empty((), dtype=dtype, device=key.device)
    low, high = _as(lower, like), _as(upper, like)
    root = torch.full_like(like, math.sqrt(2))
    fraction = uniform(key, shape, dtype, torch.erf(low / root), torch.erf(high / root))
    inside = torch.nextafter(low, torch.full_like(like, math.inf))
    outside = torch.nextafter(high, torch.full_like(like, -math.inf))
    return torch.minimum(torch.maximum(_normal_quantile(fraction), inside), outside)


def bernoulli(key: Key, p: Scalar = 0.5, shape: Shape | None = None) -> Tensor:
    """Draw True with probability `p`.

    Args:
        key: a key.
        p: the probability: a number, or a floating-point tensor that broadcasts to `shape`.
        shape: shape of the result; that of `p` if left out.

    Returns:
        Booleans.

    Raises:
        TypeError: `p` is not floating-point.

    Example:
        >>> from fdnn import random
        >>> random.bernoulli(random.key(0), 0.5, (4,))
        tensor([False,  True, False,  True])
    """
    if isinstance(p, Tensor):
        if not p.is_floating_point():
            raise TypeError(f"`p` must be floating-point, got a tensor of {p.dtype}")
        return uniform(key, p.shape if shape is None else shape, p.dtype) < p
    # In float32, as JAX rounds a Python number.
    rounded = torch.full((), float(p), dtype=torch.float32, device=key.device)
    return uniform(key, () if shape is None else shape) < rounded


def randint(
    key: Key,
    shape: Shape,
    minval: int | Tensor,
    maxval: int | Tensor,
    dtype: torch.dtype = torch.int32,
) -> Tensor:
    """Draw integers from `[minval, maxval)`.

    Two words make one number, so the bias that a span which is no power of two brings stays
    below 2**-32 (2**-64 for int64).

    Args:
        key: a key.
        shape: shape of the result.
        minval: lower bound: an integer, or a tensor that broadcasts to `shape`.
        maxval: upper bound, not reached, likewise. Where it is not above `minval`, `minval`
            comes back.
        dtype: int32 (as in JAX), int64, int16 or int8.

    Raises:
        ValueError: `dtype` is no signed integer.

    Example:
        >>> from fdnn import random
        >>> random.randint(random.key(0), (5,), 0, 10)
        tensor([2, 4, 5, 2, 2], dtype=torch.int32)
    """
    if dtype not in _SIGNED:
        raise ValueError(f"`dtype` must be one of {_names(_SIGNED)}, got {dtype}")
    wide = dtype is torch.int64
    low = torch.as_tensor(minval, dtype=torch.int64, device=key.device)
    high = torch.as_tensor(maxval, dtype=torch.int64, device=key.device)
    if not wide:
        info = torch.iinfo(dtype)
        low, high = low.clamp(info.min, info.max), high.clamp(info.min, info.max + 1)
    span = torch.where(high > low, high - low, 1)
    first, second = split(key)
    if wide:
        upper, lower = raw_words(first, shape, 64), raw_words(second, shape, 64)
        return low + _offset_64(upper, lower, span)
    upper = raw_words(first, shape, 32).to(torch.int64) & 0xFFFFFFFF
    lower = raw_words(second, shape, 32).to(torch.int64) & 0xFFFFFFFF
    multiplier = (2**16 % span) ** 2 % 2**32 % span
    # JAX works modulo 2**32 throughout, so this does too.
    offset = ((upper % span * multiplier + lower % span) & 0xFFFFFFFF) % span
    return (low + offset).to(dtype)


def exponential(key: Key, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw from the exponential distribution with rate 1.

    Example:
        >>> from fdnn import random
        >>> bool((random.exponential(random.key(0), (100,)) >= 0).all())
        True
    """
    return -torch.log1p(-uniform(key, shape, dtype))


def gumbel(key: Key, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw from the standard Gumbel distribution: the noise whose argmax samples a softmax.

    Example:
        >>> from fdnn import random
        >>> random.gumbel(random.key(0), (2,)).shape
        torch.Size([2])
    """
    return -torch.log(-torch.log(uniform(key, shape, dtype, torch.finfo(dtype).tiny, 1.0)))


def raw_words(key: Key, shape: Shape, width: int = 32) -> Tensor:
    """Draw words whose bits alone have meaning: int32, or int64 if `width` is 64."""
    check(key)
    count = math.prod(shape)
    if count >= 2**32:
        raise ValueError(f"`shape` must hold fewer than 2**32 numbers, got {tuple(shape)}")
    start = torch.zeros((), dtype=torch.int64, device=key.device)
    return words(key, start, count, width).reshape(tuple(shape))


def _as(value: Scalar, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(device=like.device, dtype=like.dtype)
    return torch.full((), value, dtype=like.dtype, device=like.device)


def _normal_quantile(u: Tensor) -> Tensor:
    """sqrt(2) * erfinv(u), the half-precision floats by way of float32."""
    half = u.dtype in (torch.float16, torch.bfloat16)
    inverse = torch.erfinv(u.float()).to(u.dtype) if half else torch.erfinv(u)
    return inverse * torch.full((), math.sqrt(2), dtype=u.dtype, device=u.device)


def _offset_64(upper: Tensor, lower: Tensor, span: Tensor) -> Tensor:
    """`randint`'s formula on unsigned 64-bit words, which torch cannot divide.

    A word w with its sign bit set stands for w + 2**64, and the remainders of the two parts are
    added. The span of an int64 range is below 2**63, so every remainder fits.
    """

    def remainder(word: Tensor) -> Tensor:
        half = (2**62 % span) * 2 % span  # 2**63 mod span
        positive = (word & 0x7FFFFFFFFFFFFFFF) % span
        return (positive + torch.where(word < 0, half, 0)) % span

    multiplier = 2**32 % span
    multiplier = remainder(multiplier * multiplier)
    return remainder(remainder(upper) * multiplier + remainder(lower))


def _names(dtypes: dict[torch.dtype, int]) -> str:
    return ", ".join(str(dtype) for dtype in dtypes)
