"""Layers that do not go together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from checked import (
    KEY,
    Written,
    classes,
    fine,
    look,
    normal,
    only,
)
from torch import Tensor, nn

from fdnn import functionalize
from fdnn import nn as fnn


@pytest.mark.parametrize("dropout", [nn.Dropout(0.2), nn.Dropout1d(), fnn.MCDropout(0.2)], ids=str)
def test_dropout_with_selu(dropout: nn.Module) -> None:
    module = nn.Sequential(nn.Linear(10, 8), nn.SELU(), dropout, nn.Linear(8, 3))
    report = look(module)
    only(report, "dropout with selu", "2", "AlphaDropout")
    batch = normal(32, 10), classes()
    only(look(module, batch, F.cross_entropy, key=KEY), "dropout with selu", "2")


def test_dropout_that_does_not_hurt_selu() -> None:
    for dropout in (nn.AlphaDropout(0.1), nn.Dropout(0.0), fnn.MCAlphaDropout(0.1)):
        fine(look(nn.Sequential(nn.Linear(10, 8), nn.SELU(), dropout)))
    fine(look(nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Dropout())))


def test_dropout_with_selu_as_functions() -> None:
    def last(x: Tensor) -> Tensor:
        return F.dropout(F.selu(x), 0.1)

    report = look(Written(last), (normal(8, 10), None), key=KEY)
    only(report, "dropout with selu", "dropout()")


@pytest.mark.parametrize(
    ("layers", "x"),
    [
        ((nn.Linear(10, 8), nn.BatchNorm1d(8)), normal(32, 10)),
        ((nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8)), normal(8, 2, 6, 6)),
        ((nn.Conv2d(2, 8, 3), nn.MaxPool2d(2), nn.BatchNorm2d(8)), normal(8, 2, 6, 6)),
        ((nn.Conv1d(2, 8, 3), nn.InstanceNorm1d(8)), normal(8, 2, 6)),
    ],
)
def test_bias_before_batch_norm(layers: tuple[nn.Module, ...], x: Tensor) -> None:
    only(look(nn.Sequential(*layers), (x, None)), "bias before batch norm", "0", "bias=False")


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Linear(10, 8, bias=False), nn.BatchNorm1d(8)),
        (nn.Linear(10, 8), nn.ReLU(), nn.BatchNorm1d(8)),
        (nn.Linear(10, 8), nn.LayerNorm(8)),
        (nn.Unflatten(1, (5, 2)), nn.Linear(2, 8), nn.BatchNorm1d(5)),  # of places, not of units
    ],
)
def test_bias_that_has_an_effect(layers: tuple[nn.Module, ...]) -> None:
    fine(look(nn.Sequential(*layers), (normal(32, 10), None)))


def test_bias_before_batch_norm_has_no_effect() -> None:
    """What the report says is so."""
    model = functionalize(nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8)))
    x = normal(32, 10)
    shifted = model.params | {"0.bias": model.params["0.bias"] + 5}
    outputs = [model.apply(p, model.buffers, x, train=True)[0] for p in (model.params, shifted)]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)


def test_batch_norm_with_a_batch_of_one() -> None:
    module = nn.Sequential(nn.Linear(10, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3))
    report = look(module, (normal(1, 10), classes(1)), F.cross_entropy)
    only(report, "batch norm with a batch of one", "1", "larger batches")
    images = nn.Sequential(nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8))
    report = look(images, (normal(1, 2, 6, 6), None))
    only(report, "batch norm with a batch of one", "1")
    fine(look(module, (normal(2, 10), classes(2)), F.cross_entropy))
