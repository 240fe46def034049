"""What a model ends in, and the loss that it goes into."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from fdnn.inspect.mistakes.loss import (
    BINARY,
    CLASSES,
    OF_LOGITS,
    REGRESSION,
    SUMS_TO_1,
    Loss,
    extent,
)
from fdnn.inspect.mistakes.operations import SHAPING, activation
from fdnn.inspect.mistakes.report import Finding
from fdnn.inspect.mistakes.trace import GIVEN, Op

__all__ = ["output_mistakes"]

_SQUASHING = {"softmax", "log_softmax", "softmin", "sigmoid", "hardsigmoid", "log_sigmoid"}
# What an activation can return. Targets outside are out of the model's reach.
_RANGES = {
    "celu": (-1.0, math.inf),
    "elu": (-1.0, math.inf),
    "gelu": (-0.17, math.inf),
    "hardsigmoid": (0.0, 1.0),
    "hardswish": (-0.375, math.inf),
    "hardtanh": (-1.0, 1.0),
    "log_sigmoid": (-math.inf, 0.0),
    "log_softmax": (-math.inf, 0.0),
    "mish": (-0.309, math.inf),
    "selu": (-1.759, math.inf),
    "sigmoid": (0.0, 1.0),
    "silu": (-0.279, math.inf),
    "softmax": (0.0, 1.0),
    "softmin": (0.0, 1.0),
    "softplus": (0.0, math.inf),
    "softsign": (-1.0, 1.0),
    "swish": (-0.279, math.inf),
    "tanh": (-1.0, 1.0),
}
# No gradient left of 0: an output that gets there stays.
_FLAT = {"relu", "relu6", "relu_squared"}


def output_mistakes(loss: Loss, source: int | None, ops: Sequence[Op]) -> list[Finding]:
    """Look for an activation at the end of the model that does not go with the loss.

    Args:
        loss: the call.
        source: which operation made its input.
        ops: what came before.
    """
    last = _last(source, ops)
    known = None if last is None else activation(last)
    name = None if known is None else known.name
    where = "output" if last is None else last.where
    if loss.name in REGRESSION:
        return _bounded(loss, last, name, where)
    if loss.name in OF_LOGITS:
        if name not in _SQUASHING and loss.name in CLASSES:
            name = _distribution(loss.input) or name
        binary = loss.name in BINARY
        if name in _SQUASHING:
            effect = "changes nothing" if name == "log_softmax" else "bounds its gradient"
            return [
                Finding(
                    "sigmoid before binary cross-entropy"
                    if binary
                    else "softmax before cross-entropy",
                    where,
                    f"{loss.name} takes logits and applies its own "
                    f"{'sigmoid' if binary else 'log-softmax'}; the {name} before it {effect}",
                    f"leave the {name} out; apply it to logits where probabilities are wanted",
                )
            ]
        if name in _FLAT:
            return [_output_activation(name, where, f"{loss.name} takes logits of either sign")]
    if loss.name == "nll_loss" and _distribution(loss.input) != "log_softmax":
        return [
            Finding(
                "logits into nll_loss",
                where,
                "nll_loss takes logarithms of probabilities, but the outputs are none",
                "use cross_entropy, or end the model in a log-softmax",
            )
        ]
    return []


def _bounded(loss: Loss, last: Op | None, name: str | None, where: str) -> list[Finding]:
    """Look for an output that the targets of a regression do not stay within."""
    x, y = loss.input.detach(), loss.target
    if name in _FLAT:
        return [_output_activation(name, where, "a regression predicts any number")]
    if last is not None and name in _RANGES and y.numel():
        low, high = _range(last, name)
        if y.min() < low or y.max() > high:
            reach = f"the model returns numbers in [{low}, {high}], the targets are {extent(y)}"
            return [_output_activation(name, where, reach)]
    if name is None and x.numel() and x.min() == 0 and x.max() > 0:
        return [
            _output_activation(
                "floor", where, f"outputs are never below 0, and {_share(x == 0)} are exactly 0"
            )
        ]
    return []


def _output_activation(name: str, where: str, why: str) -> Finding:
    flat = "; where it is flat, nothing is learned" if name in _FLAT | {"floor"} else ""
    return Finding(
        "output activation",
        where,
        f"the model ends in a {name}, but {why}{flat}",
        "let the last layer be linear; for targets above 0 use softplus, for bounded ones rescale "
        "a sigmoid or tanh, for logits nothing",
    )


def _range(op: Op, name: str) -> tuple[float, float]:
    low, high = _RANGES[name]
    if name == "hardtanh":
        return op.argument(1, "min_val", low), op.argument(2, "max_val", high)
    return (-op.argument(1, "alpha", 1.0), high) if name in ("elu", "celu") else (low, high)


def _last(source: int | None, ops: Sequence[Op]) -> Op | None:
    """The operation that an output comes from, reshaping left out."""
    while source is not None and source != GIVEN:
        op = ops[source]
        if op.name not in SHAPING:
            return op
        source = op.sources[0]
    return None


def _distribution(x: Tensor) -> str | None:
    """Tell what kind of distribution the rows of an output are, if they are."""
    if not x.is_floating_point() or x.ndim == 0 or x.numel() == 0:
        return None
    dim = min(1, x.ndim - 1)
    if x.shape[dim] < 2:
        return None
    x = x.detach()
    if x.min() >= 0 and ((x.sum(dim) - 1).abs() < SUMS_TO_1).all():
        return "softmax"
    return "log_softmax" if (x.logsumexp(dim).abs() < SUMS_TO_1).all() else None


def _share(where: Tensor) -> str:
    return f"{100 * where.double().mean().item():.0f} %"
