"""An autoencoder with batch norm and dropout, and data, shared by the tests of pretraining."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fdnn import Model, functionalize, pretrain, random


class Task(NamedTuple):
    """What is pretrained, and on what.

    Attributes:
        model: an autoencoder of four features.
        inputs: (12, 4), float64.
        labels: (12,), three classes.
    """

    model: Model
    inputs: Tensor
    labels: Tensor


@pytest.fixture
def task() -> Task:
    encoder = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Dropout(0.3))
    net = pretrain.Autoencoder(encoder, nn.Linear(3, 4)).double()
    inputs = random.normal(random.key(1), (12, 4), torch.float64)
    return Task(functionalize(net), inputs, torch.arange(12) % 3)
