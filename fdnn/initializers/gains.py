"""What scales are reckoned from: a weight's fans, and the gain before a nonlinearity."""

from __future__ import annotations

import math

from fdnn.types import Shape

__all__ = ["calculate_gain", "fan_in_and_fan_out"]

_LINEAR = ("linear", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)))
_GAINS = {
    **dict.fromkeys((*_LINEAR, "sigmoid"), 1.0),
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 3 / 4,
}


def fan_in_and_fan_out(shape: Shape) -> tuple[int, int]:
    """Count the inputs of one output and the outputs of one input.

    In torch's layout a weight is `(out, in, *kernel)`: fan_in = in * prod(kernel) and
    fan_out = out * prod(kernel). (JAX's layout is `(*kernel, in, out)`.)

    Args:
        shape: shape of the weight.

    Returns:
        fan_in and fan_out.

    Raises:
        ValueError: `shape` has fewer than 2 dimensions.

    Example:
        >>> fan_in_and_fan_out((8, 4, 3, 3))
        (36, 72)
    """
    if len(shape) < 2:
        raise ValueError(f"`shape` must have at least 2 dimensions, got {tuple(shape)}")
    receptive_field = math.prod(shape[2:])
    return shape[1] * receptive_field, shape[0] * receptive_field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Look up the gain that torch recommends before a nonlinearity.

    1 for linear layers and the sigmoid, 5/3 for tanh, sqrt(2) for relu,
    sqrt(2 / (1 + param^2)) for leaky_relu, 3/4 for selu; the names and the numbers are those of
    `torch.nn.init.calculate_gain`.

    Args:
        nonlinearity: a name: "linear", "conv1d" to "conv3d", "conv_transpose1d" to
            "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
        param: the negative slope of leaky_relu, 0.01 if left out; not used by the others.

    Returns:
        The factor on the standard deviation.

    Raises:
        ValueError: `nonlinearity` is no such name, or the slope is no number.

    Example:
        >>> round(calculate_gain("leaky_relu", 0.2), 4)
        1.3868
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            raise ValueError(f"`param` must be a number for leaky_relu, got {param!r}")
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        names = ", ".join((*_GAINS, "leaky_relu"))
        raise ValueError(f"`nonlinearity` must be one of {names}, got {nonlinearity!r}")
    return _GAINS[nonlinearity]
