"""Lion: the sign of a running mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.adam import Betas
from fdnn.optim.blocks.descent import descent
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["lion", "scale_by_lion"]


def scale_by_lion(betas: Betas = (0.9, 0.99)) -> Chain:
    r"""Take the sign of the gradient's running mean, in which the present gradient counts more.

    The direction is $\operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t)$; what is kept is
    $m_t = \beta_2 m_{t-1} + (1 - \beta_2) g_t$. Every number moves by 1, or by 0 where the mean
    is exactly 0. A complex number is a pair of reals, and each part has its sign.

    Args:
        betas: $(\beta_1, \beta_2)$, each in [0, 1): the share of the mean in the direction, and
            the share of the mean that is kept.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> tx = scale_by_lion()
        >>> grads = {"w": torch.tensor([0.5, -2.0, 0.0])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([ 1., -1.,  0.])}

    References:
        Chen et al. (2023), "Symbolic discovery of optimization algorithms".
    """
    check(beta1=(betas[0], 0.0, 1.0), beta2=(betas[1], 0.0, 1.0))

    def init(params: Tree) -> dict[str, Tree]:
        return {"exp_avg": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta1, beta2 = hyper["beta1"], hyper["beta2"]
        m = slots["exp_avg"]
        direction = leafwise(lambda m, g: torch.sign(m * beta1 + g * (1 - beta1)), m, updates)
        m = leafwise(lambda m, g: m * beta2 + g * (1 - beta2), m, updates)
        return direction, {"exp_avg": m}, {}

    hyperparams = {"beta1": betas[0], "beta2": betas[1]}
    return chain(Part("lion", init, update, hyperparams, slots=("exp_avg",), elementwise=True))


def lion(
    lr: ScalarOrSchedule = 1e-4,
    betas: Betas = (0.9, 0.99),
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
) -> Chain:
    r"""Lion: steps of one size, in the direction of a sign, with decoupled weight decay.

    $\theta_t = \theta_{t-1} - \text{lr} \, (\operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1)
    g_t) + \lambda \theta_{t-1})$. Since every step has the full length, the paper takes `lr` 3 to
    10 times smaller than AdamW's, and `weight_decay` 3 to 10 times larger.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: the share of the running mean in the direction, and the share of it that is kept,
            each in [0, 1).
        weight_decay: $\lambda$, the share of a parameter that a step of learning rate 1 would
            remove.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> from fdnn import optim
        >>> tx = lion(lr=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.9000])}, ['exp_avg'])

    References:
        Chen et al. (2023), "Symbolic discovery of optimization algorithms". The default of
        `weight_decay` is the authors' 0; optax's is 1e-3.
    """
    return descent(
        scale_by_lion(betas), lr, weight_decay, decoupled_weight_decay=True, maximize=maximize
    )
