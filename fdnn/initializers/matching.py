"""Which weights go with which activation, so that signals keep their size through depth."""

from __future__ import annotations

import math
import warnings
from typing import Literal

from fdnn.initializers.gains import fan_in_and_fan_out
from fdnn.initializers.scaling import Distribution, Mode, variance_scaling
from fdnn.types import Initializer, Shape

__all__ = ["for_activation", "matching_variance", "variance_mismatch"]

Family = Literal["he", "lecun", "glorot"]

_SMOOTH = ("elu", "celu", "gelu", "hardswish", "mish", "silu", "softplus", "swish")
_GATED = ("geglu", "glu", "reglu", "swiglu")
_SUITED: dict[str, Family] = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "rrelu", "relu_squared"), "he"),
    **dict.fromkeys((*_SMOOTH, *_GATED), "he"),
    "selu": "lecun",
    **dict.fromkeys(("hardtanh", "identity", "linear", "sigmoid", "softmax", "tanh"), "glorot"),
}
# The slope left of 0: torch's default, torch's first weight, and the mean of torch's range.
_SLOPES = {"leaky_relu": 0.01, "prelu": 0.25, "rrelu": (1 / 8 + 1 / 3) / 2}
# Variances times the fan that serve as well, where it is not one alone. A bounded signal cannot
# grow: up to torch's gain for tanh, and up to 1 / sigmoid'(0)^2, more is no mistake. Softmax ends a
# network, so that nothing compounds: from torch's default to He's. No variance suits products.
_BOUNDED = {
    "hardtanh": (1.0, 25 / 9),
    "sigmoid": (1.0, 16.0),
    "softmax": (1 / 3, 2.0),
    "tanh": (1.0, 25 / 9),
}
_SERVE = _BOUNDED | dict.fromkeys(("relu_squared", *_GATED), (1.0, 2.0))
_MARGIN = math.sqrt(2)  # half of the way, in logarithms, from LeCun's variance to He's


def for_activation(
    name: str,
    family: Family | None = None,
    *,
    negative_slope: float | None = None,
    distribution: Distribution = "normal",
    mode: Mode = "fan_in",
) -> Initializer:
    """Choose the initializer of the weights before an activation.

    - He, variance 2 / ((1 + a^2) n): "relu" and, a being their slope, "leaky_relu", "prelu",
      "rrelu". Exact: half of a symmetric signal passes whole. Also what becomes relu far from 0,
      "elu", "celu", "gelu", "hardswish", "mish", "silu" or "swish", "softplus": any greater
      variance would multiply large signals at every layer. But small ones fade where the slope at
      0 is one half: silu keeps 0.80 of a second moment of 1, and 0.50 of a small one. Also, by
      convention, "relu_squared" and the gated "glu", "swiglu", "geglu", "reglu". No variance keeps
      their signals, since twice the input gives more than twice the output: normalize before them.
    - LeCun, variance 1 / n: "selu", whose constants presume it.
    - Glorot, variance 2 / (fan_in + fan_out): "tanh", "hardtanh", "sigmoid", "softmax", "linear"
      or "identity".

    Args:
        name: the activation that follows the weights.
        family: "he", "lecun" or "glorot", to overrule that choice; if `variance_mismatch` finds
            fault with the weights of square layers, there is a warning.
        negative_slope: the a of "leaky_relu" (0.01 if left out), "prelu" (0.25) and "rrelu"
            (11/48, the mean); not used by the others.
        distribution: "normal", "uniform" or "truncated_normal".
        mode: whether n is fan_in, fan_out or their mean; not used by Glorot.

    Returns:
        An initializer for shapes of at least 2 dimensions.

    Raises:
        ValueError: an argument has none of these values.

    Example:
        >>> from fdnn import random
        >>> weight = for_activation("leaky_relu", negative_slope=0.2)(random.key(0), (300, 300))
        >>> round(300 * weight.var().item(), 2)  # 2 / 1.04 = 1.92
        1.93

    References:
        He, Zhang, Ren, Sun (2015), "Delving deep into rectifiers"; Klambauer, Unterthiner, Mayr,
        Hochreiter (2017), "Self-normalizing neural networks"; Glorot, Bengio (2010),
        "Understanding the difficulty of training deep feedforward neural networks".
    """
    suited = _suited(name)
    family = suited if family is None else family
    if family not in ("he", "lecun", "glorot"):
        raise ValueError(f"`family` must be one of he, lecun, glorot, got {family!r}")
    scale = _scale(name, family, negative_slope)
    mistake = variance_mismatch(name, scale, (1, 1), negative_slope=negative_slope)
    if mistake:
        warnings.warn(
            f"`family` should be {suited!r} for {name}, got {family!r}: {mistake}", stacklevel=2
        )
    return variance_scaling(scale, "fan_avg" if family == "glorot" else mode, distribution)


def matching_variance(
    name: str, shape: Shape, *, negative_slope: float | None = None, mode: Mode = "fan_in"
) -> float:
    """Tell the variance of the weights that `for_activation` draws.

    Args:
        name: the activation that follows the weights.
        shape: shape of the weight, in torch's layout.
        negative_slope: as in `for_activation`.
        mode: as in `for_activation`.

    Returns:
        The variance.

    Raises:
        ValueError: `name` or `mode` is not known, or `shape` has fewer than 2 dimensions.

    Example:
        >>> matching_variance("relu", (100, 50)), matching_variance("selu", (100, 50))
        (0.04, 0.02)
    """
    family, (fan_in, fan_out) = _suited(name), fan_in_and_fan_out(shape)
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode not in fans:
        raise ValueError(f"`mode` must be one of {', '.join(fans)}, got {mode!r}")
    fan = fans["fan_avg" if family == "glorot" else mode]
    return _scale(name, family, negative_slope) / max(1, fan)


def variance_mismatch(
    name: str, variance: float, shape: Shape, *, negative_slope: float | None = None
) -> str | None:
    """Say what is wrong with the variance of the weights before an activation, if anything is.

    A variance passes if it is within a factor of sqrt(2), half of the way between LeCun's and He's,
    of the matching one for any n between fan_in and fan_out. More pass where the output is bounded
    (up to 25/9, torch's gain, for tanh and hardtanh, 16 for sigmoid, 1/3 to 2 for softmax), and 1
    to 2 for relu_squared and gated units, which no variance suits.

    Args:
        name: the activation that follows the weights.
        variance: of the weights: known, or measured.
        shape: shape of the weight, in torch's layout.
        negative_slope: as in `for_activation`.

    Returns:
        A sentence, without a full stop, or None if the two go together.

    Raises:
        ValueError: `name` is not known, or `shape` has fewer than 2 dimensions.

    Example:
        >>> variance_mismatch("selu", 1 / 300, (300, 300))
        >>> variance_mismatch("selu", 2 / 300, (300, 300))
        'the variance of the weights is 2 times what suits selu, so deep signals grow'
    """
    scale = _scale(name, _suited(name), negative_slope)
    least, most = _SERVE.get(name, (scale, scale))
    fans = fan_in_and_fan_out(shape)
    if variance < least / max(1, *fans) / _MARGIN:
        effect = "fade"
    elif variance > most / max(1, min(fans)) * _MARGIN:
        effect = "saturate" if name in _BOUNDED else "grow"
    else:
        return None
    times = variance / matching_variance(name, shape, negative_slope=negative_slope)
    return (
        f"the variance of the weights is {times:.3g} times what suits {name}, "
        f"so deep signals {effect}"
    )


def _suited(name: str) -> Family:
    if name not in _SUITED:
        raise ValueError(f"`name` must be one of {', '.join(sorted(_SUITED))}, got {name!r}")
    return _SUITED[name]


def _scale(name: str, family: Family, negative_slope: float | None) -> float:
    """The variance times the fan."""
    if family != "he":
        return 1.0
    slope = 0.0
    if name in _SLOPES:
        slope = _SLOPES[name] if negative_slope is None else negative_slope
    return 2 / (1 + slope * slope)
