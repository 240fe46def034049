"""Weights that do not suit the activation that follows them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fdnn.initializers import matching_variance, variance_mismatch
from fdnn.inspect.mistakes.operations import (
    ACTIVATIONS,
    DROPOUTS,
    NORMS,
    POOLING,
    SHAPING,
    WEIGHTED,
    Activation,
    activation,
    weight_and_bias,
    weighted_before,
)
from fdnn.inspect.mistakes.report import Finding, listed
from fdnn.inspect.mistakes.trace import Op, upstream

__all__ = ["IN_A_ROW", "TOTAL", "initialization_mistakes"]

# Torch's default before ReLU, the mildest case that matters, loses a factor of sqrt(6) a layer. One
# or two such layers train well (a factor of 6 in all); with three it is 15, and from there on each
# further layer learns more slowly still.
IN_A_ROW = 3
# One layer may be so wrong that it counts alone: weights of standard deviation 1 behind 784 inputs.
TOTAL = 10.0
# A variance is accused only if weights of a right one would be this many standard errors off: the
# mean square of 10 normal weights is easily twice or half of what it should be.
STANDARD_ERRORS = 3.0


class _Layer(NamedTuple):
    """Weights before an activation.

    Attributes:
        op: what multiplies by them.
        follows: the activation.
        mismatch: what `variance_mismatch` says.
        factor: the standard deviation over the matching one.
    """

    op: Op
    follows: Activation
    mismatch: str | None
    factor: float


def initialization_mistakes(ops: Sequence[Op]) -> list[Finding]:
    """Compare the weights' variance with the activation that follows, in order of execution."""
    layers = _layers(ops)
    found = []
    equal = [layer.op.where for layer in layers.values() if _rows_are_equal(layer.op)]
    if equal:
        found.append(
            Finding(
                "equal weights",
                listed(equal),
                "all units of a layer have the same weights: they stay alike for ever, as one unit",
                "draw the weights: `model.init(key)`",
            )
        )
    groups: dict[Activation, dict[str, _Layer]] = defaultdict(dict)
    for row in _rows_of_mismatches(ops, layers):
        factor = math.prod(layer.factor for layer in row)
        if len(row) >= IN_A_ROW or not 1 / TOTAL <= factor <= TOTAL:
            for layer in row:
                if layer.op.where not in equal:
                    groups[layer.follows][layer.op.where] = layer
    for follows, members in groups.items():
        worst = max(members.values(), key=lambda layer: abs(_log(layer.factor)))
        slope = follows.negative_slope
        named = f'"{follows.matched}"' + ("" if slope is None else f", negative_slope={slope:.3g}")
        found.append(
            Finding(
                "initialization",
                listed(list(members)),
                f"{worst.mismatch} (in {worst.op.where})",
                f"`model.init(key, weight=initializers.for_activation({named}))`, "
                "or a norm before the activation",
            )
        )
    return found


def _layers(ops: Sequence[Op]) -> dict[int, _Layer]:
    """Weights that an activation directly follows, and other weights behind that."""
    through = SHAPING | POOLING | DROPOUTS
    normed = {upstream(ops, op, through) for op in ops if op.name in NORMS}
    last = max((place for place, op in enumerate(ops) if op.name in WEIGHTED), default=-1)
    layers = {}
    for place, op in enumerate(ops):
        follows = activation(op)
        before = weighted_before(ops, op)
        if follows is None or follows.matched is None or before is None or place > last:
            continue
        if place not in normed:
            layers[before] = _judged(ops[before], follows)
    return layers


def _judged(op: Op, follows: Activation) -> _Layer:
    weight, name = weight_and_bias(op)[0].detach().double(), follows.matched
    assert name is not None
    slope = follows.negative_slope
    suited = matching_variance(name, weight.shape, negative_slope=slope)
    squares = weight.square()
    measured = squares.mean().item()
    spread = squares.std(correction=0).item() / measured if measured > 0 else 0.0
    # A normal distribution's is sqrt(2); few weights may show less.
    error = STANDARD_ERRORS * max(spread, math.sqrt(2)) / math.sqrt(max(1, squares.numel()))
    if measured > suited:
        nearest = max(suited, measured / (1 + error))
    else:
        nearest = suited if error >= 1 else min(suited, measured / (1 - error))
    mismatch = None
    if variance_mismatch(name, nearest, weight.shape, negative_slope=slope):
        mismatch = variance_mismatch(name, measured, weight.shape, negative_slope=slope)
    return _Layer(op, follows, mismatch, math.sqrt(measured / suited))


def _rows_of_mismatches(ops: Sequence[Op], layers: dict[int, _Layer]) -> list[list[_Layer]]:
    """Mismatched layers that lie one behind the other, without a norm or a sum between them.

    A layer that is as it should be between two others keeps what the first has done.
    """
    through = ACTIVATIONS | SHAPING | POOLING | DROPOUTS
    rows: dict[int, list[_Layer]] = {}
    for place, op in enumerate(ops):
        if op.name in WEIGHTED:
            before = upstream(ops, op, through)
            row = [] if before is None else rows.get(before, [])
            own = layers.get(place)
            rows[place] = row if own is None or own.mismatch is None else [*row, own]
    return list(rows.values())


def _rows_are_equal(op: Op) -> bool:
    weight: Tensor = weight_and_bias(op)[0].detach()
    return len(weight) > 1 and bool(torch.equal(weight, weight[:1].expand_as(weight)))


def _log(factor: float) -> float:
    return math.log(factor) if factor > 0 else -math.inf
