"""How much is pruned, as a function of the step: at once, in rounds, along a cubic."""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn.schedules import Schedule
from fdnn.schedules.check import check, check_steps, in_0_1
from fdnn.types import Scalar

__all__ = ["cubic_sparsity", "iterative_sparsity", "one_shot_sparsity"]


def one_shot_sparsity(sparsity: Scalar, begin: int | Tensor = 0) -> Schedule:
    r"""Prune all at once: 0 before the count `begin`, `sparsity` from there on.

    Args:
        sparsity: the share of weights that is pruned, in [0, 1].
        begin: the count of the pruning: a number of steps, or a 0-d tensor.

    Returns:
        A schedule, for `gradual_pruning`.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = one_shot_sparsity(0.8, begin=2)
        >>> [schedule(count).item() for count in range(4)]
        [0.0, 0.0, 0.8, 0.8]
    """
    check(in_0_1, sparsity=sparsity)
    check_steps(0, tensors=True, begin=begin)
    return Schedule(lambda count: (count >= begin).to(count.dtype) * sparsity)


def iterative_sparsity(
    sparsity: Scalar, rounds: int, interval: int, begin: int | Tensor = 0
) -> Schedule:
    r"""Prune in rounds, each taking the same share of the weights that are left.

    After round i of R, $s_i = 1 - (1 - s)^{i/R}$, so that each prunes the share
    $1 - (1 - s)^{1/R}$ of the rest. Round i is at the count `begin` + (i - 1) `interval`.

    Args:
        sparsity: $s$, the share of weights that is pruned in the end, in [0, 1].
        rounds: $R$, how many rounds.
        interval: how many steps lie between two rounds.
        begin: the count of the first round: a number of steps, or a 0-d tensor.

    Returns:
        A schedule, for `gradual_pruning`.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> schedule = iterative_sparsity(0.75, rounds=2, interval=3, begin=1)
        >>> [schedule(count).item() for count in range(6)]
        [0.0, 0.5, 0.5, 0.5, 0.75, 0.75]

    References:
        Frankle, Carbin (2019), "The lottery ticket hypothesis: finding sparse, trainable neural
        networks".
    """
    check(in_0_1, sparsity=sparsity)
    check_steps(1, rounds=rounds, interval=interval)
    check_steps(0, tensors=True, begin=begin)

    def value(count: Tensor) -> Tensor:
        done = (torch.floor((count - begin) / interval) + 1).clamp(0, rounds)
        return 1 - (1.0 - torch.zeros_like(count) - sparsity) ** (done / rounds)

    return Schedule(value)


def cubic_sparsity(
    sparsity: Scalar,
    begin: int,
    end: int,
    interval: int = 1,
    initial_sparsity: Scalar = 0.0,
) -> Schedule:
    r"""Prune much in the beginning, when much is superfluous, and ever less.

    $s_t = s_f + (s_i - s_f) \left(1 - \frac{t - t_0}{t_1 - t_0}\right)^3$ for $t$ = $t_0$,
    $t_0 + \Delta t$, ..., and constant in between; 0 before $t_0$, $s_f$ from $t_1$ on.

    Args:
        sparsity: $s_f$, the share of weights that is pruned in the end, in [0, 1].
        begin: $t_0$, the count of the first pruning.
        end: $t_1$, the count of the last.
        interval: $\Delta t$, how many steps lie between two prunings.
        initial_sparsity: $s_i$, the share that is pruned at $t_0$, in [0, 1].

    Returns:
        A schedule, for `gradual_pruning`.

    Raises:
        ValueError: a value outside its range, or `end` is not above `begin`.

    Example:
        >>> schedule = cubic_sparsity(0.8, begin=1, end=5, interval=2)
        >>> [round(schedule(count).item(), 3) for count in range(7)]
        [0.0, 0.0, 0.0, 0.7, 0.7, 0.8, 0.8]

    References:
        Zhu, Gupta (2017), "To prune, or not to prune: exploring the efficacy of pruning for model
        compression". Nothing is pruned before $t_0$, where the paper has $s_i$ from the start.
    """
    check(in_0_1, sparsity=sparsity, initial_sparsity=initial_sparsity)
    check_steps(0, begin=begin)
    check_steps(1, interval=interval)
    check_steps(begin + 1, end=end)

    def value(count: Tensor) -> Tensor:
        since = torch.floor((count - begin) / interval) * interval
        share = torch.where(count >= end, 1.0, since / (end - begin)).clamp(0, 1)
        current = sparsity + (initial_sparsity - sparsity) * (1 - share) ** 3
        return torch.where(count < begin, 0.0, current)

    return Schedule(value)
