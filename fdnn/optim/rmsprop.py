"""RMSprop, plain, centered and with momentum."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.descent import descent
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check, is_zero
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import root
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["rmsprop", "scale_by_rmsprop"]


def scale_by_rmsprop(
    alpha: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    momentum: ScalarOrSchedule = 0.0,
    centered: bool = False,
) -> Chain:
    r"""Divide the gradient by the root of its running mean square.

    $v_t = \alpha v_{t-1} + (1 - \alpha) g_t^2$ and $r_t = g_t / (\sqrt{v_t} + \epsilon)$. With
    `centered` the running variance $v_t - m_t^2$ takes the place of $v_t$, where $m_t = \alpha
    m_{t-1} + (1 - \alpha) g_t$. The direction is $r_t$, or $b_t = \mu b_{t-1} + r_t$ with momentum
    $\mu$. Nothing corrects the bias of the means, which start at zero.

    Args:
        alpha: $\alpha$, the share of the means that is kept, in [0, 1).
        eps: $\epsilon$, added to the root.
        momentum: $\mu$, in [0, 1); it acts before the learning rate does.
        centered: divide by the standard deviation. Where rounding makes the variance negative it
            counts as 0 (torch's step is then NaN).

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> import torch
        >>> tx = scale_by_rmsprop(alpha=0.75)
        >>> grads = {"w": torch.tensor([100.0, -1.0])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([ 2., -2.])}

    References:
        Tieleman, Hinton (2012), "Lecture 6.5: RMSProp", Neural networks for machine learning.
        Graves (2013), "Generating sequences with recurrent neural networks" (centered, where
        epsilon is under the root; here it is outside, as in torch).
    """
    check(alpha=(alpha, 0.0, 1.0), eps=(eps, 0.0, math.inf), momentum=(momentum, 0.0, 1.0))
    moving = not is_zero(momentum)
    slots = (
        "square_avg",
        *(["momentum_buffer"] if moving else []),
        *(["grad_avg"] if centered else []),
    )

    def init(params: Tree) -> dict[str, Tree]:
        return {name: tree.zeros_like(params) for name in slots}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        alpha, eps = hyper["alpha"], hyper["eps"]
        v = leafwise(lambda v, g: v * alpha + g * g * (1 - alpha), slots["square_avg"], updates)
        left = {"square_avg": v}
        if centered:
            m = leafwise(lambda m, g: m * alpha + g * (1 - alpha), slots["grad_avg"], updates)
            left["grad_avg"] = m
            v = leafwise(lambda v, m: (v - m * m).clamp(min=0.0), v, m)
        direction = leafwise(lambda g, v: g / (root(v) + eps), updates, v)
        if moving:
            mu = hyper["momentum"]
            direction = leafwise(lambda b, r: b * mu + r, slots["momentum_buffer"], direction)
            left["momentum_buffer"] = direction
        return direction, left, {}

    hyperparams = {"alpha": alpha, "eps": eps, **({"momentum": momentum} if moving else {})}
    return chain(Part("rmsprop", init, update, hyperparams, slots=slots, elementwise=True))


def rmsprop(
    lr: ScalarOrSchedule = 1e-2,
    alpha: ScalarOrSchedule = 0.99,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    momentum: ScalarOrSchedule = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> Chain:
    """RMSprop: torch.optim.RMSprop's arguments, defaults and trajectory.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        alpha: share of the running mean square that is kept, in [0, 1).
        eps: added to the root of the mean square.
        weight_decay: factor of an L2 penalty, added to the gradient.
        momentum: share of the last velocity that is kept, in [0, 1).
        centered: divide by the running standard deviation instead.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> tx = rmsprop(lr=0.1, alpha=0.75, centered=True)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.7691])}, ['square_avg', 'grad_avg'])

    References:
        Tieleman, Hinton (2012), "Lecture 6.5: RMSProp", Neural networks for machine learning.
    """
    return descent(
        scale_by_rmsprop(alpha, eps, momentum, centered), lr, weight_decay, maximize=maximize
    )
