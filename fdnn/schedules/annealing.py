"""Cosine annealing, with and without restarts, and the annealing before weights are averaged."""

from __future__ import annotations

from itertools import count as counting
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from fdnn.schedules.check import at_least_0, check, check_choice, check_steps
from fdnn.schedules.interpolation import STRATEGIES, anneal, fraction
from fdnn.schedules.schedule import Schedule, as_schedule
from fdnn.types import Scalar

__all__ = ["cosine_annealing", "cosine_annealing_warm_restarts", "swa"]


def cosine_annealing(lr: Scalar, T_max: int | Tensor, eta_min: Scalar = 0.0) -> Schedule:
    r"""Let the rate fall along half a wave of a cosine: torch's CosineAnnealingLR.

    $\eta_t = \eta_\min + (\text{lr} - \eta_\min) (1 + \cos(\pi t / T_\max)) / 2$. As in torch, the
    wave goes on: after $T_\max$ the rate rises again, to be `lr` at $2 T_\max$.

    Args:
        lr: the first rate.
        T_max: $T_\max$, the count at which the rate is lowest.
        eta_min: $\eta_\min$, the lowest rate.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> cosine_annealing(0.1, T_max=20, eta_min=0.02)(10)
        tensor(0.0600, dtype=torch.float64)

    References:
        Loshchilov, Hutter (2017), "SGDR: stochastic gradient descent with warm restarts".
    """
    check(at_least_0, lr=lr, eta_min=eta_min)
    check_steps(1, tensors=True, T_max=T_max)
    return Schedule(lambda count: anneal("cos", lr, eta_min, count / T_max))


def cosine_annealing_warm_restarts(
    lr: Scalar, T_0: int, T_mult: int = 1, eta_min: Scalar = 0.0
) -> Schedule:
    r"""Anneal again and again, each time for longer: torch's CosineAnnealingWarmRestarts.

    $\eta_t = \eta_\min + (\text{lr} - \eta_\min) (1 + \cos(\pi T_\text{cur} / T_i)) / 2$, with
    $T_\text{cur}$ the steps since the last restart and $T_i = T_0 \cdot T_\text{mult}^i$ the steps
    between restart $i$ and the next.

    Args:
        lr: the rate after a restart.
        T_0: steps to the first restart.
        T_mult: factor from one period to the next.
        eta_min: $\eta_\min$, the rate that would be reached at a restart.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = cosine_annealing_warm_restarts(0.1, T_0=2, T_mult=2)
        >>> [round(schedule(count).item(), 4) for count in range(7)]
        [0.1, 0.05, 0.1, 0.0854, 0.05, 0.0146, 0.1]

    References:
        Loshchilov, Hutter (2017), "SGDR: stochastic gradient descent with warm restarts".
    """
    check(at_least_0, lr=lr, eta_min=eta_min)
    check_steps(1, T_0=T_0, T_mult=T_mult)

    # Compared with every restart that float64 can count, rather than found by a logarithm, whose
    # rounding would miss some.
    sums = (T_0 * (T_mult**i - 1) // (T_mult - 1) for i in counting()) if T_mult > 1 else ()
    restarts = list(takewhile(lambda restart: restart < 2**53, sums))

    def place(count: Tensor) -> tuple[Tensor, Tensor | int]:
        """Count the steps since the last restart, and those of its period."""
        if T_mult == 1:
            return torch.remainder(count, T_0), T_0
        begins = torch.tensor(restarts, dtype=count.dtype, device=count.device)
        passed = count.unsqueeze(-1) >= begins
        last = torch.where(passed, begins, 0).amax(-1)
        return count - last, T_0 * float(T_mult) ** (passed.sum(-1) - 1).to(count.dtype)

    def value(count: Tensor) -> Tensor:
        since, period = place(count)
        return anneal("cos", lr, eta_min, since / period)

    return Schedule(value)


def swa(
    lr: Any,
    swa_lr: Scalar,
    anneal_epochs: int = 10,
    anneal_strategy: str = "cos",
    start: int = 0,
) -> Schedule:
    r"""Go over to a constant rate, under which weights are averaged: torch's SWALR.

    $\eta_t = \alpha_t \, \text{swa\_lr} + (1 - \alpha_t) \, \eta_\text{start}$ for
    $t \ge \text{start}$, with $\alpha$ rising from 0 to 1 within `anneal_epochs` steps; before, the
    rate is `lr`'s.

    Args:
        lr: the rate before: a number, a 0-d tensor or a schedule.
        swa_lr: the constant rate.
        anneal_epochs: steps between the two; with 0 the change is sudden.
        anneal_strategy: shape of the way, `"cos"` or `"linear"`.
        start: count at which the way begins, where the rate is still that of `lr`. In torch's
            terms, the last count before `swa_scheduler.step()` takes over.

    Raises:
        ValueError: a value outside its range, or a finite schedule `lr` that ends before `start`.

    Example:
        >>> schedule = swa(0.1, swa_lr=0.05, anneal_epochs=2, anneal_strategy="linear", start=3)
        >>> [round(schedule(count).item(), 4) for count in range(2, 7)]
        [0.1, 0.1, 0.075, 0.05, 0.05]

    References:
        Izmailov et al. (2018), "Averaging weights leads to wider optima and better generalization".
    """
    before = as_schedule(lr)
    check(at_least_0, swa_lr=swa_lr)
    check_steps(0, anneal_epochs=anneal_epochs, start=start)
    check_choice(STRATEGIES, anneal_strategy=anneal_strategy)
    if before.total_steps is not None and before.total_steps <= start:
        raise ValueError(f"`start` must be below {before.total_steps}, `lr`'s length, got {start}")

    def value(count: Tensor) -> Tensor:
        done = fraction(count, start, start + anneal_epochs)
        return anneal(anneal_strategy, before.at(count.clamp(max=start)), swa_lr, done)

    return Schedule(value)
