"""Stochastic gradient descent with momentum."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.descent import descent
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check, is_zero
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import where
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["scale_by_momentum", "sgd"]


def scale_by_momentum(
    momentum: ScalarOrSchedule = 0.9,
    dampening: ScalarOrSchedule = 0.0,
    nesterov: bool = False,
) -> Chain:
    r"""Accumulate gradients with exponential forgetting, as torch.optim.SGD does.

    $b_1 = g_1$, $b_t = \mu b_{t-1} + (1 - \tau) g_t$; the direction is $b_t$, or
    $g_t + \mu b_t$ with `nesterov`. On a constant gradient $b$ grows to $1 / (1 - \mu)$ times
    the gradient.

    Args:
        momentum: $\mu$, in [0, 1).
        dampening: $\tau$, which does not act on the first step.
        nesterov: look ahead along the momentum.

    Raises:
        ValueError: a value outside its range, or `nesterov` with dampening or without momentum.

    Example:
        >>> import torch
        >>> tx = scale_by_momentum(0.9)
        >>> grads = {"w": torch.ones(1)}
        >>> _, state = tx.update(grads, tx.init(grads))
        >>> tx.update(grads, state)[0]
        {'w': tensor([1.9000])}

    References:
        Polyak (1964), "Some methods of speeding up the convergence of iteration methods".
        Sutskever, Martens, Dahl, Hinton (2013), "On the importance of initialization and momentum
        in deep learning".
    """
    check(momentum=(momentum, 0.0, 1.0), dampening=(dampening, -math.inf, math.inf))
    if nesterov and (is_zero(momentum) or not is_zero(dampening)):
        raise ValueError(
            "`nesterov` must come with a momentum above 0 and no dampening, "
            f"got momentum {momentum} and dampening {dampening}"
        )

    def init(params: Tree) -> dict[str, Tree]:
        return {"momentum_buffer": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        mu = hyper["momentum"]
        fresh = where(count == 0, 1.0, 1 - hyper["dampening"])
        buffer = leafwise(lambda b, g: b * mu + g * fresh, slots["momentum_buffer"], updates)
        direction = leafwise(lambda g, b: g + b * mu, updates, buffer) if nesterov else buffer
        return direction, {"momentum_buffer": buffer}, {}

    hyperparams: dict[str, ScalarOrSchedule] = {"momentum": momentum, "dampening": dampening}
    return chain(
        Part("momentum", init, update, hyperparams, slots=("momentum_buffer",), elementwise=True)
    )


def sgd(
    lr: ScalarOrSchedule = 1e-3,
    momentum: ScalarOrSchedule = 0.0,
    dampening: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> Chain:
    r"""Stochastic gradient descent: torch.optim.SGD's arguments, defaults and trajectory.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        momentum: share of the last velocity that is kept, in [0, 1).
        dampening: how much less than whole a gradient enters the velocity.
        weight_decay: factor of an L2 penalty, added to the gradient.
        nesterov: Nesterov's momentum.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range, or `nesterov` with dampening or without momentum.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> tx = sgd(lr=0.1, momentum=0.9)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.9000])}, ['momentum_buffer'])

    References:
        Robbins, Monro (1951), "A stochastic approximation method". For momentum see
        `scale_by_momentum`.
    """
    moves = nesterov or not is_zero(momentum)
    direction = scale_by_momentum(momentum, dampening, nesterov) if moves else chain()
    return descent(direction, lr, weight_decay, maximize=maximize)
