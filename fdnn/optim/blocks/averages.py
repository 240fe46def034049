"""Averages of the parameters along a run, which often do better than the last ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn.optim.core.apply import apply_updates
from fdnn.optim.core.chain import Chain, OptState, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.exact import exact_copy
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import bias_correction
from fdnn.optim.core.part import Hyper, Notes, Part, narrow
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["averaged_params", "ema_params", "swa"]

_SLOT = "average"


def ema_params(decay: ScalarOrSchedule = 0.999, debias: bool = False) -> Chain:
    r"""Keep an exponential moving average of the parameters; the last link of a chain.

    $a_1 = \theta_1$, $a_t = \beta a_{t-1} + (1 - \beta) \theta_t$, where $\theta_t$ are the
    parameters after step $t$: the first of them counts as if it had been there for ever. With
    `debias` all count by age alone, $a_t = \sum_i \beta^{t-i} \theta_i / \sum_i \beta^{t-i}$,
    which is Adam's bias correction of an average from zero. Updates pass through unchanged.

    Args:
        decay: $\beta$, in [0, 1): a number, a 0-d tensor, or a schedule. The average reaches back
            over some $1 / (1 - \beta)$ steps.
        debias: whether the first parameters weigh no more than the others.

    Returns:
        A transformation with the slot `average`, in float32 where parameters have half precision;
        `averaged_params` reads it.

    Raises:
        ValueError: `decay` is outside its range, or `update` is called without `params`.

    Example:
        >>> from fdnn import optim
        >>> tx = optim.chain(optim.sgd(lr=1.0), ema_params(0.5))
        >>> params = {"w": torch.zeros(1)}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = optim.step(tx, params, {"w": -torch.ones(1)}, state)
        >>> params["w"], optim.averaged_params(state)["w"]
        (tensor([2.]), tensor([1.5000]))

    References:
        Polyak, Juditsky (1992), "Acceleration of stochastic approximation by averaging". Without
        `debias` as `torch.optim.swa_utils.AveragedModel` with `get_ema_avg_fn`.
    """
    check(decay=(decay, 0.0, 1.0))

    def weight(hyper: Hyper, count: Tensor) -> Tensor:
        fresh = 1 - hyper["decay"]
        if debias:
            corrected: Tensor = fresh / bias_correction(hyper["decay"], count)
            return corrected
        return torch.where(count == 0, 1.0, fresh)

    return chain(_average("ema_params", weight, {"decay": decay}))


def swa(start: ScalarOrSchedule, every: ScalarOrSchedule = 1) -> Chain:
    r"""Keep the plain mean of the parameters after some steps; the last link of a chain.

    $a = \frac{1}{n} \sum_{i=0}^{n-1} \theta_{s + ic}$ with $s$ = `start`, $c$ = `every`, where
    $\theta_t$ are the parameters after step $t$ ($\theta_0$ the initial ones). Up to step `start`
    the average is the parameters themselves. Updates pass through unchanged.

    Args:
        start: the step after which the first parameters are taken, at least 0.
        every: how many steps lie between one and the next, at least 1: the length of a cycle, where
            the learning rate follows one.

    Returns:
        A transformation with the slot `average`, in float32 where parameters have half precision;
        `averaged_params` reads it. A net with batch norm needs its statistics anew:
        `fdnn.train.reestimate_batch_norm`.

    Raises:
        ValueError: `start` is negative or `every` is below 1, or `update` is called without
            `params`.

    Example:
        >>> from fdnn import optim
        >>> tx = optim.chain(optim.sgd(lr=1.0), swa(start=2, every=2))
        >>> params = {"w": torch.zeros(1)}
        >>> state = tx.init(params)
        >>> for _ in range(7):  # the mean of 2, 4 and 6
        ...     params, state = optim.step(tx, params, {"w": -torch.ones(1)}, state)
        >>> optim.averaged_params(state)["w"]
        tensor([4.])

    References:
        Izmailov, Podoprikhin, Garipov, Vetrov, Wilson (2018), "Averaging weights leads to wider
        optima and better generalization".
    """
    check(start=(start, 0, math.inf), every=(every, 1, math.inf))

    def weight(hyper: Hyper, count: Tensor) -> Tensor:
        cycle = hyper["every"].round().clamp(min=1)
        since = (count + 1 - hyper["start"].round()).clamp(min=0)
        return torch.where(since % cycle == 0, cycle / (since + cycle), 0.0)

    return chain(_average("swa", weight, {"start": start, "every": every}))


def averaged_params(opt_state: OptState, slot: str | None = None) -> Tree:
    """Read the average that `ema_params` or `swa` keeps, also inside of other optimizers.

    Args:
        opt_state: of one run, or stacked.
        slot: which average, if there are several: `"swa.average"`.

    Returns:
        A tree like the parameters; float32 where they have half precision.

    Raises:
        ValueError: the state holds no average, or several and `slot` names none of them.

    Example:
        >>> from fdnn import optim
        >>> tx = optim.chain(optim.adam(), ema_params())
        >>> averaged_params(tx.init({"w": torch.ones(1)}))
        {'w': tensor([1.])}
    """
    found = _averages(opt_state)
    if slot is None and len(found) == 1:
        return next(iter(found.values()))
    if slot not in found:
        raise ValueError(
            f"`slot` must name one of the averages {list(found)}, got {slot}; `ema_params` or "
            "`swa` at the end of a chain keep one"
        )
    return found[slot]


def _averages(opt_state: OptState, path: str = "") -> dict[str, Tree]:
    found: dict[str, Tree] = {}
    for name, slot in opt_state.slots.items():
        if isinstance(slot, OptState):
            found |= _averages(slot, f"{path}{name}.")
        elif name.rpartition(".")[2] == _SLOT:
            found[path + name] = slot
    return found


def _average(
    name: str,
    weight: Callable[[Hyper, Tensor], Tensor],
    hyperparams: dict[str, ScalarOrSchedule],
) -> Part:
    """A part that moves an average by a share of the way to the parameters after the step."""

    def init(params: Tree) -> dict[str, Tree]:
        return {_SLOT: exact_copy(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        share, old = weight(hyper, count), slots[_SLOT]
        average = leafwise(
            lambda a, p: a * (1 - share) + p.to(a.dtype) * share,
            old,
            apply_updates(params, updates),
        )
        return updates, {_SLOT: narrow(average, old)}, {}

    return Part(
        name,
        init,
        update,
        hyperparams,
        slots=(_SLOT,),
        as_is=True,
        needs_params=f"`{name}` averages them",
    )
