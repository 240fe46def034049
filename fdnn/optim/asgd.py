"""Averaged stochastic gradient descent."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.decay import add_decayed_weights
from fdnn.optim.blocks.learning_rate import maximize as turn_around
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check, is_zero
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part, scalar_like
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["asgd", "scale_by_asgd"]


def scale_by_asgd(
    lr: ScalarOrSchedule = 1e-2,
    lambd: ScalarOrSchedule = 1e-4,
    alpha: ScalarOrSchedule = 0.75,
    t0: ScalarOrSchedule = 1e6,
) -> Chain:
    r"""Turn the gradient into a step whose size decays, and average where the steps lead.

    $\theta_t = (1 - \lambda \eta_t) \theta_{t-1} - \eta_t g_t$ and $\bar\theta_t =
    \bar\theta_{t-1} + \mu_t (\theta_t - \bar\theta_{t-1})$, with $\eta_1 = \gamma$, $\eta_{t+1} =
    \gamma / (1 + \lambda \gamma t)^\alpha$, $\mu_1 = 1$ and $\mu_{t+1} = 1 / \max(1, t - t_0)$. The
    average, a plain mean of the iterates from step $t_0 + 2$ on and the last iterate before, is
    the slot `ax`. What comes out is a step, to which no learning rate needs to be applied.

    Args:
        lr: $\gamma$. As in torch a change acts one step late, for $\eta_{t+1}$ is known at $t$.
        lambd: $\lambda$: how fast parameters shrink and steps get smaller.
        alpha: $\alpha$, the power of the decay.
        t0: $t_0$: how many steps go by before averaging begins.

    Raises:
        ValueError: `lr` is negative, or `update` is called without `params`.

    Example:
        >>> tx = scale_by_asgd(lr=0.5, lambd=0.0, t0=0.0)
        >>> params, state = {"w": torch.zeros(1)}, tx.init({"w": torch.zeros(1)})
        >>> for _ in range(3):
        ...     updates, state = tx.update({"w": torch.ones(1)}, state, params)
        ...     params = {"w": params["w"] + updates["w"]}
        >>> params, state.slots["ax"]
        ({'w': tensor([-1.5000])}, {'w': tensor([-1.2500])})

    References:
        Polyak, Juditsky (1992), "Acceleration of stochastic approximation by averaging".
        Bottou (2010), "Large-scale machine learning with stochastic gradient descent" (the
        schedules of eta and mu). They are one 0-d tensor each for all leaves, in float64 (torch
        has one for each leaf, in the default dtype).
    """
    check(
        lr=(lr, 0.0, math.inf),
        lambd=(lambd, -math.inf, math.inf),
        alpha=(alpha, -math.inf, math.inf),
        t0=(t0, -math.inf, math.inf),
    )

    def init(params: Tree) -> dict[str, Tree]:
        return {
            "eta": scalar_like(params, 0.0),  # the first step takes lr
            "mu": scalar_like(params, 1.0),
            "ax": tree.zeros_like(params),
        }

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        lr, lambd, mu, t = hyper["lr"], hyper["lambd"], slots["mu"], count + 1
        eta = torch.where(count == 0, lr, slots["eta"])
        steps = leafwise(lambda g, p: (p * lambd + g) * -eta, updates, params)
        ax = leafwise(
            lambda ax, p, step: ax * (1 - mu) + (p + step) * mu, slots["ax"], params, steps
        )
        next_eta = lr / (1 + lambd * lr * t) ** hyper["alpha"]
        next_mu = 1 / (t - hyper["t0"]).clamp(min=1.0)
        return steps, {"eta": next_eta, "mu": next_mu, "ax": ax}, {}

    hyperparams = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0}
    slots = ("eta", "mu", "ax")
    return chain(
        Part(
            "asgd",
            init,
            update,
            hyperparams,
            slots=slots,
            is_step=True,
            needs_params="ASGD averages them",
        )
    )


def asgd(
    lr: ScalarOrSchedule = 1e-2,
    lambd: ScalarOrSchedule = 1e-4,
    alpha: ScalarOrSchedule = 0.75,
    t0: ScalarOrSchedule = 1e6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
) -> Chain:
    """Averaged SGD: torch.optim.ASGD's arguments, defaults and trajectory.

    The averaged parameters, which are the ones to evaluate, are `state.slots["ax"]`.

    Args:
        lr: learning rate of the first step: a number, a 0-d tensor, or a schedule.
        lambd: how fast parameters shrink and steps get smaller.
        alpha: power with which steps get smaller.
        t0: how many steps go by before averaging begins.
        weight_decay: factor of an L2 penalty, added to the gradient.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> from fdnn import optim
        >>> tx = asgd(lr=0.1, lambd=0.0)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, state.slots["ax"]
        ({'w': tensor([0.9000])}, {'w': tensor([0.9000])})

    References:
        Polyak, Juditsky (1992), "Acceleration of stochastic approximation by averaging".
    """
    return chain(
        *([turn_around()] if maximize else []),
        *([] if is_zero(weight_decay) else [add_decayed_weights(weight_decay)]),
        scale_by_asgd(lr, lambd, alpha, t0),
    )
