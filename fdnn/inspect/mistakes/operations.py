"""Kinds of operations, by the names of torch's functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from fdnn.inspect.mistakes.trace import Op, upstream

__all__ = [
    "ACTIVATIONS",
    "BATCH_NORMS",
    "DROPOUTS",
    "NORMS",
    "POOLING",
    "SHAPING",
    "WEIGHTED",
    "Activation",
    "activation",
    "weight_and_bias",
    "weighted_before",
]

WEIGHTED = {"linear", *(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3))}
BATCH_NORMS = {"batch_norm", "instance_norm"}
NORMS = BATCH_NORMS | {"layer_norm", "group_norm", "rms_norm", "local_response_norm", "normalize"}
DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d"}
_ALPHA_DROPOUTS = {"alpha_dropout", "feature_alpha_dropout"}
POOLING = {
    f"{kind}{n}d"
    for kind in ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool")
    for n in (1, 2, 3)
}
SHAPING = {
    *("chunk", "clone", "contiguous", "expand", "flatten", "get", "getitem", "movedim", "narrow"),
    *("permute", "reshape", "select", "split", "squeeze", "swapaxes", "t", "to", "transpose"),
    *("double", "float", "unbind", "unflatten", "unsqueeze", "view"),
}
# A function's name, and what `fdnn.initializers.for_activation` calls it.
_MATCHED = {
    name: name
    for name in (
        *("celu", "elu", "geglu", "gelu", "glu", "hardswish", "leaky_relu", "mish", "prelu"),
        *("reglu", "relu", "relu_squared", "rrelu", "selu", "sigmoid", "silu", "softplus"),
        *("swiglu", "swish", "tanh"),
    )
} | {"hardtanh": "hardtanh", "relu6": "relu"}
ACTIVATIONS = {
    *_MATCHED,
    *("hardsigmoid", "log_sigmoid", "log_softmax", "softmax", "softmin", "softsign"),
}
_BETWEEN = SHAPING | POOLING | DROPOUTS | _ALPHA_DROPOUTS


class Activation(NamedTuple):
    """An activation and what is known of it.

    Attributes:
        name: the function's; "relu6" also for a hardtanh from 0 on, as which torch computes it.
        matched: what `initializers.for_activation` calls it, None if it does not know it.
        negative_slope: its slope left of 0, if it is a leaky relu of some kind.
    """

    name: str
    matched: str | None
    negative_slope: float | None


def activation(op: Op) -> Activation | None:
    """Tell what activation an operation is, if it is one."""
    if op.name not in ACTIVATIONS:
        return None
    name, slope = op.name, None
    if name == "hardtanh" and op.argument(1, "min_val", -1.0) == 0:
        name = "relu6"
    elif name == "leaky_relu":
        slope = float(op.argument(1, "negative_slope", 0.01))
    elif name == "prelu":
        slope = float(op.argument(1, "weight").detach().mean())
    elif name == "rrelu":
        slope = (op.argument(1, "lower", 1 / 8) + op.argument(2, "upper", 1 / 3)) / 2
    return Activation(name, _MATCHED.get(name), slope)


def weighted_before(ops: Sequence[Op], op: Op) -> int | None:
    """Find the linear map or convolution that an operation directly works on, by its place.

    Shapes, pooling and dropout may lie between: they keep the size of a signal, roughly. A norm or
    a sum of several ways may not.
    """
    place = upstream(ops, op, _BETWEEN)
    return place if place is not None and ops[place].name in WEIGHTED else None


def weight_and_bias(op: Op) -> tuple[Tensor, Tensor | None]:
    """Return what a linear map or a convolution multiplies by and what it adds."""
    return op.argument(1, "weight"), op.argument(2, "bias")
