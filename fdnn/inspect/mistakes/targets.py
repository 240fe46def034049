"""Targets that a loss cannot take, or would take in another sense."""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn.inspect.mistakes.loss import BINARY, CLASSES, SUMS_TO_1, Loss, extent
from fdnn.inspect.mistakes.report import Finding

__all__ = ["target_mistakes"]


def target_mistakes(loss: Loss) -> list[Finding]:
    """Look for targets that the loss cannot take, or would take in another sense."""
    if loss.name in CLASSES:
        return _class_mistakes(*loss)
    name, x, y, _ = loss
    if x.shape != y.shape:
        wide = _broadcast(x, y)
        effect = "differ" if wide is None else f"would be broadcast to {wide}, one with another"
        return [
            Finding(
                "target shape",
                "target",
                f"outputs of shape {tuple(x.shape)} and targets of shape {tuple(y.shape)} {effect}",
                "give both one shape: `target.unsqueeze(-1)`, or `output.squeeze(-1)`",
            )
        ]
    if name in BINARY and y.numel() and not ((y >= 0) & (y <= 1)).all():
        return [
            Finding(
                "labels out of range",
                "target",
                f"{name} takes targets in [0, 1], got {extent(y)}",
                "map the two classes to 0 and 1; for more than two use cross_entropy",
            )
        ]
    if name == "binary_cross_entropy" and x.numel() and not ((x >= 0) & (x <= 1)).all():
        return [
            Finding(
                "logits into binary cross-entropy",
                "output",
                f"{name} takes probabilities, got {extent(x)}",
                "use binary_cross_entropy_with_logits, which takes what the model returns",
            )
        ]
    return []


def _class_mistakes(name: str, x: Tensor, y: Tensor, ignore_index: int) -> list[Finding]:
    dim = min(1, x.ndim - 1)
    classes = x.shape[dim]
    shape = (*x.shape[:dim], *x.shape[dim + 1 :])

    def found(mistake: str, problem: str, cure: str) -> list[Finding]:
        return [Finding(mistake, "target", problem, cure)]

    if y.is_floating_point() and y.shape == x.shape and name == "cross_entropy":
        sums = y.sum(dim)
        if y.min() >= 0 and ((sums - 1).abs() < SUMS_TO_1).all():
            return []
        return found(
            "labels out of range",
            f"float targets of the outputs' shape are probabilities, but they are {extent(y)} and "
            f"their sums {extent(sums)}",
            "let each row be at least 0 and sum to 1, or give class indices (int64)",
        )
    if y.shape != shape:
        return found(
            "target shape",
            f"outputs of shape {tuple(x.shape)} need class indices of shape {shape}, got "
            f"{tuple(y.shape)}",
            "`target.squeeze(1)`; of one-hot rows `target.argmax(1)`",
        )
    if y.dtype not in (torch.int64, torch.uint8):
        return found(
            "labels out of range",
            f"class indices are int64, got {y.dtype}",
            "`target.long()`; if the targets are quantities, use a loss for regression",
        )
    counted = y[y != ignore_index]
    if counted.numel() and (counted.min() < 0 or counted.max() >= classes):
        return found(
            "labels out of range",
            f"{classes} outputs stand for the labels 0 to {classes - 1}, got {extent(counted)}",
            "number the labels from 0 on, or give the last layer an output for each; mark what "
            "does not count by `ignore_index`",
        )
    if classes == 1:
        return found(
            "one class",
            f"{name} of one output is always 0: it compares classes with each other",
            "use two outputs, or one with binary_cross_entropy_with_logits",
        )
    return []


def _broadcast(x: Tensor, y: Tensor) -> tuple[int, ...] | None:
    try:
        return tuple(torch.broadcast_shapes(x.shape, y.shape))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None
