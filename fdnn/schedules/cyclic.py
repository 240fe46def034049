"""Rates that go up and down again and again, and momentum the other way round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn.schedules.check import at_least_0, check, check_choice, check_steps, in_0_1
from fdnn.schedules.schedule import Schedule
from fdnn.types import Scalar

__all__ = ["cyclic", "cyclic_momentum"]


def cyclic(
    base_lr: Scalar,
    max_lr: Scalar,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: Scalar = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
) -> Schedule:
    r"""Let the rate swing between two bounds: torch's CyclicLR.

    $\eta_t = \text{base\_lr} + (\text{max\_lr} - \text{base\_lr}) \, h_t \, s$, where $h_t$ rises
    from 0 to 1 in `step_size_up` steps and falls back in `step_size_down`, and the amplitude $s$
    depends on the number of the cycle $c = 1, 2, ...$ or on the step.

    Args:
        base_lr: the lower bound.
        max_lr: the upper bound, in the first cycle.
        step_size_up: steps from the lower to the upper.
        step_size_down: steps back; as many as up, if left out.
        mode: the amplitude: `"triangular"`: 1; `"triangular2"`: $1 / 2^{c - 1}$; `"exp_range"`:
            $\gamma^t$.
        gamma: $\gamma$, at least 0.
        scale_fn: another amplitude, in place of `mode`'s: a function of a float64 tensor.
        scale_mode: what `scale_fn` is given: `"cycle"`: $c$; `"iterations"`: $t$.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = cyclic(0.1, 0.5, step_size_up=2, mode="triangular2")
        >>> [round(schedule(count).item(), 4) for count in range(8)]
        [0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3, 0.2]

    References:
        Smith (2017), "Cyclical learning rates for training neural networks".
    """
    check(at_least_0, base_lr=base_lr, max_lr=max_lr)
    height = _height(step_size_up, step_size_down, mode, gamma, scale_fn, scale_mode)
    return Schedule(lambda count: base_lr + height(count, max_lr - base_lr))


def cyclic_momentum(
    base_momentum: Scalar = 0.8,
    max_momentum: Scalar = 0.9,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: Scalar = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
) -> Schedule:
    """Lower momentum while `cyclic` raises the rate, and raise it again: torch's CyclicLR.

    Args:
        base_momentum: where the rate is highest, in [0, 1].
        max_momentum: where the rate is lowest, in [0, 1].
        step_size_up: steps in which the rate rises.
        step_size_down: steps in which it falls; as many as up, if left out.
        mode: as in `cyclic`.
        gamma: as in `cyclic`.
        scale_fn: as in `cyclic`.
        scale_mode: as in `cyclic`.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = cyclic_momentum(step_size_up=2)
        >>> [round(schedule(count).item(), 4) for count in range(5)]
        [0.9, 0.85, 0.8, 0.85, 0.9]

    References:
        Smith (2017), "Cyclical learning rates for training neural networks".
    """
    check(in_0_1, base_momentum=base_momentum, max_momentum=max_momentum)
    height = _height(step_size_up, step_size_down, mode, gamma, scale_fn, scale_mode)
    return Schedule(lambda count: max_momentum - height(count, max_momentum - base_momentum))


def _height(
    step_size_up: int,
    step_size_down: int | None,
    mode: str,
    gamma: Scalar,
    scale_fn: Callable[[Any], Any] | None,
    scale_mode: str,
) -> Callable[[Tensor, Scalar], Tensor]:
    """Build the function of count and span that tells how far the rate is above its base."""
    down = step_size_up if step_size_down is None else step_size_down
    check_steps(1, step_size_up=step_size_up, step_size_down=down)
    check(at_least_0, gamma=gamma)
    check_choice(("triangular", "triangular2", "exp_range"), mode=mode)
    check_choice(("cycle", "iterations"), scale_mode=scale_mode)
    period = step_size_up + down
    # torch's own expressions, so that the two round alike.
    ratio = step_size_up / period

    def amplitude(count: Tensor, cycle: Tensor) -> Any:
        if scale_fn is not None:
            return scale_fn(cycle if scale_mode == "cycle" else count)
        if mode == "triangular2":
            return 1 / 2.0 ** (cycle - 1)
        return gamma**count if mode == "exp_range" else 1.0

    def height(count: Tensor, span: Scalar) -> Tensor:
        cycle = torch.floor(1 + count / period)
        x = 1.0 + count / period - cycle
        way = torch.where(x <= ratio, x / ratio, (x - 1) / (ratio - 1))
        above: Tensor = span * way * amplitude(count, cycle)
        return above

    return height
