"""A pretrained model and data, shared by the tests of transfer."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fdnn import Model, functionalize, random


class Task(NamedTuple):
    """A classifier with batch norm, not as it was born, and data.

    Attributes:
        module: the module of torch.
        model: its functional form.
        inputs: (20, 4), float64.
        targets: (20,), three classes.
    """

    module: nn.Module
    model: Model
    inputs: Tensor
    targets: Tensor

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        return self.inputs, self.targets


@pytest.fixture
def task() -> Task:
    module = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(),
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(),
        nn.Linear(5, 3),
    ).double()  # fmt: skip
    inputs = random.normal(random.key(1), (20, 4), torch.float64)
    for _ in range(3):  # running statistics of their own
        module(inputs * 2 + 1)
    targets = random.randint(random.key(2), (20,), 0, 3, torch.int64)
    return Task(module, functionalize(module), inputs, targets)
