"""An optimizer that does not suit the run or the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fdnn import optim, tree
from fdnn.inspect.mistakes.report import Finding, listed
from fdnn.types import GradientTransformation, Params

__all__ = ["decay_mistakes", "schedule_mistakes"]

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_PROBE = 1e-3  # a parameter so small that a constraint on its size leaves it alone


def schedule_mistakes(tx: GradientTransformation, steps: int) -> list[Finding]:
    """Compare the length of an optimizer's schedules with that of the run."""
    length = getattr(tx, "total_steps", None)
    if length in (None, steps):
        return []
    if length > steps:
        effect = f"the run ends after {steps / length:.2g} of it, at a rate not meant for an end"
    else:
        effect = f"there is no rate for the last {steps - length} steps"
    return [
        Finding(
            "schedule length",
            "tx",
            f"the schedule has {length} steps, the run {steps}: {effect}",
            "total_steps = epochs * batches in an epoch, and one step of it for each batch, not "
            "for each epoch",
        )
    ]


def decay_mistakes(
    tx: GradientTransformation, module: nn.Module, params: Params
) -> list[Finding] | None:
    """Look for weight decay on the scales and shifts of norms; None if it cannot be seen.

    Decay is what moves a parameter towards 0 although its gradient is 0.
    """
    norms = [
        f"{path}.{name}" if path else name
        for path, layer in module.named_modules()
        if isinstance(layer, _NORMS)
        for name, _ in layer.named_parameters(recurse=False)
    ]
    norms = [name for name in norms if name in params]
    if not norms:
        return []
    moved = [_moved(tx, params, size) for size in (_PROBE, 0.0)]
    if any(update is None for update in moved) or any(
        (moved[1][name] != 0).any() for name in norms
    ):
        return None
    decayed = [name for name in norms if (moved[0][name] < 0).all()]
    if not decayed:
        return []
    return [
        Finding(
            "weight decay on norms",
            listed(decayed),
            "weight decay pulls the scales of norms to 0, which limits nothing (the next layer "
            "makes up for it) and slows training",
            "decay matrices only: `optim.add_decayed_weights(0.01, lambda path, leaf: leaf.ndim > "
            "1)`; a name does not tell a norm (it is 1.weight in an nn.Sequential)",
        )
    ]


def _moved(tx: GradientTransformation, params: Params, size: float) -> Any:
    """What a step adds to parameters of one size whose gradient is 0."""
    small = tree.map(lambda x: torch.full_like(x, size), params)
    try:
        tx = optim.with_extra_args(tx)
        return tx.update(tree.zeros_like(small), tx.init(small), small)[0]
    except (ArithmeticError, KeyError, RuntimeError, TypeError, ValueError):
        return None  # it evaluates the loss, or measures it
