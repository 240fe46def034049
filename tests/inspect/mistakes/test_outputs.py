"""Output activations that do not fit the loss, and losses that do not fit the output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checked import (
    CLASSIFIERS,
    REGRESSIONS,
    Written,
    classes,
    fine,
    look,
    normal,
    only,
)
from torch import nn

from fdnn import losses
from fdnn import nn as fnn

LAST = [nn.Linear(10, 1)]


@pytest.mark.parametrize("criterion", REGRESSIONS)
def test_regression_that_ends_in_relu(criterion: Any) -> None:
    """D14 of the chapter: a regression demo whose last layer is a ReLU."""
    batch = normal(32, 10), normal(32, 1, seed=1)
    only(
        look(nn.Sequential(*LAST, nn.ReLU()), batch, criterion), "output activation", "1", "linear"
    )
    fine(look(nn.Sequential(*LAST), batch, criterion))


@pytest.mark.parametrize(
    "last",
    [
        *(nn.ReLU6(), nn.Sigmoid(), nn.Tanh(), nn.Hardtanh(-0.5, 0.5), nn.Softplus(), nn.ELU()),
        *(nn.Softsign(), fnn.ReLUSquared(), nn.SELU(), nn.Hardsigmoid(), fnn.Swish()),
    ],
    ids=str,
)
def test_regression_that_ends_in_another_activation(last: nn.Module) -> None:
    batch = normal(32, 10), 3 * normal(32, 1, seed=1)
    report = look(nn.Sequential(*LAST, last, nn.Flatten()), batch, F.mse_loss)
    only(report, "output activation", "1")


def test_bounded_outputs_for_bounded_targets_are_right() -> None:
    """An autoencoder of images ends in a sigmoid; counts may come from a softplus."""
    x, share = normal(32, 10), normal(32, 1, seed=1).sigmoid()
    fine(look(nn.Sequential(*LAST, nn.Sigmoid()), (x, share), F.mse_loss))
    fine(look(nn.Sequential(*LAST, nn.Tanh()), (x, 2 * share - 1), F.mse_loss))
    fine(look(nn.Sequential(*LAST, nn.Softplus()), (x, 9 * share), F.l1_loss))
    fine(look(nn.Sequential(*LAST, nn.ELU(alpha=9.0)), (x, -8 * share), F.l1_loss))
    only(look(nn.Sequential(*LAST, nn.ReLU()), (x, share), F.mse_loss), "output activation")


@pytest.mark.parametrize(
    "last", [F.relu, torch.relu, lambda x: x.clamp(min=0), lambda x: torch.maximum(x, 0 * x)]
)
def test_outputs_with_a_floor_are_seen_in_functions_and_by_what_they_do(last: Any) -> None:
    batch = normal(32, 10), normal(32, 1, seed=1)
    only(look(Written(last), batch, F.mse_loss), "output activation", cure="softplus")
    fine(look(Written(lambda x: 5 * torch.tanh(x)), batch, F.mse_loss))
    fine(look(Written(lambda x: 0 * x), batch, F.mse_loss))  # a head of zeros


@pytest.mark.parametrize("criterion", CLASSIFIERS)
def test_softmax_before_cross_entropy(criterion: Any) -> None:
    batch = normal(32, 10), classes()
    for last in (nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()):
        report = look(nn.Sequential(nn.Linear(10, 3), last), batch, criterion)
        only(report, "softmax before cross-entropy", "1", "leave the")
    fine(look(nn.Linear(10, 3), batch, criterion))
    report = look(nn.Sequential(nn.Linear(10, 3), nn.ReLU()), batch, criterion)
    only(report, "output activation", "1")


@pytest.mark.parametrize(
    "last", [lambda x: x.exp() / x.exp().sum(1, keepdim=True), lambda x: x - x.logsumexp(1, True)]
)
def test_softmax_is_seen_by_what_it_does(last: Any) -> None:
    report = look(Written(last, 3), (normal(32, 10), classes()), F.cross_entropy)
    only(report, "softmax before cross-entropy")


def test_softmax_inside_the_criterion() -> None:
    report = look(
        nn.Linear(10, 3),
        (normal(32, 10), classes()),
        lambda x, y: F.cross_entropy(x.softmax(1), y),
    )
    only(report, "softmax before cross-entropy", "criterion")


@pytest.mark.parametrize(
    "criterion",
    [
        F.binary_cross_entropy_with_logits,
        nn.BCEWithLogitsLoss(),
        losses.binary_cross_entropy_with_logits,
        losses.sigmoid_focal_loss,
    ],
)
def test_sigmoid_before_binary_cross_entropy(criterion: Any) -> None:
    batch = normal(32, 10), classes(count=2)[:, None].float()
    report = look(nn.Sequential(*LAST, nn.Sigmoid()), batch, criterion)
    only(report, "sigmoid before binary cross-entropy", "1", "leave the sigmoid out")
    fine(look(nn.Sequential(*LAST), batch, criterion))


def test_losses_of_probabilities_want_what_the_others_do_not() -> None:
    x, y = normal(32, 10), classes(count=2)
    only(look(nn.Linear(10, 2), (x, y), F.nll_loss), "logits into nll_loss", cure="cross_entropy")
    fine(look(nn.Sequential(nn.Linear(10, 2), nn.LogSoftmax(1)), (x, y), F.nll_loss))
    one = y[:, None].float()
    only(
        look(nn.Linear(10, 1), (x, one), F.binary_cross_entropy),
        "logits into binary cross-entropy",
        cure="binary_cross_entropy_with_logits",
    )
    fine(look(nn.Sequential(*LAST, nn.Sigmoid()), (x, one), F.binary_cross_entropy))
