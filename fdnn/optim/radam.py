"""RAdam: Adam that waits until it can trust its mean square."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.optim.adam import Betas
from fdnn.optim.blocks.descent import descent
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import bias_correction, root, where
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["radam", "scale_by_radam"]


def scale_by_radam(betas: Betas = (0.9, 0.999), eps: ScalarOrSchedule = 1e-8) -> Chain:
    r"""Divide the running mean by the root of the mean square only when that is reliable.

    With $m_t$ and $v_t$ of Adam, $\rho_\infty = 2 / (1 - \beta_2) - 1$ and $\rho_t = \rho_\infty -
    2 t \beta_2^t / (1 - \beta_2^t)$, the direction is $\hat m_t = m_t / (1 - \beta_1^t)$ while
    $\rho_t \le 5$, and then

    $$ \hat m_t \frac{\sqrt{1 - \beta_2^t}}{\sqrt{v_t} + \epsilon} \sqrt{\frac
    {(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}}. $$

    Args:
        betas: $(\beta_1, \beta_2)$, each in [0, 1).
        eps: $\epsilon$, added to the root before its bias is corrected.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> import torch
        >>> tx = scale_by_radam()
        >>> grads = {"w": torch.tensor([0.5, -2.0])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([ 0.5000, -2.0000])}

    References:
        Liu, Jiang, He, Chen, Liu, Gao, Han (2020), "On the variance of the adaptive learning rate
        and beyond" (which takes $\rho_t > 4$; 5 is the authors' code's and torch's).
    """
    check(beta1=(betas[0], 0.0, 1.0), beta2=(betas[1], 0.0, 1.0), eps=(eps, 0.0, math.inf))

    def init(params: Tree) -> dict[str, Tree]:
        return {"exp_avg": tree.zeros_like(params), "exp_avg_sq": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta1, beta2, eps = hyper["beta1"], hyper["beta2"], hyper["eps"]
        correction1 = bias_correction(beta1, count)
        power = beta2 ** (count + 1)  # as torch has it to the last place, which rho makes much of
        correction2 = 1 - power
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * (count + 1) * power / correction2
        trusted = rho > 5
        # Any values above 4 do where they are not used, so that the root has a derivative.
        rho, rho_inf = where(trusted, rho, 6.0), where(trusted, rho_inf, 6.0)
        of_rho = (rho - 4) * (rho - 2) * rho_inf
        rectifier = (of_rho / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
        scaled = where(trusted, rectifier * correction2**0.5 / correction1, 0.0)
        plain = where(trusted, 0.0, 1 / correction1)
        m = leafwise(lambda m, g: m * beta1 + g * (1 - beta1), slots["exp_avg"], updates)
        v = leafwise(lambda v, g: v * beta2 + g * g * (1 - beta2), slots["exp_avg_sq"], updates)
        direction = leafwise(lambda m, v: m * plain + m * scaled / (root(v) + eps), m, v)
        return direction, {"exp_avg": m, "exp_avg_sq": v}, {}

    hyperparams = {"beta1": betas[0], "beta2": betas[1], "eps": eps}
    return chain(
        Part("radam", init, update, hyperparams, slots=("exp_avg", "exp_avg_sq"), elementwise=True)
    )


def radam(
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> Chain:
    """RAdam: torch.optim.RAdam's arguments, defaults and trajectory.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: forgetting factors of the mean and the mean square, each in [0, 1).
        eps: added to the root of the mean square.
        weight_decay: factor of an L2 penalty, or of a decoupled decay.
        decoupled_weight_decay: shrink the parameters themselves, as `adamw` does.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> tx = radam(lr=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.9000])}, ['exp_avg', 'exp_avg_sq'])

    References:
        Liu, Jiang, He, Chen, Liu, Gao, Han (2020), "On the variance of the adaptive learning rate
        and beyond".
    """
    return descent(
        scale_by_radam(betas, eps),
        lr,
        weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
    )
