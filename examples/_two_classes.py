"""The chapter's cut of Fashion-MNIST: eight classes to learn from, and two that are left out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import data, metrics

HELD_OUT = (0, 2)  # T-shirt, pullover


class Task(NamedTuple):
    """The two held-out classes, in the book's order: 4 980 images before `test` are not used."""

    pool: data.Batch
    test: data.Batch


def divide(splits: data.Splits) -> tuple[data.Batch, Task]:
    """Cut the data by class: eight classes for model A, two for model B."""
    inputs = torch.cat([part.inputs for part in splits]).flatten(1)
    targets = torch.cat([part.targets for part in splits])
    held_out = (targets == HELD_OUT[0]) | (targets == HELD_OUT[1])
    kept = [i for i in range(10) if i not in HELD_OUT]
    number = torch.full((10,), -1).scatter(0, torch.tensor(kept), torch.arange(8))
    others = data.Batch(inputs[~held_out][:49_000], number[targets[~held_out][:49_000]])
    x, y = inputs[held_out], (targets[held_out] == HELD_OUT[1]).float()[:, None]
    return others, Task(data.Batch(x[:5000], y[:5000]), data.Batch(x[5000:], y[5000:]))


def binary_accuracy() -> metrics.Metric:
    """The share of logits whose sign is right."""
    both = metrics.accuracy()

    def update(state: Any, output: Tensor, target: Tensor) -> Any:
        return both.update(state, torch.cat([-output, output], 1), target[:, 0].long())

    return metrics.Metric(both.init, update, both.compute)
