"""Rates that fall with the number of steps: exponentials, staircases, powers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fdnn.schedules.check import at_least_0, check, check_milestones, check_steps
from fdnn.schedules.schedule import Schedule
from fdnn.types import Scalar

__all__ = ["exponential", "inverse_sqrt", "multi_step", "polynomial", "power", "step"]


def exponential(lr: Scalar, gamma: Scalar) -> Schedule:
    r"""Multiply the rate by the same factor at every step: torch's ExponentialLR.

    $\eta_t = \text{lr} \cdot \gamma^t$.

    Args:
        lr: the first rate.
        gamma: $\gamma$, at least 0.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> exponential(0.1, gamma=0.5)(2)
        tensor(0.0250, dtype=torch.float64)
    """
    check(at_least_0, lr=lr, gamma=gamma)
    return Schedule(lambda count: lr * gamma**count)


def step(lr: Scalar, step_size: int | Tensor, gamma: Scalar = 0.1) -> Schedule:
    r"""Multiply the rate by a factor every `step_size` steps: torch's StepLR.

    $\eta_t = \text{lr} \cdot \gamma^{\lfloor t / \text{step\_size} \rfloor}$.

    Args:
        lr: the first rate.
        step_size: steps between drops.
        gamma: $\gamma$, at least 0.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = step(0.1, step_size=2)
        >>> [round(schedule(count).item(), 4) for count in range(5)]
        [0.1, 0.1, 0.01, 0.01, 0.001]
    """
    check(at_least_0, lr=lr, gamma=gamma)
    check_steps(1, tensors=True, step_size=step_size)
    return Schedule(lambda count: lr * gamma ** torch.floor(count / step_size))


def multi_step(lr: Scalar, milestones: Sequence[int], gamma: Scalar = 0.1) -> Schedule:
    r"""Multiply the rate by a factor at each milestone: torch's MultiStepLR.

    $\eta_t = \text{lr} \cdot \gamma^{n}$ with $n$ the number of milestones $\le t$.

    Args:
        lr: the first rate.
        milestones: counts at which the rate drops, rising; one that occurs twice counts twice.
        gamma: $\gamma$, at least 0.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = multi_step(0.1, milestones=[1, 3])
        >>> [round(schedule(count).item(), 4) for count in range(4)]
        [0.1, 0.01, 0.01, 0.001]
    """
    check(at_least_0, lr=lr, gamma=gamma)
    check_milestones(milestones, repeats=True)
    at = list(milestones)

    def value(count: Tensor) -> Tensor:
        places = torch.tensor(at, dtype=count.dtype, device=count.device)
        return lr * gamma ** (count.unsqueeze(-1) >= places).sum(-1).to(count.dtype)

    return Schedule(value)


def polynomial(lr: Scalar, total_iters: int | Tensor = 5, power: Scalar = 1.0) -> Schedule:
    r"""Let the rate fall to 0 as a power of the steps that are left: torch's PolynomialLR.

    $\eta_t = \text{lr} \cdot (1 - \min(t, T) / T)^p$.

    Args:
        lr: the first rate.
        total_iters: $T$, the count from which on the rate is 0.
        power: $p$, at least 0.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = polynomial(0.1, total_iters=4)
        >>> [round(schedule(count).item(), 4) for count in range(6)]
        [0.1, 0.075, 0.05, 0.025, 0.0, 0.0]
    """
    check(at_least_0, lr=lr, power=power)
    check_steps(1, tensors=True, total_iters=total_iters)
    return Schedule(lambda count: lr * (1.0 - count.clamp(max=total_iters) / total_iters) ** power)


def power(lr: Scalar, step_size: Scalar, power: Scalar = 1.0) -> Schedule:
    r"""Let the rate fall as a power of the steps taken, fast at first and ever more slowly.

    $\eta_t = \text{lr} / (1 + t / s)^c$; with $c = 1$ it is half of `lr` after $s$ steps, a third
    after $2s$.

    Args:
        lr: the first rate.
        step_size: $s$, above 0.
        power: $c$, at least 0.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> power(0.1, step_size=10)(10)
        tensor(0.0500, dtype=torch.float64)
    """
    check(at_least_0, lr=lr, power=power)
    check(("above 0", lambda x: x > 0), step_size=step_size)
    return Schedule(lambda count: lr / (1 + count / step_size) ** power)


def inverse_sqrt(lr: Scalar, timescale: Scalar) -> Schedule:
    r"""Hold the rate, then let it fall with the root of the steps taken.

    $\eta_t = \text{lr} \sqrt{s / \max(t, s)}$. `warmup(inverse_sqrt(lr, s), s, 0.0)` is the
    transformer's schedule.

    Args:
        lr: the rate of the first steps.
        timescale: $s$, the steps before the fall, above 0.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = inverse_sqrt(0.1, timescale=100)
        >>> schedule(50), schedule(400)
        (tensor(0.1000, dtype=torch.float64), tensor(0.0500, dtype=torch.float64))

    References:
        Vaswani et al. (2017), "Attention is all you need" (there `lr` is $(d s)^{-1/2}$ for a model
        of width $d$, and steps are counted from 1).
        Raffel et al. (2020), "Exploring the limits of transfer learning with a unified text-to-text
        transformer" (without warm-up).
    """
    check(at_least_0, lr=lr)
    check(("above 0", lambda x: x > 0), timescale=timescale)
    return Schedule(lambda count: lr * (timescale / count.clamp(min=timescale)) ** 0.5)
