"""Lower the rate when a metric has stopped improving: a state machine, not a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fdnn.schedules.check import at_least_0, check, check_choice, check_steps
from fdnn.types import Scalar

__all__ = ["Plateau", "PlateauState", "reduce_on_plateau"]


class PlateauState(NamedTuple):
    """What `reduce_on_plateau` remembers of a run, as 0-d tensors.

    Attributes:
        best: the best metric so far, float64.
        num_bad_epochs: metrics since then that were no better, int64.
        cooldown_counter: metrics still to be ignored, int64.
        factor: what the rate is multiplied by, float64.
    """

    best: Tensor
    num_bad_epochs: Tensor
    cooldown_counter: Tensor
    factor: Tensor


class Plateau(NamedTuple):
    """A pair of pure functions.

    Attributes:
        init: `init() -> state`.
        update: `update(state, metric) -> (state, factor)`. With a stacked state and one metric for
            each lane, `vmap(update)`.
    """

    init: Callable[[], PlateauState]
    update: Callable[[PlateauState, Tensor | float], tuple[PlateauState, Tensor]]


def reduce_on_plateau(
    mode: str = "min",
    factor: Scalar = 0.1,
    patience: int | Tensor = 10,
    threshold: Scalar = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int | Tensor = 0,
    min_lr: Scalar = 0.0,
    eps: Scalar = 1e-8,
    *,
    lr: Scalar = 1.0,
) -> Plateau:
    r"""Lower a factor when a metric has stopped improving: torch's ReduceLROnPlateau.

    After more than `patience` metrics in a row that were not better than the best, the factor $f$
    becomes $\max(f \cdot \text{factor}, \text{min\_lr} / \text{lr})$. It starts at 1 and multiplies
    whatever rate there is, constant or scheduled, so that neither erases the other. NaN is never
    better. As in torch, `"rel"` suits positive metrics: of negative ones every value near the best
    counts as better, so that a standstill goes unnoticed; take `"abs"` there.

    Args:
        mode: `"min"`: a better metric is lower; `"max"`: higher.
        factor: share of the rate that a drop leaves, in [0, 1).
        patience: bad metrics that are tolerated.
        threshold: how much better than the best is better, at least 0.
        threshold_mode: `"rel"`: as a share of the best; `"abs"`: in the metric's unit.
        cooldown: metrics after a drop that count neither as good nor as bad.
        min_lr: the lowest rate, of a base rate `lr`.
        eps: a drop of the rate that is not greater than this is not made, of a base rate `lr`.
        lr: the base rate that `min_lr` and `eps` are meant for. At the default of 1 they are
            bounds of the factor itself.

    Returns:
        `init` and `update`.

    Raises:
        ValueError: a value outside its range.

    Example:
        The factor goes into the state of the optimizer, here as the step size of `optim.scale`,
        and the rate's own schedule stays as it is.

        >>> from fdnn import optim, schedules
        >>> rate = schedules.exponential(0.1, gamma=0.99)
        >>> tx = optim.chain(optim.sgd(lr=rate), optim.scale(1.0))
        >>> plateau = reduce_on_plateau(patience=1)
        >>> opt_state, watched = tx.init({"w": torch.zeros(2)}), plateau.init()
        >>> for loss in (0.5, 0.6, 0.7):
        ...     watched, factor = plateau.update(watched, loss)
        ...     opt_state = optim.set_hyperparams(opt_state, step_size=factor)
        >>> {name: round(value.item(), 3) for name, value in opt_state.hyperparams.items()}
        {'lr': 0.1, 'step_size': 0.1}
    """
    check_choice(("min", "max"), mode=mode)
    check_choice(("rel", "abs"), threshold_mode=threshold_mode)
    check(("in [0, 1)", lambda x: 0 <= x < 1), factor=factor)
    check(at_least_0, threshold=threshold, min_lr=min_lr, eps=eps)
    check(("above 0", lambda x: x > 0), lr=lr)
    check_steps(0, tensors=True, patience=patience, cooldown=cooldown)

    def is_better(metric: Tensor, best: Tensor) -> Tensor:
        if mode == "min":
            bar = best * (1.0 - threshold) if threshold_mode == "rel" else best - threshold
            return metric < bar
        bar = best * (threshold + 1.0) if threshold_mode == "rel" else best + threshold
        return metric > bar

    def init() -> PlateauState:
        zero = torch.zeros((), dtype=torch.int64)
        one = torch.ones((), dtype=torch.float64)
        return PlateauState(one * (math.inf if mode == "min" else -math.inf), zero, zero, one)

    def update(state: PlateauState, metric: Tensor | float) -> tuple[PlateauState, Tensor]:
        metric = torch.as_tensor(metric, dtype=state.best.dtype, device=state.best.device)
        better = is_better(metric, state.best)
        cooling = state.cooldown_counter > 0
        bad = torch.where(better | cooling, 0, state.num_bad_epochs + 1)
        drop = bad > patience
        lower = torch.clamp(state.factor * lr * factor, min=min_lr)
        is_felt = state.factor * lr - lower > eps
        new = PlateauState(
            best=torch.where(better, metric, state.best),
            num_bad_epochs=torch.where(drop, 0, bad),
            cooldown_counter=torch.where(
                drop, cooldown, state.cooldown_counter - cooling.to(torch.int64)
            ),
            factor=torch.where(drop & is_felt, lower / lr, state.factor),
        )
        return new, new.factor

    return Plateau(init, update)
