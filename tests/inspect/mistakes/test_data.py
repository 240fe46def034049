"""Inputs that are not scaled or not finite."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from checked import fine, look, mistakes, normal, only
from torch import Tensor, nn


@pytest.mark.parametrize(
    "x",
    [
        255 * normal(32, 10).sigmoid(),
        normal(32, 10) + torch.tensor([2020.0] + 9 * [0.0]),
        normal(32, 10) * torch.tensor([1000.0] + 9 * [1.0]),
        normal(32, 10) / 1000,
    ],
)
def test_inputs_that_are_not_scaled(x: Tensor) -> None:
    only(look(nn.Linear(10, 3), (x, None)), "inputs not scaled", cure="standard deviation")


class Divide(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 255


def test_inputs_of_images() -> None:
    module = nn.Conv2d(3, 8, 3)
    x = normal(8, 3, 6, 6).sigmoid()
    fine(look(module, (x, None)))
    only(look(module, (255 * x, None)), "inputs not scaled", cure="divide by 255")
    fine(look(nn.Sequential(nn.BatchNorm2d(3), module), (255 * x, None)))
    fine(look(nn.Sequential(Divide(), module), (255 * x, None)))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    only(look(flat, (255 * x, None)), "inputs not scaled", "inputs of 1")


def test_selu_presumes_standardized_inputs() -> None:
    x = normal(64, 10).sigmoid()  # mean 0.5, standard deviation 0.2
    relu, selu = (nn.Sequential(nn.Linear(10, 8), last) for last in (nn.ReLU(), nn.SELU()))
    fine(look(relu, (x, None)))
    only(look(selu, (x, None)), "inputs not scaled", cure="standard deviation")
    fine(look(selu, ((x - 0.5) / 0.2, None)))


def test_tokens_and_sequences() -> None:
    fine(look(nn.Embedding(500, 8), (torch.arange(500)[None], None)))
    x = 100 * normal(4, 6, 8)
    only(look(nn.GRU(8, 8, batch_first=True), (x, None)), "inputs not scaled")


def test_what_is_not_finite_in_a_batch() -> None:
    x, y = normal(32, 10), normal(32, 3)
    x[3, 4] = torch.inf
    report = look(nn.Linear(10, 3), (x, y), F.mse_loss)
    assert mistakes(report) == ["inputs not finite", "inputs not scaled"][: len(report)]
    y[0, 0] = torch.nan
    report = look(nn.Linear(10, 3), (normal(32, 10), y), F.mse_loss)
    only(report, "targets not finite", "target", "drop")
