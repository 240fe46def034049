"""Schedules of another length than the run, and decay where it hurts."""

from __future__ import annotations

from typing import Any

import pytest
from checked import fine, look, only
from torch import nn

from fdnn import optim, random, schedules


def test_schedule_sized_for_batches_but_stepped_per_epoch() -> None:
    """D9 of the chapter: 1cycle of 60 x 352 = 21,120 steps that is stepped 60 times."""
    tx = optim.sgd(schedules.one_cycle(0.1, total_steps=60 * 352))
    module = nn.Linear(10, 3)
    report = look(module, tx=tx, steps=60)
    only(report, "schedule length", "tx", "for each batch")
    assert "21120 steps, the run 60" in report.findings[0].problem
    only(look(module, tx=tx, steps=60 * 352 + 1), "schedule length")
    fine(look(module, tx=tx, steps=60 * 352))
    fine(look(module, tx=optim.sgd(0.1), steps=60))
    assert "schedule length (needs `steps`)" in look(module, tx=tx).not_checked


NORMED = nn.Sequential(nn.Linear(10, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 3))


def matrices(path: str, leaf: Any) -> bool:
    return bool(leaf.ndim > 1)


@pytest.mark.parametrize(
    "tx",
    [
        optim.adamw(0.1),
        optim.sgd(0.1, weight_decay=1e-4),
        optim.adam(0.1, weight_decay=1e-4),
        # D6: that "bn" is in no name of an nn.Sequential
        optim.chain(
            optim.add_decayed_weights(0.1, lambda path, leaf: "bn" not in path), optim.sgd(0.1)
        ),
        optim.lamb(0.1, weight_decay=0.1),
    ],
)
def test_weight_decay_on_norms(tx: Any) -> None:
    only(look(NORMED, tx=tx), "weight decay on norms", "1.weight, 1.bias", "leaf.ndim > 1")
    fine(look(nn.Linear(10, 3), tx=tx))


@pytest.mark.parametrize(
    "tx",
    [
        optim.adamw(0.1, weight_decay=0.0),
        optim.chain(optim.add_decayed_weights(0.1, matrices), optim.sgd(0.1, momentum=0.9)),
        optim.freeze(optim.adamw(0.1), "1.*"),
        optim.chain(optim.sgd(0.1), optim.project(optim.projection_l2_ball, scale=0.5)),
    ],
)
def test_no_weight_decay_on_norms(tx: Any) -> None:
    report = look(NORMED, tx=tx)
    fine(report)
    assert not any("decay" in line for line in report.not_checked)


@pytest.mark.parametrize(
    "tx",
    [optim.lbfgs(), optim.chain(optim.add_noise(0.1, 0.5, random.key(0)), optim.adamw(0.1))],
)
def test_weight_decay_that_cannot_be_seen(tx: Any) -> None:
    report = look(NORMED, tx=tx)
    fine(report)
    assert any("weight decay" in line for line in report.not_checked)
