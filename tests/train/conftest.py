"""A small task, shared by the tests of training."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, vmap

from fdnn import Model, functionalize, optim, random, train
from fdnn.train.step import Step


class Task(NamedTuple):
    """A classifier with dropout and batch norm, its step, and data that it can learn."""

    model: Model
    step: Step
    inputs: Tensor
    targets: Tensor

    @property
    def data(self) -> tuple[Tensor, Tensor]:
        return self.inputs, self.targets

    def begin(self, seed: int = 0) -> train.TrainState:
        return train.init(self.model, TX, random.key(seed))

    def begin_many(self, lanes: int = 3) -> train.TrainState:
        keys = torch.stack([random.key(seed) for seed in range(lanes)])
        return vmap(lambda key: train.init(self.model, TX, key))(keys)


TX = optim.sgd(lr=0.05, momentum=0.5)


@pytest.fixture(scope="session")
def task() -> Task:
    model = functionalize(
        nn.Sequential(
            nn.Linear(5, 16, bias=False),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(16, 3),
        )
    )
    inputs = random.normal(random.key(1), (50, 5))
    targets = (inputs @ random.normal(random.key(2), (5, 3))).argmax(1)
    step = train.make_step(train.supervised(model, F.cross_entropy), TX)
    return Task(model, step, inputs, targets)
