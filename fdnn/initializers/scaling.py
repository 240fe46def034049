"""Initializers whose scale follows from the shape, so that signals keep their size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fdnn import random
from fdnn.initializers.building import as_scalar, check_not_negative, initializer
from fdnn.initializers.gains import calculate_gain, fan_in_and_fan_out
from fdnn.types import Initializer, Key, Scalar

__all__ = [
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "variance_scaling",
]

Mode = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["uniform", "normal", "truncated_normal"]

_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("uniform", "normal", "truncated_normal")
_TRUNCATED_STD = 0.87962566103423978  # of a standard normal variable restricted to [-2, 2]


def variance_scaling(scale: Scalar, mode: Mode, distribution: Distribution) -> Initializer:
    """Draw weights of mean 0 and variance scale / n.

    n is fan_in, fan_out or their mean, as `mode` says. "uniform" draws from
    [-sqrt(3 * scale / n), sqrt(3 * scale / n)); "normal" from N(0, scale / n);
    "truncated_normal" cuts a normal distribution at two standard deviations and widens it by
    1 / 0.8796, so that the variance is scale / n *after* the cut.

    Args:
        scale: the variance times n.
        mode: "fan_in" keeps the size of the signal forward, "fan_out" backward, "fan_avg" is
            between them.
        distribution: "uniform", "normal" or "truncated_normal".

    Returns:
        An initializer for shapes of at least 2 dimensions, with JAX's bits for a matrix in
        float32 and float64 (given torch's layout: `in_axis=1, out_axis=0` there).

    Raises:
        ValueError: `scale` is negative, or `mode` or `distribution` is none of these.

    Example:
        >>> weight = variance_scaling(1.0, "fan_in", "uniform")(random.key(0), (64, 48))
        >>> bool(weight.abs().max() <= (3 / 48) ** 0.5)
        True

    References:
        Glorot, Bengio (2010), "Understanding the difficulty of training deep feedforward neural
        networks"; He, Zhang, Ren, Sun (2015), "Delving deep into rectifiers".
    """
    check_not_negative("scale", scale)
    if mode not in _MODES:
        raise ValueError(f"`mode` must be one of {', '.join(_MODES)}, got {mode!r}")
    if distribution not in _DISTRIBUTIONS:
        names = ", ".join(_DISTRIBUTIONS)
        raise ValueError(f"`distribution` must be one of {names}, got {distribution!r}")

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        fan_in, fan_out = fan_in_and_fan_out(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        # A fan below 1 belongs to an empty weight.
        variance = as_scalar(scale / max(1, fan), key, dtype)
        if distribution == "uniform":
            return random.uniform(key, shape, dtype, -1.0, 1.0) * _root(3 * variance)
        if distribution == "normal":
            return random.normal(key, shape, dtype) * _root(variance)
        std = _root(variance) / as_scalar(_TRUNCATED_STD, key, dtype)
        return random.truncated_normal(key, -2.0, 2.0, shape, dtype) * std

    return initializer(sample)


def glorot_uniform(gain: Scalar = 1.0) -> Initializer:
    """Draw from U(-c, c) with c = gain * sqrt(6 / (fan_in + fan_out)).

    `torch.nn.init.xavier_uniform_`: a compromise between keeping the variance of activations
    forward and of gradients backward.

    Args:
        gain: factor on the standard deviation; see `calculate_gain`.

    Returns:
        An initializer for shapes of at least 2 dimensions.

    Example:
        >>> weight = glorot_uniform()(random.key(0), (4, 2))
        >>> bool(weight.abs().max() <= 1.0)
        True

    References:
        Glorot, Bengio (2010), "Understanding the difficulty of training deep feedforward neural
        networks".
    """
    return variance_scaling(gain**2, "fan_avg", "uniform")


def glorot_normal(gain: Scalar = 1.0) -> Initializer:
    """Draw from N(0, std^2) with std = gain * sqrt(2 / (fan_in + fan_out)).

    `torch.nn.init.xavier_normal_`. JAX's initializer of this name truncates at two standard
    deviations: that is `variance_scaling(1.0, "fan_avg", "truncated_normal")`.

    Args:
        gain: factor on the standard deviation; see `calculate_gain`.

    Returns:
        An initializer for shapes of at least 2 dimensions.

    Example:
        >>> glorot_normal()(random.key(0), (4, 2)).shape
        torch.Size([4, 2])

    References:
        Glorot, Bengio (2010), "Understanding the difficulty of training deep feedforward neural
        networks".
    """
    return variance_scaling(gain**2, "fan_avg", "normal")


def he_uniform(
    a: Scalar = 0.0, mode: Mode = "fan_in", nonlinearity: str = "leaky_relu"
) -> Initializer:
    """Draw from U(-c, c) with c = gain * sqrt(3 / n), gain = sqrt(2 / (1 + a^2)) for rectifiers.

    `torch.nn.init.kaiming_uniform_`. n is what `mode` says; the default `a` makes it relu.

    Args:
        a: the negative slope of the leaky_relu after the layer; not used by the others.
        mode: "fan_in" keeps the variance forward, "fan_out" backward.
        nonlinearity: what follows the layer: a name that `calculate_gain` knows.

    Returns:
        An initializer for shapes of at least 2 dimensions.

    Raises:
        ValueError: `mode` or `nonlinearity` is not known.

    Example:
        >>> weight = he_uniform()(random.key(0), (8, 6))
        >>> bool(weight.abs().max() <= 1.0)
        True

    References:
        He, Zhang, Ren, Sun (2015), "Delving deep into rectifiers: surpassing human-level
        performance on ImageNet classification".
    """
    return variance_scaling(_squared_gain(nonlinearity, a), mode, "uniform")


def he_normal(
    a: Scalar = 0.0, mode: Mode = "fan_in", nonlinearity: str = "leaky_relu"
) -> Initializer:
    """Draw from N(0, std^2) with std = gain / sqrt(n), gain = sqrt(2 / (1 + a^2)) for rectifiers.

    `torch.nn.init.kaiming_normal_`. n is what `mode` says; the default `a` makes it relu. JAX's
    initializer of this name truncates at two standard deviations: that is
    `variance_scaling(2.0, "fan_in", "truncated_normal")`.

    Args:
        a: the negative slope of the leaky_relu after the layer; not used by the others.
        mode: "fan_in" keeps the variance forward, "fan_out" backward.
        nonlinearity: what follows the layer: a name that `calculate_gain` knows.

    Returns:
        An initializer for shapes of at least 2 dimensions.

    Raises:
        ValueError: `mode` or `nonlinearity` is not known.

    Example:
        >>> he_normal(mode="fan_out")(random.key(0), (8, 4, 3, 3)).shape
        torch.Size([8, 4, 3, 3])

    References:
        He, Zhang, Ren, Sun (2015), "Delving deep into rectifiers: surpassing human-level
        performance on ImageNet classification".
    """
    return variance_scaling(_squared_gain(nonlinearity, a), mode, "normal")


def lecun_uniform() -> Initializer:
    """Draw from U(-c, c) with c = sqrt(3 / fan_in): variance 1 / fan_in.

    Returns:
        An initializer for shapes of at least 2 dimensions.

    Example:
        >>> weight = lecun_uniform()(random.key(0), (5, 3))
        >>> bool(weight.abs().max() <= 1.0)
        True

    References:
        LeCun, Bottou, Orr, Müller (1998), "Efficient backprop".
    """
    return variance_scaling(1.0, "fan_in", "uniform")


def lecun_normal() -> Initializer:
    """Draw from N(0, 1 / fan_in): what self-normalizing networks (selu) ask for.

    JAX's initializer of this name truncates at two standard deviations: that is
    `variance_scaling(1.0, "fan_in", "truncated_normal")`.

    Returns:
        An initializer for shapes of at least 2 dimensions.

    Example:
        >>> lecun_normal()(random.key(0), (5, 3)).shape
        torch.Size([5, 3])

    References:
        LeCun, Bottou, Orr, Müller (1998), "Efficient backprop".
    """
    return variance_scaling(1.0, "fan_in", "normal")


def _squared_gain(nonlinearity: str, a: Scalar) -> Scalar:
    """The square of `calculate_gain`, without a root's rounding where there need be none."""
    if nonlinearity in ("relu", "leaky_relu"):
        return 2 / (1 + a * a) if nonlinearity == "leaky_relu" else 2.0
    return calculate_gain(nonlinearity) ** 2


def _root(x: Tensor) -> Tensor:
    """The square root, correctly rounded: torch's own in float32 may be one place off."""
    exact = x.dtype if x.device.type == "mps" else torch.float64  # which mps does not have
    return torch.sqrt(x.to(exact)).to(x.dtype)
