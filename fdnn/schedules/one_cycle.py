"""The 1cycle policy: one rise and one fall of the rate, and momentum the other way round."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdnn.schedules.check import Rule, at_least_0, check, check_choice, check_steps, in_0_1
from fdnn.schedules.interpolation import STRATEGIES, anneal, fraction
from fdnn.schedules.schedule import Schedule
from fdnn.types import Scalar

__all__ = ["one_cycle", "one_cycle_momentum"]


def one_cycle(
    max_lr: Scalar,
    total_steps: int,
    pct_start: Scalar = 0.3,
    anneal_strategy: str = "cos",
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
    three_phase: bool = False,
) -> Schedule:
    r"""Raise the rate to its maximum, then lower it to almost nothing: torch's OneCycleLR.

    With $N$ = `total_steps` and $p$ = `pct_start`, the rate goes from $\text{max\_lr} /
    \text{div\_factor}$ at $t = 0$ to `max_lr` at $t = pN - 1$, and on to $\text{max\_lr} /
    (\text{div\_factor} \cdot \text{final\_div\_factor})$ at the last step, $t = N - 1$. With
    `three_phase` it is back at its first value at $t = 2pN - 2$, and falls from there.

    Count steps, not epochs: `total_steps` is epochs times batches in an epoch. `train.fit` checks
    it, and beyond its length the schedule raises.

    Args:
        max_lr: the highest rate.
        total_steps: length of the run.
        pct_start: share of the steps that the rise takes, in [0, 1].
        anneal_strategy: `"cos"` or `"linear"`.
        div_factor: the highest rate over the first, above 0.
        final_div_factor: the first rate over the last, above 0.
        three_phase: fall as fast as the rise to the first rate, then to the last.

    Returns:
        A schedule of `total_steps` steps. For momentum or Adam's beta1 see `one_cycle_momentum`.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> from fdnn import optim
        >>> tx = optim.sgd(lr=one_cycle(0.1, total_steps=100), momentum=one_cycle_momentum(100))
        >>> tx.total_steps, round(one_cycle(0.1, total_steps=100)(29).item(), 4)
        (100, 0.1)

    References:
        Smith, Topin (2018), "Super-convergence: very fast training of neural networks using large
        learning rates".
    """
    check(at_least_0, max_lr=max_lr)
    check(_above_0, div_factor=div_factor, final_div_factor=final_div_factor)
    first = max_lr / div_factor
    levels = (first, max_lr, first) if three_phase else (first, max_lr)
    last = first / final_div_factor
    return _phases((*levels, last), total_steps, pct_start, anneal_strategy)


def one_cycle_momentum(
    total_steps: int,
    pct_start: Scalar = 0.3,
    anneal_strategy: str = "cos",
    base_momentum: Scalar = 0.85,
    max_momentum: Scalar = 0.95,
    three_phase: bool = False,
) -> Schedule:
    """Lower momentum while `one_cycle` raises the rate, and raise it again: torch's OneCycleLR.

    The turning points are those of `one_cycle` with the same arguments; in the third of three
    phases momentum stays at its maximum.

    Args:
        total_steps: length of the run.
        pct_start: share of the steps that the rate's rise takes, in [0, 1].
        anneal_strategy: `"cos"` or `"linear"`.
        base_momentum: where the rate is highest, in [0, 1].
        max_momentum: at the start and the end, in [0, 1].
        three_phase: as in `one_cycle`.

    Returns:
        A schedule of `total_steps` steps, for `sgd(momentum=...)` or `adam(betas=(..., 0.999))`.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = one_cycle_momentum(total_steps=100)
        >>> [round(schedule(count).item(), 4) for count in (0, 29, 99)]
        [0.95, 0.85, 0.95]

    References:
        Smith, Topin (2018), "Super-convergence: very fast training of neural networks using large
        learning rates".
    """
    check(in_0_1, base_momentum=base_momentum, max_momentum=max_momentum)
    levels = (max_momentum, base_momentum, max_momentum)
    return _phases(
        (*levels, max_momentum) if three_phase else levels, total_steps, pct_start, anneal_strategy
    )


_above_0: Rule = ("above 0", lambda x: x > 0)


def _phases(levels: Any, total_steps: int, pct_start: Scalar, anneal_strategy: str) -> Schedule:
    """Go from level to level; each phase but the last takes `pct_start` of the steps, less one."""
    check(in_0_1, pct_start=pct_start)
    check_steps(1, total_steps=total_steps)
    check_choice(STRATEGIES, anneal_strategy=anneal_strategy)
    ends: list[Any] = [n * pct_start * total_steps - n for n in range(1, len(levels) - 1)]
    ends = [0, *ends, total_steps - 1]

    def value(count: Tensor) -> Tensor:
        phases = list(zip(levels, levels[1:], ends, ends[1:], strict=False))
        *early, final = [
            anneal(anneal_strategy, a, b, fraction(count, start, end))
            for a, b, start, end in phases
        ]
        for way, end in reversed(list(zip(early, ends[1:], strict=False))):
            final = torch.where(count <= end, way, final)
        return final

    return Schedule(value, total_steps)
