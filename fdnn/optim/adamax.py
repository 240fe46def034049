"""Adamax: Adam with the largest gradient in place of the mean square."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.adam import Betas
from fdnn.optim.blocks.descent import descent
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import bias_correction
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["adamax", "scale_by_adamax"]


def scale_by_adamax(betas: Betas = (0.9, 0.999), eps: ScalarOrSchedule = 1e-8) -> Chain:
    r"""Divide the gradient's running mean by its largest recent size.

    $m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t$, $u_t = \max(\beta_2 u_{t-1}, |g_t| + \epsilon)$;
    the direction is $m_t / (1 - \beta_1^t) / u_t$.

    Args:
        betas: $(\beta_1, \beta_2)$, each in [0, 1).
        eps: $\epsilon$, added to the gradient's size.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> tx = scale_by_adamax()
        >>> grads = {"w": torch.tensor([0.5, -2.0])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([ 1., -1.])}

    References:
        Kingma, Ba (2015), "Adam: a method for stochastic optimization" (section 7.1, which has no
        epsilon; it is where torch has it).
    """
    check(beta1=(betas[0], 0.0, 1.0), beta2=(betas[1], 0.0, 1.0), eps=(eps, 0.0, math.inf))

    def init(params: Tree) -> dict[str, Tree]:
        return {"exp_avg": tree.zeros_like(params), "exp_inf": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta1, beta2, eps = hyper["beta1"], hyper["beta2"], hyper["eps"]
        correction = bias_correction(beta1, count)
        m = leafwise(lambda m, g: m * beta1 + g * (1 - beta1), slots["exp_avg"], updates)
        u = leafwise(
            lambda u, g: torch.maximum(u * beta2, g.abs() + eps), slots["exp_inf"], updates
        )
        # Without an epsilon, what never had a gradient must not become 0 / 0.
        direction = leafwise(lambda m, u: m / correction / (u + torch.finfo(u.dtype).tiny), m, u)
        return direction, {"exp_avg": m, "exp_inf": u}, {}

    hyperparams = {"beta1": betas[0], "beta2": betas[1], "eps": eps}
    return chain(
        Part("adamax", init, update, hyperparams, slots=("exp_avg", "exp_inf"), elementwise=True)
    )


def adamax(
    lr: ScalarOrSchedule = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
) -> Chain:
    """Adamax: torch.optim.Adamax's arguments, defaults and trajectory.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: forgetting factors of the mean and of the largest gradient, each in [0, 1).
        eps: added to the gradient's size.
        weight_decay: factor of an L2 penalty, added to the gradient.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> from fdnn import optim
        >>> tx = adamax(lr=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.9000])}, ['exp_avg', 'exp_inf'])

    References:
        Kingma, Ba (2015), "Adam: a method for stochastic optimization".
    """
    return descent(scale_by_adamax(betas, eps), lr, weight_decay, maximize=maximize)
