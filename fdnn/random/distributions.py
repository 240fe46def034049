"""Draws from the usual continuous distributions, and coins: `(key, shape) -> tensor`.

Every function is pure, vmaps over keys and parameters, and traces under
`torch.compile(fullgraph=True)`. The dtype defaults to float32, as in JAX.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fdnn.random.integers import check_broadcast, names, raw_words
from fdnn.random.keys import check, split
from fdnn.types import Key, Scalar, Shape

__all__ = [
    "bernoulli",
    "exponential",
    "gumbel",
    "normal",
    "truncated_normal",
    "uniform",
]

# Mantissa bits of each float, and how many random bits one draw takes.
_MANTISSA = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
_DRAWN = {torch.float64: 64, torch.float32: 32, torch.float16: 16, torch.bfloat16: 8}
# torch.compile does not know `dtype.to_real()`.
_REAL = {
    torch.complex128: torch.float64,
    torch.complex64: torch.float32,
    torch.complex32: torch.float16,
}


def uniform(
    key: Key,
    shape: Shape = (),
    dtype: torch.dtype = torch.float32,
    minval: Scalar = 0.0,
    maxval: Scalar = 1.0,
) -> Tensor:
    """Draw from the uniform distribution on `[minval, maxval)`.

    The number is `minval + u * (maxval - minval)`, where u is a whole multiple of 2**-23 (for
    float32; of 2**-52, 2**-10, 2**-7 for float64, float16, bfloat16) drawn from `[0, 1)`. The
    bits are JAX's; but where these operations round, JAX's compiler may fuse them and then
    differs in the last place.

    Args:
        key: a key.
        shape: shape of the result.
        dtype: float64, float32, float16 or bfloat16.
        minval: lower bound (a number, or a tensor that broadcasts to `shape`).
        maxval: upper bound, likewise; reached only by rounding.

    Returns:
        Numbers of `dtype`.

    Raises:
        ValueError: `key` is no key, `dtype` is not one of these floats, `shape` is no shape or
            holds 2**32 numbers or more, or a bound does not broadcast to `shape`.

    Example:
        >>> from fdnn import random
        >>> random.uniform(random.key(0), (3,))
        tensor([0.9477, 0.9786, 0.3323])
    """
    _check_float(dtype)
    check_broadcast("minval", minval, shape)
    check_broadcast("maxval", maxval, shape)
    fraction = _fraction(key, shape, dtype)
    plain = isinstance(minval, float | int) and isinstance(maxval, float | int)
    if plain and (minval, maxval) == (0, 1):
        return fraction
    low, high = _as(minval, fraction), _as(maxval, fraction)
    return torch.maximum(low, fraction * (high - low) + low)


def normal(key: Key, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw from the standard normal distribution, by the inverse of its distribution function.

    The number is `sqrt(2) * erfinv(u)` with u uniform on `(-1, 1)`.

    Args:
        key: a key.
        shape: shape of the result.
        dtype: float64, float32, float16, bfloat16, or a complex dtype (total variance 1).

    Returns:
        Standard normal numbers; equal to JAX's up to the last places of `erfinv`.

    Raises:
        ValueError: as in `uniform`.

    Example:
        >>> from fdnn import random
        >>> random.normal(random.key(0), (3,))
        tensor([ 1.6226,  2.0253, -0.4336])
    """
    if dtype.is_complex:
        real, imaginary = split(key)
        part = _REAL[dtype]
        pair = normal(real, shape, part), normal(imaginary, shape, part)
        return torch.complex(*pair) / math.sqrt(2)
    _check_float(dtype)
    lowest = -1 + torch.finfo(dtype).eps / 2  # the first number above -1
    return _normal_quantile(uniform(key, shape, dtype, lowest, 1.0))


def truncated_normal(
    key: Key,
    lower: Scalar,
    upper: Scalar,
    shape: Shape | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw from the standard normal distribution restricted to `(lower, upper)`.

    The number is `sqrt(2) * erfinv(u)`, u uniform between the `erf(bound / sqrt(2))`.

    Args:
        key: a key.
        lower: lower bound (a number, or a tensor that broadcasts to `shape`).
        upper: upper bound, likewise.
        shape: shape of the result; what the bounds broadcast to if left out.
        dtype: float64, float32, float16 or bfloat16.

    Returns:
        Numbers of `dtype` strictly between the bounds; equal to JAX's up to the last places of
        `erf` and `erfinv`.

    Raises:
        ValueError: as in `uniform`.

    Example:
        >>> from fdnn import random
        >>> draws = random.truncated_normal(random.key(0), -2.0, 2.0, (1000,))
        >>> bool(draws.abs().max() < 2)
        True
    """
    check(key)
    _check_float(dtype)
    like = torch.empty((), dtype=dtype, device=key.device)
    low, high = _as(lower, like), _as(upper, like)
    if shape is None:
        shape = (low + high).shape
    check_broadcast("lower", low, shape)
    check_broadcast("upper", high, shape)
    root = torch.full_like(like, math.sqrt(2))
    fraction = uniform(key, shape, dtype, torch.erf(low / root), torch.erf(high / root))
    first = torch.nextafter(low.detach(), torch.full_like(like, math.inf))
    last = torch.nextafter(high.detach(), torch.full_like(like, -math.inf))
    return torch.minimum(torch.maximum(_normal_quantile(fraction), first), last)


def bernoulli(key: Key, p: Scalar = 0.5, shape: Shape | None = None) -> Tensor:
    """Draw True with probability `p`.

    Args:
        key: a key.
        p: the probability: a number, or a floating-point tensor that broadcasts to `shape`.
        shape: shape of the result; that of `p` if left out.

    Returns:
        Booleans.

    Raises:
        TypeError: `p` is a tensor, but not of floating-point numbers.
        ValueError: `p` does not broadcast to `shape`, or as in `uniform`.

    Example:
        >>> from fdnn import random
        >>> random.bernoulli(random.key(0), 0.5, (4,))
        tensor([False, False,  True,  True])
    """
    check(key)
    if isinstance(p, Tensor):
        if not p.is_floating_point():
            raise TypeError(f"`p` must be floating-point, got a tensor of {p.dtype}")
        shape = p.shape if shape is None else shape
        check_broadcast("p", p, shape)
        return uniform(key, shape, p.dtype) < p
    # In float32, as JAX rounds a Python number.
    rounded = torch.full((), float(p), dtype=torch.float32, device=key.device)
    return uniform(key, () if shape is None else shape) < rounded


def exponential(key: Key, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw from the exponential distribution with rate 1.

    The number is `-log(1 - u)` with u uniform on `[0, 1)`.

    Args:
        key: a key.
        shape: shape of the result.
        dtype: float64, float32, float16 or bfloat16.

    Returns:
        Numbers of 0 or more; equal to JAX's up to the last places of `log1p`.

    Raises:
        ValueError: as in `uniform`.

    Example:
        >>> from fdnn import random
        >>> bool((random.exponential(random.key(0), (100,)) >= 0).all())
        True
    """
    return -torch.log1p(-uniform(key, shape, dtype))


def gumbel(key: Key, shape: Shape = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw from the standard Gumbel distribution: the noise whose argmax samples a softmax.

    The number is `-log(-log(u))` with u uniform on `(0, 1)`.

    Args:
        key: a key.
        shape: shape of the result.
        dtype: float64, float32, float16 or bfloat16.

    Returns:
        Gumbel numbers; equal to JAX's up to the last places of `log`.

    Raises:
        ValueError: as in `uniform`.

    Example:
        >>> from fdnn import random
        >>> random.gumbel(random.key(0), (2,)).shape
        torch.Size([2])
    """
    _check_float(dtype)
    return -torch.log(-torch.log(uniform(key, shape, dtype, torch.finfo(dtype).tiny, 1.0)))


def _fraction(key: Key, shape: Shape, dtype: torch.dtype) -> Tensor:
    """The top `mantissa` bits of the drawn ones, as a fraction: exact in `dtype`, and never 1."""
    if dtype is torch.float32:
        return raw_words(key, shape, dtype)
    mantissa, drawn = _MANTISSA[dtype], _DRAWN[dtype]
    raw = raw_words(key, shape, torch.int64 if drawn == 64 else torch.int32)
    top = (raw >> (drawn - mantissa)).bitwise_and_(2**mantissa - 1)
    return top.to(dtype).mul_(2.0**-mantissa)


def _check_float(dtype: torch.dtype) -> None:
    if dtype not in _MANTISSA:
        raise ValueError(f"`dtype` must be one of {names(_MANTISSA)}, got {dtype}")


def _as(value: Scalar, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(device=like.device, dtype=like.dtype)
    return torch.full((), value, dtype=like.dtype, device=like.device)


def _normal_quantile(u: Tensor) -> Tensor:
    """sqrt(2) * erfinv(u), the half-precision floats by way of float32."""
    half = u.dtype in (torch.float16, torch.bfloat16)
    inverse = torch.erfinv(u.float()).to(u.dtype) if half else torch.erfinv(u)
    return inverse * torch.full((), math.sqrt(2), dtype=u.dtype, device=u.device)
