"""`plateau`: torch's ReduceLROnPlateau around a run, also on top of a schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fdnn import optim, schedules, train

QUIET: dict[str, Any] = {"batch_size": 8, "compile": False, "progress": False}
LOSSES = [1.0, 0.9, 0.95, 0.93, 0.94, 0.99, 0.8, 0.9, 0.9, 0.9, 0.9]


def fit(task: Any, tx: Any, losses: list[list[float]] | list[float]) -> dict[str, Tensor]:
    """Train under given validation losses; return the history."""
    step = train.make_step(train.supervised(task.model, F.cross_entropy), tx)
    lanes = len(losses[0]) if isinstance(losses[0], list) else None
    keys = torch.arange(lanes or 1).unsqueeze(1).expand(-1, 2)
    begin = torch.vmap(lambda key: train.init(task.model, tx, key))
    state = begin(keys) if lanes else train.init(task.model, tx, keys[0])
    numbers = iter(losses)
    _, history = train.fit(
        step,
        state,
        task.data,
        epochs=len(losses),
        evaluate=lambda state: {"valid_loss": torch.tensor(next(numbers))},
        monitors={"p": train.plateau("valid_loss", schedules.reduce_on_plateau(patience=1))},
        **QUIET,
    )
    return history


def rates_of_torch(losses: list[float], gamma: float) -> list[float]:
    """The rate in each epoch under torch's plateau, then times an exponential decay."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    rates = []
    for epoch, loss in enumerate(losses):
        rates.append(optimizer.param_groups[0]["lr"] * gamma**epoch)
        scheduler.step(loss)
    return rates


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_is_torchs(task: Any, gamma: float) -> None:
    """torch's own LambdaLR would erase the drop (`docs/optimizers.md`)."""
    by_epoch = schedules.exponential(0.1, gamma=gamma ** (1 / 7)) if gamma < 1 else 0.1
    history = fit(task, optim.chain(optim.sgd(lr=by_epoch), optim.scale(1.0)), LOSSES)
    first_of_epoch = history["lr"] * (1 if gamma == 1 else _last_over_mean(gamma))
    found = first_of_epoch * history["step_size"]
    torch.testing.assert_close(
        found, torch.tensor(rates_of_torch(LOSSES, gamma), dtype=found.dtype), rtol=1e-5, atol=0
    )
    assert history["step_size"].unique().numel() > 2


def _last_over_mean(gamma: float) -> float:
    """The history holds an epoch's mean rate: the first over the mean of seven."""
    return 7 / sum(gamma ** (i / 7) for i in range(7))


def test_lanes_by_themselves(task: Any) -> None:
    other = [1.0 / (epoch + 1) for epoch in range(len(LOSSES))]
    tx = optim.chain(optim.sgd(lr=0.1), optim.scale(1.0))
    both = fit(task, tx, [list(pair) for pair in zip(LOSSES, other, strict=True)])
    for lane, losses in enumerate([LOSSES, other]):
        torch.testing.assert_close(both["step_size"][:, lane], fit(task, tx, losses)["step_size"])
    assert (both["step_size"][:, 1] == 1).all()


def test_needs_a_scale_to_set(task: Any) -> None:
    with pytest.raises(KeyError, match=r"no 'step_size' .*optim.chain\(tx, optim.scale"):
        fit(task, optim.sgd(lr=0.1), LOSSES)
    with pytest.raises(ValueError, match=r"`hyperparam` must be the `step_size` .* got 'lr'"):
        train.plateau("loss", schedules.reduce_on_plateau(), hyperparam="lr")
