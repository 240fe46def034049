"""Initializers with one and the same distribution for every shape."""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn import random
from fdnn.initializers.building import as_scalar, check_not_negative, initializer
from fdnn.types import Initializer, Key, Scalar, Shape

__all__ = ["constant", "normal", "ones", "truncated_normal", "uniform", "zeros"]

_REACH = 6.0  # standard deviations: beyond, float64 knows too few numbers near erf = 1


def zeros(
    key: Key,
    shape: Shape,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Fill with zeros. This is an initializer itself: pass `zeros`, not `zeros()`.

    Args:
        key: a key; only its device and its lanes matter.
        shape: shape of the result.
        dtype: any dtype.
        device: where the result lives; with the key if left out.

    Returns:
        A tensor of zeros with memory of its own in every lane of a vmap.

    Example:
        >>> zeros(random.key(0), (2,))
        tensor([0., 0.])
    """
    return key.new_zeros(tuple(shape), dtype=dtype, device=device or key.device)


def ones(
    key: Key,
    shape: Shape,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Fill with ones. This is an initializer itself: pass `ones`, not `ones()`.

    Args:
        key: a key; only its device and its lanes matter.
        shape: shape of the result.
        dtype: any dtype.
        device: where the result lives; with the key if left out.

    Returns:
        A tensor of ones with memory of its own in every lane of a vmap.

    Example:
        >>> ones(random.key(0), (2,))
        tensor([1., 1.])
    """
    return key.new_ones(tuple(shape), dtype=dtype, device=device or key.device)


def constant(value: Scalar) -> Initializer:
    """Fill with a number.

    Args:
        value: the number, or a tensor that broadcasts to the shape (log class frequencies, say).

    Returns:
        An initializer.

    Example:
        >>> constant(0.25)(random.key(0), (2,))
        tensor([0.2500, 0.2500])
    """

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return key.new_zeros(shape, dtype=dtype) + as_scalar(value, key, dtype)

    return initializer(sample)


def uniform(low: Scalar = 0.0, high: Scalar = 1.0) -> Initializer:
    """Draw from the uniform distribution on [low, high).

    The distribution of `torch.nn.init.uniform_`, whose `a` and `b` are `low` and `high`. (The
    one argument of `jax.nn.initializers.uniform` is `high`.)

    Args:
        low: lower bound.
        high: upper bound.

    Returns:
        An initializer.

    Raises:
        ValueError: `low` is above `high`.

    Example:
        >>> uniform(-0.1, 0.1)(random.key(0), (3,))
        tensor([ 0.0895,  0.0957, -0.0335])
    """
    if not isinstance(low, Tensor) and not isinstance(high, Tensor) and not low <= high:
        raise ValueError(f"`low` must not be above `high`, got {low} and {high}")

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return random.uniform(key, shape, dtype, low, high)

    return initializer(sample)


def normal(mean: Scalar = 0.0, std: Scalar = 1.0) -> Initializer:
    """Draw from the normal distribution N(mean, std^2), as `torch.nn.init.normal_` does.

    Args:
        mean: mean.
        std: standard deviation. (The one argument of `jax.nn.initializers.normal`.)

    Returns:
        An initializer.

    Raises:
        ValueError: `std` is negative.

    Example:
        >>> normal(std=0.02)(random.key(0), (3,))
        tensor([ 0.0325,  0.0405, -0.0087])
    """
    check_not_negative("std", std)

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        drawn = random.normal(key, shape, dtype) * as_scalar(std, key, dtype)
        return drawn + as_scalar(mean, key, dtype)

    return initializer(sample)


def truncated_normal(
    mean: Scalar = 0.0, std: Scalar = 1.0, a: Scalar = -2.0, b: Scalar = 2.0
) -> Initializer:
    """Draw from N(mean, std^2) restricted to [a, b], as `torch.nn.init.trunc_normal_` does.

    With Phi the standard normal distribution function and u uniform, the draw is

        mean + std * Phi^-1(Phi((a - mean) / std) + u * (Phi((b - mean) / std)
                                                         - Phi((a - mean) / std)))

    so no draw is rejected. `a` and `b` are values, not multiples of `std` (which they are in
    JAX), and `std` is that of the distribution before it is truncated.

    Args:
        mean: mean before truncation.
        std: standard deviation before truncation.
        a: the least value.
        b: the greatest value.

    Returns:
        An initializer.

    Raises:
        ValueError: `std` is not positive, `a` is not below `b`, or [a, b] begins more than six
            `std` away from `mean`. Checked for numbers, not for tensors.

    Example:
        >>> drawn = truncated_normal(std=0.02, a=-0.04, b=0.04)(random.key(0), (1000,))
        >>> bool(drawn.abs().max() <= 0.04)
        True
    """
    working: torch.dtype | None = None
    numbers = (mean, std, a, b)
    if not any(isinstance(number, Tensor) for number in numbers):
        if not std > 0:
            raise ValueError(f"`std` must be positive, got {std}")
        if not a < b:
            raise ValueError(f"`a` must be below `b`, got {a} and {b}")
        if (a - mean) / std > _REACH or (b - mean) / std < -_REACH:
            raise ValueError(
                f"`[a, b]` must reach within {_REACH:g} `std` of `mean`, got "
                f"[{a}, {b}] for `mean` {mean} and `std` {std}"
            )
        if mean < a or mean > b:  # a tail, which float32 would resolve badly
            working = torch.float64

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        lower, upper = (a - mean) / std, (b - mean) / std
        drawn = random.truncated_normal(key, lower, upper, shape, working or dtype).to(dtype)
        drawn = drawn * as_scalar(std, key, dtype) + as_scalar(mean, key, dtype)
        drawn = torch.maximum(drawn, as_scalar(a, key, dtype))
        return torch.minimum(drawn, as_scalar(b, key, dtype))

    return initializer(sample)
