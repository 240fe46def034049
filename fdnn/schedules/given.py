"""Rates given by the user: as a function, as a factor from step to step, as points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fdnn.schedules.check import at_least_0, check, check_choice, check_milestones, check_steps
from fdnn.schedules.interpolation import STRATEGIES, anneal, fraction
from fdnn.schedules.schedule import Schedule
from fdnn.types import Scalar

__all__ = ["lambda_", "multiplicative", "piecewise"]


def lambda_(lr: Scalar, lr_lambda: Callable[[Any], Any]) -> Schedule:
    r"""Multiply the rate by a function of the count: torch's LambdaLR.

    $\eta_t = \text{lr} \cdot \lambda(t)$. Unlike torch's, it can be combined: multiplied with
    other schedules it erases nothing.

    Args:
        lr: the base rate.
        lr_lambda: $\lambda$. It gets the count as a float64 tensor. Under `vmap` and compilation,
            it must choose with `torch.where` where it would with `if`, `min` or `max`.

    Raises:
        ValueError: `lr` is negative.

    Example:
        >>> lambda_(0.1, lambda count: 0.5 ** (count // 10))(25)
        tensor(0.0250, dtype=torch.float64)
    """
    check(at_least_0, lr=lr)
    return Schedule(lambda count: lr * lr_lambda(count))


def multiplicative(lr: Scalar, lr_lambda: Callable[[int], Any], total_steps: int) -> Schedule:
    r"""Multiply the last rate by a function of the count: torch's MultiplicativeLR.

    $\eta_t = \text{lr} \cdot \prod_{i=1}^{t} \lambda(i)$. The product has no closed form, so it is
    tabulated for the length of the run, which torch needs not know.

    Args:
        lr: the first rate.
        lr_lambda: $\lambda$, called once with each int from 1 to `total_steps - 1`, now.
        total_steps: length of the schedule.

    Returns:
        A schedule of `total_steps` steps.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> multiplicative(0.1, lambda count: 0.5 if count < 3 else 1.0, total_steps=10)(9)
        tensor(0.0250, dtype=torch.float64)
    """
    check(at_least_0, lr=lr)
    check_steps(1, total_steps=total_steps)
    factors = [torch.as_tensor(lr_lambda(i), dtype=torch.float64) for i in range(1, total_steps)]
    table = torch.stack([torch.ones((), dtype=torch.float64), *factors]).cumprod(0)

    def value(count: Tensor) -> Tensor:
        # `table[count]` would read a 0-d count as a Python number.
        place = count.long().reshape(-1)
        return lr * table.to(count.device, count.dtype).index_select(0, place).reshape(count.shape)

    return Schedule(value, total_steps)


def piecewise(
    values: Sequence[Scalar], milestones: Sequence[int], interpolation: str = "constant"
) -> Schedule:
    """Take given values between, or at, given counts.

    Args:
        values: one more than there are milestones: the first for count 0, then one for each
            milestone.
        milestones: counts, rising.
        interpolation: `"constant"`: a value holds from its milestone to the next; `"linear"` or
            `"cos"`: the way from a value to the next is a line, or half a wave of a cosine. After
            the last milestone the last value stays.

    Raises:
        ValueError: `milestones` do not rise, another number of values, or an unknown
            interpolation.

    Example:
        >>> stairs = piecewise([0.1, 0.01, 0.001], milestones=[30, 80])
        >>> ramp = piecewise([0.0, 0.1, 0.0], milestones=[10, 30], interpolation="linear")
        >>> stairs(79).item(), ramp(20).item()
        (0.01, 0.05)
    """
    check_milestones(milestones)
    check_choice(("constant", *STRATEGIES), interpolation=interpolation)
    if len(values) != len(milestones) + 1:
        raise ValueError(
            f"`values` must be one more than the {len(milestones)} milestones, got {len(values)}"
        )
    for number, level in enumerate(values):
        check(("finite", lambda x: True), **{f"values[{number}]": level})
    start = [0, *milestones]

    def value(count: Tensor) -> Tensor:
        result = torch.zeros_like(count) + values[0]
        for number in range(1, len(values)):
            if interpolation == "constant":
                result = torch.where(count >= start[number], values[number], result)
            else:
                done = fraction(count, start[number - 1], start[number])
                way = anneal(interpolation, values[number - 1], values[number], done)
                result = torch.where(count > start[number - 1], way, result)
        return result

    return Schedule(value)
