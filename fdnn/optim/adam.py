"""Adam and AMSGrad."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.descent import descent
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import bias_correction, root
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["adam", "scale_by_adam"]

Betas = tuple[ScalarOrSchedule, ScalarOrSchedule]


def scale_by_adam(
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    amsgrad: bool = False,
) -> Chain:
    r"""Divide the gradient's running mean by the root of its running mean square.

    $m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t$, $v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2$;
    the direction is $\hat m_t / (\sqrt{\hat v_t} + \epsilon)$ with $\hat m_t = m_t / (1 -
    \beta_1^t)$ and $\hat v_t = v_t / (1 - \beta_2^t)$. With `amsgrad` the largest $v$ so far
    takes the place of $v_t$.

    Args:
        betas: $(\beta_1, \beta_2)$, each in [0, 1).
        eps: $\epsilon$, added to the root.
        amsgrad: never let the denominator shrink.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> tx = scale_by_adam()
        >>> grads = {"w": torch.tensor([0.5, -2.0])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([ 1., -1.])}

    References:
        Kingma, Ba (2015), "Adam: a method for stochastic optimization".
        Reddi, Kale, Kumar (2018), "On the convergence of Adam and beyond" (AMSGrad; as in torch,
        the maximum is taken before the bias correction).
    """
    check(beta1=(betas[0], 0.0, 1.0), beta2=(betas[1], 0.0, 1.0), eps=(eps, 0.0, math.inf))
    slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 3 if amsgrad else 2]

    def init(params: Tree) -> dict[str, Tree]:
        return {name: tree.zeros_like(params) for name in slots}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta1, beta2, eps = hyper["beta1"], hyper["beta2"], hyper["eps"]
        correction1 = bias_correction(beta1, count)
        unbias2 = bias_correction(beta2, count) ** -0.5
        m = leafwise(lambda m, g: m * beta1 + g * (1 - beta1), slots["exp_avg"], updates)
        v = leafwise(lambda v, g: v * beta2 + g * g * (1 - beta2), slots["exp_avg_sq"], updates)
        left = {"exp_avg": m, "exp_avg_sq": v}
        if amsgrad:
            v = left["max_exp_avg_sq"] = leafwise(torch.maximum, slots["max_exp_avg_sq"], v)
        direction = leafwise(lambda m, v: m / ((root(v) * unbias2 + eps) * correction1), m, v)
        return direction, left, {}

    hyperparams = {"beta1": betas[0], "beta2": betas[1], "eps": eps}
    return chain(Part("adam", init, update, hyperparams, slots=slots, elementwise=True))


def adam(
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> Chain:
    """Adam: torch.optim.Adam's arguments, defaults and trajectory.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: forgetting factors of the mean and the mean square, each in [0, 1).
        eps: added to the root of the mean square.
        weight_decay: factor of an L2 penalty, or of a decoupled decay.
        amsgrad: use the largest mean square so far.
        maximize: climb instead of descend.
        decoupled_weight_decay: shrink the parameters themselves, as `adamw` does.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> from fdnn import optim
        >>> tx = adam(lr=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.9000])}, ['exp_avg', 'exp_avg_sq'])

    References:
        Kingma, Ba (2015), "Adam: a method for stochastic optimization".
    """
    return descent(
        scale_by_adam(betas, eps, amsgrad),
        lr,
        weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
    )
