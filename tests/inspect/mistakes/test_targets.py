"""Targets that a loss cannot take."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checked import (
    CLASSIFIERS,
    REGRESSIONS,
    classes,
    fine,
    look,
    normal,
    only,
)
from torch import nn

from fdnn import losses


@pytest.mark.parametrize("criterion", CLASSIFIERS)
def test_labels_out_of_range(criterion: Any) -> None:
    x = normal(32, 10)
    for target in (classes() + 1, classes() - 1):
        report = look(nn.Linear(10, 3), (x, target), criterion)
        only(report, "labels out of range", "target", "from 0 on")
        assert any("signals" in line for line in report.not_checked)


def test_labels_that_are_ignored_may_be_anything() -> None:
    x, y = normal(32, 10), classes()
    module = nn.Linear(10, 3)
    fine(look(module, (x, y.where(y > 0, -100)), F.cross_entropy))
    y = y.where(y > 0, 255)
    only(look(module, (x, y), F.cross_entropy), "labels out of range", cure="ignore_index")
    for criterion in (
        partial(F.cross_entropy, ignore_index=255),
        nn.CrossEntropyLoss(ignore_index=255),
        partial(losses.cross_entropy, ignore_index=255),
        lambda x, y: losses.cross_entropy(x, y, ignore_index=255),
        lambda x, y: F.cross_entropy(x, y, None, None, 255),
    ):
        fine(look(module, (x, y), criterion))


def test_labels_of_segmentation() -> None:
    module, x = nn.Conv2d(2, 3, 3, padding=1), normal(4, 2, 5, 5)
    fine(look(module, (x, torch.ones(4, 5, 5, dtype=torch.int64)), F.cross_entropy))
    bad = torch.full((4, 5, 5), 3)
    only(look(module, (x, bad), F.cross_entropy), "labels out of range")
    only(look(module, (x, bad[:, None]), F.cross_entropy), "target shape", cure="squeeze(1)")


def test_targets_of_cross_entropy_that_are_no_classes() -> None:
    x, module = normal(32, 10), nn.Linear(10, 3)
    fine(look(module, (x, normal(32, 3).softmax(1)), F.cross_entropy))
    only(look(module, (x, normal(32, 3)), F.cross_entropy), "labels out of range", cure="sum to 1")
    only(look(module, (x, classes().float()), F.cross_entropy), "labels out of range", cure="long")
    only(look(module, (x, classes()[:, None]), F.cross_entropy), "target shape", cure="squeeze")
    hot = F.one_hot(classes())
    only(look(module, (x, hot), F.cross_entropy), "target shape", cure="argmax")
    report = look(nn.Linear(10, 1), (x, 0 * classes()), F.cross_entropy)
    only(report, "one class", cure="binary")


def test_binary_targets() -> None:
    x, y = normal(32, 10), classes(count=2)[:, None].float()
    for criterion in (F.binary_cross_entropy_with_logits, losses.binary_cross_entropy_with_logits):
        only(
            look(nn.Linear(10, 1), (x, 2 * y - 1), criterion), "labels out of range", cure="0 and 1"
        )
        only(look(nn.Linear(10, 1), (x, y[:, 0]), criterion), "target shape", cure="unsqueeze")


@pytest.mark.parametrize("criterion", REGRESSIONS[:-1])
def test_targets_that_would_be_broadcast(criterion: Any) -> None:
    report = look(nn.Linear(10, 1), (normal(32, 10), normal(32)), criterion)
    only(report, "target shape", "target", "unsqueeze(-1)")
    assert "(32, 32)" in report.findings[0].problem
    report = look(nn.Linear(10, 2), (normal(32, 10), normal(32, 3)), criterion)
    only(report, "target shape")
    assert "differ" in report.findings[0].problem
