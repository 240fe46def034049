"""Multiples of the updates."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Schedule, Tree

__all__ = ["identity", "scale", "scale_by_schedule"]


def identity() -> Chain:
    """Pass the updates on as they are.

    Example:
        >>> import torch
        >>> tx = identity()
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.ones(1)}))[0]
        {'w': tensor([1.])}
    """
    return chain()


def scale(step_size: ScalarOrSchedule) -> Chain:
    r"""Multiply the updates: $u' = s \, u$.

    The factor is the hyperparameter `step_size` of the state, which may be set between steps
    (by a plateau rule, for example): `set_hyperparams(opt_state, step_size=0.5)`.

    Unlike `scale_by_learning_rate` it does not turn around, and what it returns does not count as
    a step: under `masked(scale(0.1), where)` the other leaves pass through.

    Args:
        step_size: the factor $s$, of either sign: a number, a 0-d tensor, or a schedule.

    Raises:
        ValueError: `step_size` is not a number (nan).

    Example:
        >>> import torch
        >>> tx = scale(-0.5)
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.ones(1)}))[0]
        {'w': tensor([-0.5000])}
    """
    check(step_size=(step_size, -math.inf, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        factor = hyper["step_size"]
        return leafwise(lambda u: u * factor, updates), {}, {}

    return chain(
        Part("scale", lambda params: {}, update, {"step_size": step_size}, elementwise=True)
    )


def scale_by_schedule(schedule: Schedule) -> Chain:
    r"""Multiply the updates by a function of the step count: $u'_t = s(t) \, u_t$.

    `scale` with a schedule, under optax's name. A factor that multiplies a learning rate is made
    so, and one below 0 is a learning rate by itself: `scale_by_schedule(lambda count: -0.1)`.

    Args:
        schedule: $s$, a function of the number of steps taken before this one (0 at first).

    Raises:
        TypeError: `schedule` is not a function.

    Example:
        >>> import torch
        >>> tx = scale_by_schedule(lambda count: 0.5**count)
        >>> grads = {"w": torch.ones(1)}
        >>> _, state = tx.update(grads, tx.init(grads))
        >>> tx.update(grads, state)[0]
        {'w': tensor([0.5000])}
    """
    if not callable(schedule):
        raise TypeError(f"`schedule` must be a function of the step count, got {schedule!r}")
    return scale(schedule)
