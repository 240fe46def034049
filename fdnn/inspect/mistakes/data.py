"""Inputs that are no food for a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fdnn.inspect.layers import tensors
from fdnn.inspect.mistakes.operations import POOLING, SHAPING, WEIGHTED
from fdnn.inspect.mistakes.report import Finding
from fdnn.inspect.mistakes.trace import GIVEN, Op

__all__ = ["LARGE", "SMALL", "finite_mistakes", "scale_mistakes"]

# Weights are drawn for inputs of variance 1, and the gradient of the first layer's weights is
# proportional to its input: a factor of 10 asks for another learning rate than all other layers.
LARGE = 10.0
# Smaller by as much again, since the biases still let such a network begin to learn.
SMALL = 0.01
# What selu forgives: its fixed point attracts variances up to 1.5 and means up to 0.1 in the proof
# of the paper, and somewhat more in practice; images in [0, 1] (mean 0.29, deviation 0.35) are out.
SELU_MEAN = 0.5
SELU_STD = (0.5, 2.0)

_ENTRIES = WEIGHTED | {"recurrent"}
_RAW = (
    SHAPING
    | POOLING
    | {"add", "cat", "clamp", "concat", "div", "exp", "expm1", "log", "log1p", "mul", "pad", "pow"}
    | {"rsub", "sqrt", "stack", "sub", "true_divide", "truediv"}
)


def finite_mistakes(inputs: Any, target: Any) -> list[Finding]:
    """Look for nan and infinity in a batch."""
    found = []
    for where, value in (("inputs", inputs), ("target", target)):
        bad = sum(int((~x.isfinite()).sum()) for x in tensors(value) if x.is_floating_point())
        if bad:
            found.append(
                Finding(
                    f"{'inputs' if where == 'inputs' else 'targets'} not finite",
                    where,
                    f"{bad} numbers are nan or infinite, and everything computed from them will be",
                    "drop these examples, or fill in the training set's mean or median",
                )
            )
    return found


def scale_mistakes(ops: Sequence[Op]) -> list[Finding]:
    """Look at what comes into the first layers with weights, rescaling on the way included."""
    selu = any(op.name == "selu" for op in ops)
    raw: list[bool] = []
    for op in ops:
        begins = all(source == GIVEN or raw[source] for source in op.sources)
        raw.append(begins and op.name in _RAW)
        if begins and op.name in _ENTRIES and op.input is not None:
            problem = _scale(op.input.detach(), op.name.startswith("conv"), selu)
            if problem:
                return [
                    Finding(
                        "inputs not scaled",
                        f"inputs of {op.where}",
                        problem,
                        "subtract the training set's mean from each feature and divide by its "
                        "standard deviation (images in 0..255: divide by 255 first); the same "
                        "numbers for validation and test",
                    )
                ]
    return []


def _scale(x: Tensor, channels_first: bool, selu: bool) -> str | None:
    if not x.is_floating_point() or x.numel() < 2 or x.ndim < 2:
        return None
    x = x.double()
    dim = 1 if channels_first and x.ndim > 2 else -1
    features = x.movedim(dim, 0).flatten(1)
    means, stds = features.mean(1), features.std(1, correction=0)
    mean, std = x.mean().item(), x.std(correction=0).item()
    if means.abs().max() > LARGE or stds.max() > LARGE:
        worst = int((means.abs() + stds).argmax())
        return (
            f"feature {worst} has mean {means[worst].item():.3g} and standard deviation "
            f"{stds[worst].item():.3g}; weights are drawn for about 0 and 1"
        )
    if 0 < std < SMALL and abs(mean) < SMALL:
        return f"standard deviation {std:.3g} and mean {mean:.3g}: next to nothing comes in"
    low, high = SELU_STD
    if selu and (abs(mean) > SELU_MEAN or not low < std < high):
        return f"mean {mean:.3g} and standard deviation {std:.3g}; selu presumes 0 and 1"
    return None
