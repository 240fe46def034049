"""A lower rate at first: constant, rising, and the rise, plateau and fall of a whole run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdnn.schedules.check import at_least_0, check, check_choice, check_steps, in_0_1
from fdnn.schedules.interpolation import STRATEGIES, anneal, fraction
from fdnn.schedules.schedule import Schedule, product
from fdnn.types import Scalar

__all__ = ["constant", "linear", "warmup", "warmup_stable_decay"]


def constant(lr: Scalar, factor: Scalar = 1 / 3, total_iters: int | Tensor = 5) -> Schedule:
    r"""Hold the rate at a fraction for some steps, then at the whole: torch's ConstantLR.

    $\eta_t = \text{lr} \cdot \text{factor}$ for $t < \text{total\_iters}$, $\text{lr}$ from there
    on. As in torch, `constant(0.1)` starts at 0.0333. A rate that never changes is no schedule
    but a number: pass 0.1 itself, to optimizers and to `sequential` and `chained` alike.

    Args:
        lr: the rate after the first steps.
        factor: share of it during the first steps, in [0, 1].
        total_iters: how many steps are held back.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = constant(0.1, factor=0.5, total_iters=2)
        >>> [round(schedule(count).item(), 3) for count in range(4)]
        [0.05, 0.05, 0.1, 0.1]
    """
    check(at_least_0, lr=lr)
    check(in_0_1, factor=factor)
    check_steps(0, tensors=True, total_iters=total_iters)
    return Schedule(
        lambda count: lr * (factor + (count >= total_iters).to(count.dtype) * (1 - factor))
    )


def linear(
    lr: Scalar,
    start_factor: Scalar = 1 / 3,
    end_factor: Scalar = 1.0,
    total_iters: int | Tensor = 5,
) -> Schedule:
    r"""Change the rate evenly from one fraction to another, then hold it: torch's LinearLR.

    $\eta_t = \text{lr} \cdot (s + (e - s) \min(t, T) / T)$.

    Args:
        lr: the base rate.
        start_factor: $s$, in (0, 1].
        end_factor: $e$, in [0, 1].
        total_iters: $T$, the first count at which the rate is $\text{lr} \cdot e$.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = linear(0.1, start_factor=0.2, total_iters=4)
        >>> [round(schedule(count).item(), 3) for count in range(6)]
        [0.02, 0.04, 0.06, 0.08, 0.1, 0.1]
    """
    check(at_least_0, lr=lr)
    check(("in (0, 1]", lambda x: 0 < x <= 1), start_factor=start_factor)
    check(in_0_1, end_factor=end_factor)
    check_steps(1, tensors=True, total_iters=total_iters)
    return Schedule(
        lambda count: (
            lr
            * anneal("linear", start_factor, end_factor, count.clamp(max=total_iters) / total_iters)
        )
    )


def warmup(schedule: Any, steps: int | Tensor, start_factor: Scalar = 1 / 3) -> Schedule:
    r"""Let any schedule begin gently: multiply it by a factor that rises evenly to 1.

    The factor is $s + (1 - s) \min(t / \text{steps}, 1)$, that of `linear`. `schedule` itself keeps
    its count, so it has its own value from `steps` on; to start it after the warm-up, see
    `sequential`.

    Args:
        schedule: a schedule, a number or a 0-d tensor.
        steps: length of the warm-up; with 0 there is none.
        start_factor: $s$, the factor of the first step, in [0, 1]. With 0 the first step is lost.

    Returns:
        A schedule of the length of `schedule`.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> from fdnn import schedules
        >>> schedule = warmup(schedules.step(0.1, step_size=3), steps=2, start_factor=0.5)
        >>> [round(schedule(count).item(), 4) for count in range(5)]
        [0.05, 0.075, 0.1, 0.01, 0.01]

    References:
        Goyal et al. (2017), "Accurate, large minibatch SGD: training ImageNet in 1 hour".
    """
    check(in_0_1, start_factor=start_factor)
    check_steps(0, tensors=True, steps=steps)
    rise = Schedule(lambda count: anneal("linear", start_factor, 1.0, fraction(count, 0, steps)))
    return product([schedule, rise])


def warmup_stable_decay(
    lr: Scalar,
    warmup_steps: int,
    stable_steps: int,
    decay_steps: int,
    start_factor: Scalar = 1 / 3,
    end_factor: Scalar = 0.0,
    anneal_strategy: str = "linear",
) -> Schedule:
    r"""Rise, stay, and fall at the end of the run.

    The rate rises evenly from `start_factor` times `lr` over `warmup_steps`, stays at `lr` for
    `stable_steps`, and falls over `decay_steps` towards `end_factor` times `lr`, which it would
    reach at the step after the last.

    Args:
        lr: the rate of the plateau.
        warmup_steps: length of the rise.
        stable_steps: length of the plateau.
        decay_steps: length of the fall.
        start_factor: share of `lr` at the first step, in [0, 1].
        end_factor: share of `lr` at the end, in [0, 1].
        anneal_strategy: shape of the fall over its share $u$ from 0 to 1: `"linear"`, `"cos"`, or
            `"1-sqrt"`, where $1 - \sqrt u$ of the way down is left.

    Returns:
        A schedule of `warmup_steps + stable_steps + decay_steps` steps.

    Raises:
        ValueError: a value outside its range, or no steps at all.

    Example:
        >>> schedule = warmup_stable_decay(1.0, 2, 2, 4, start_factor=0.5)
        >>> [schedule(count).item() for count in range(8)]
        [0.5, 0.75, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]

    References:
        Hu et al. (2024), "MiniCPM: unveiling the potential of small language models with scalable
        training strategies" (whose fall is exponential).
        Hägele et al. (2024), "Scaling laws and compute-optimal training beyond fixed training
        durations" (linear and 1-sqrt).
    """
    check(at_least_0, lr=lr)
    check(in_0_1, start_factor=start_factor, end_factor=end_factor)
    check_steps(0, warmup_steps=warmup_steps, stable_steps=stable_steps, decay_steps=decay_steps)
    check_choice((*STRATEGIES, "1-sqrt"), anneal_strategy=anneal_strategy)
    fall_from = warmup_steps + stable_steps
    total = fall_from + decay_steps
    if total == 0:
        raise ValueError("`warmup_steps`, `stable_steps` and `decay_steps` must not all be 0")

    def fall(count: Tensor) -> Tensor:
        done = fraction(count, fall_from, total)
        if anneal_strategy == "1-sqrt":
            return anneal("linear", 1.0, end_factor, torch.sqrt(done))
        return anneal(anneal_strategy, 1.0, end_factor, done)

    return warmup(Schedule(lambda count: lr * fall(count), total), warmup_steps, start_factor)
