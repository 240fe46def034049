"""Schedules of schedules: one times another, one after another, one step an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fdnn.schedules.check import check_milestones, check_steps
from fdnn.schedules.schedule import Schedule, as_schedule, product

__all__ = ["chained", "per_epoch", "sequential"]


def chained(schedules: Sequence[Any]) -> Schedule:
    """Multiply schedules, as torch's ChainedScheduler multiplies their factors.

    Give the base rate to one of them and 1 to the others. The product of two is also `a * b`. No
    schedule can undo what another does, whatever their order (torch's LambdaLR, for one, sets the
    rate anew at each step and erases the drops of others).

    Args:
        schedules: schedules, numbers and 0-d tensors.

    Returns:
        A schedule of the length of those that are finite.

    Raises:
        ValueError: there are no schedules, or two have different lengths.

    Example:
        >>> from fdnn import schedules
        >>> both = chained([schedules.constant(0.1, 0.5, 2), schedules.exponential(1.0, 0.9)])
        >>> [round(both(count).item(), 4) for count in range(4)]
        [0.05, 0.045, 0.081, 0.0729]
    """
    return product(schedules)


def sequential(schedules: Sequence[Any], milestones: Sequence[int]) -> Schedule:
    """Let one schedule follow another, each counting from its own start: torch's SequentialLR.

    Each schedule has its own base rate. A warm-up that leaves the other schedule's count alone is
    `warmup`.

    Args:
        schedules: schedules, numbers and 0-d tensors.
        milestones: counts at which the second, third, ... begins: one less than schedules.

    Returns:
        A schedule whose length is that of the last one, counted from its milestone.

    Raises:
        ValueError: `milestones` do not rise or are not one less than `schedules`, or a finite
            schedule but the last has not the length of its span.

    Example:
        >>> from fdnn import schedules
        >>> rise = schedules.linear(0.1, start_factor=0.5, total_iters=2)
        >>> both = sequential([rise, schedules.exponential(0.1, 0.5)], milestones=[2])
        >>> [round(both(count).item(), 4) for count in range(5)]
        [0.05, 0.075, 0.1, 0.05, 0.025]
    """
    check_milestones(milestones)
    if len(schedules) != len(milestones) + 1:
        raise ValueError(
            f"`schedules` must be one more than the {len(milestones)} milestones, "
            f"got {len(schedules)}"
        )
    parts, starts = [as_schedule(schedule) for schedule in schedules], [0, *milestones]
    for number, (start, end) in enumerate(pairwise(starts)):
        length = parts[number].total_steps
        if length not in (None, end - start):
            raise ValueError(
                f"`schedules[{number}]` must be endless or {end - start} steps long, as its span "
                f"from {start} to {end} is, got {length} steps"
            )
    length = parts[-1].total_steps

    def value(count: Tensor) -> Tensor:
        result = parts[0].at(count)
        for start, part in zip(starts[1:], parts[1:], strict=True):
            result = torch.where(count >= start, part.at((count - start).clamp(min=0)), result)
        return result

    return Schedule(value, None if length is None else starts[-1] + length)


def per_epoch(schedule: Any, steps_per_epoch: int) -> Schedule:
    r"""Let a schedule advance once an epoch.

    $\eta_t = f(\lfloor t / \text{steps\_per\_epoch} \rfloor)$. Optimizers count steps. A schedule
    whose numbers are meant in epochs, as torch's are when `scheduler.step()` is called after each,
    is turned into one of steps.

    Args:
        schedule: $f$, a schedule of the number of whole epochs.
        steps_per_epoch: batches in an epoch.

    Returns:
        A schedule `steps_per_epoch` times as long.

    Raises:
        ValueError: `steps_per_epoch` is not an int above 0.

    Example:
        >>> from fdnn import schedules
        >>> schedule = per_epoch(schedules.exponential(0.05, gamma=0.9), steps_per_epoch=100)
        >>> [round(schedule(count).item(), 4) for count in (0, 99, 100, 250)]
        [0.05, 0.05, 0.045, 0.0405]
    """
    inner = as_schedule(schedule)
    check_steps(1, steps_per_epoch=steps_per_epoch)
    return Schedule(
        lambda count: inner.at(torch.floor(count / steps_per_epoch)),
        None if inner.total_steps is None else inner.total_steps * steps_per_epoch,
    )
