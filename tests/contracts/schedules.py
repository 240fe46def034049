"""The contract's rows of `fdnn.schedules`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from contracts.shared import Row, normal
from torch import Tensor

from fdnn import schedules, tree


def schedule(build: Callable[[Tensor], Any]) -> Row:
    """The value of a schedule of a base rate at a count; lanes differ in both."""
    return Row(
        lambda lr, count: build(lr)(count),
        lambda i: (torch.tensor(0.1 * (i + 1), dtype=torch.float64), torch.tensor(3 * i + 1)),
        exact=False,
    )


PLATEAU = schedules.reduce_on_plateau(patience=0, cooldown=1)


ROWS: dict[str, Row] = {
    "schedules.chained": schedule(
        lambda lr: schedules.chained([lr, schedules.exponential(1.0, 0.9)])
    ),
    "schedules.constant": schedule(schedules.constant),
    "schedules.cosine_annealing": schedule(lambda lr: schedules.cosine_annealing(lr, 7)),
    "schedules.cosine_annealing_warm_restarts": schedule(
        lambda lr: schedules.cosine_annealing_warm_restarts(lr, 2, 2)
    ),
    "schedules.cyclic": schedule(lambda lr: schedules.cyclic(0.01, lr, 3, 2, "exp_range", 0.9)),
    "schedules.cyclic_momentum": schedule(lambda lr: schedules.cyclic_momentum(lr, 0.9, 3)),
    "schedules.exponential": schedule(lambda lr: schedules.exponential(lr, 0.9)),
    "schedules.inverse_sqrt": schedule(lambda lr: schedules.inverse_sqrt(lr, 3)),
    "schedules.lambda_": schedule(lambda lr: schedules.lambda_(lr, lambda count: 0.9**count)),
    "schedules.linear": schedule(schedules.linear),
    "schedules.multi_step": schedule(lambda lr: schedules.multi_step(lr, [2, 5])),
    "schedules.multiplicative": schedule(
        lambda lr: schedules.multiplicative(lr, lambda i: 1 - 0.5 / i, 9)
    ),
    "schedules.one_cycle": schedule(lambda lr: schedules.one_cycle(lr, 9)),
    "schedules.one_cycle_momentum": schedule(
        lambda lr: schedules.one_cycle_momentum(9, base_momentum=lr, three_phase=True)
    ),
    "schedules.per_epoch": schedule(
        lambda lr: schedules.per_epoch(schedules.exponential(lr, 0.9), 3)
    ),
    "schedules.piecewise": schedule(lambda lr: schedules.piecewise([lr, 0.1, lr], [2, 5], "cos")),
    "schedules.polynomial": schedule(schedules.polynomial),
    "schedules.power": schedule(lambda lr: schedules.power(lr, 4)),
    "schedules.reduce_on_plateau": Row(
        lambda metrics: functools.reduce(
            lambda state, metric: PLATEAU.update(state, metric)[0],
            metrics.unbind(),
            tree.map(lambda leaf: leaf.to(metrics.device), PLATEAU.init()),
        ),
        lambda i: (normal(i, 6),),
    ),
    "schedules.sequential": schedule(
        lambda lr: schedules.sequential([0.2, schedules.exponential(lr, 0.9)], [3])
    ),
    "schedules.step": schedule(lambda lr: schedules.step(lr, 3)),
    "schedules.swa": schedule(lambda lr: schedules.swa(lr, 0.05, 4, start=2)),
    "schedules.warmup": schedule(lambda lr: schedules.warmup(lr, 5)),
    "schedules.warmup_stable_decay": schedule(
        lambda lr: schedules.warmup_stable_decay(lr, 3, 3, 3)
    ),
}

EXEMPT: dict[str, str] = {
    "schedules.plot": "a picture",
}
