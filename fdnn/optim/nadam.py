"""NAdam: Adam with Nesterov's momentum."""

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
from fdnn.optim.core.moments import bias_correction, root
from fdnn.optim.core.part import Hyper, Notes, Part, scalar_like
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["nadam", "scale_by_nadam"]


def scale_by_nadam(
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    momentum_decay: ScalarOrSchedule = 4e-3,
) -> Chain:
    r"""Scale as Adam does, and look ahead along the mean, the more the later the step.

    With $m_t$ and $\hat v_t$ of Adam and the momenta $\mu_t = \beta_1 (1 - 0.96^{t \psi} / 2)$,
    $P_t = \mu_1 \cdots \mu_t$, the direction is $\left(\frac{1 - \mu_t}{1 - P_t} g_t +
    \frac{\mu_{t+1}}{1 - P_t \mu_{t+1}} m_t\right) / (\sqrt{\hat v_t} + \epsilon)$.

    Args:
        betas: $(\beta_1, \beta_2)$, each in [0, 1).
        eps: $\epsilon$, added to the root.
        momentum_decay: $\psi$: how fast $\mu_t$ grows from $\beta_1 / 2$ to $\beta_1$.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> tx = scale_by_nadam()
        >>> grads = {"w": torch.tensor([0.5, -2.0])}
        >>> _, state = tx.update(grads, tx.init(grads))
        >>> state.slots["mu_product"]
        tensor(0.4501, dtype=torch.float64)

    References:
        Dozat (2016), "Incorporating Nesterov momentum into Adam". The product of momenta is one
        0-d tensor for all leaves, in float64 (torch has one for each, in the default dtype).
    """
    check(
        beta1=(betas[0], 0.0, 1.0),
        beta2=(betas[1], 0.0, 1.0),
        eps=(eps, 0.0, math.inf),
        momentum_decay=(momentum_decay, 0.0, math.inf),
    )

    def init(params: Tree) -> dict[str, Tree]:
        return {
            "exp_avg": tree.zeros_like(params),
            "exp_avg_sq": tree.zeros_like(params),
            "mu_product": scalar_like(params, 1.0),
        }

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta1, beta2, eps = hyper["beta1"], hyper["beta2"], hyper["eps"]

        def momentum(t: Tensor) -> Tensor:
            return beta1 * (1 - torch.exp(t * hyper["momentum_decay"] * math.log(0.96)) / 2)

        mu, mu_next = momentum(count + 1), momentum(count + 2)
        product = slots["mu_product"] * mu
        of_g, of_m = (1 - mu) / (1 - product), mu_next / (1 - product * mu_next)
        unbias2 = bias_correction(beta2, count) ** -0.5
        m = leafwise(lambda m, g: m * beta1 + g * (1 - beta1), slots["exp_avg"], updates)
        v = leafwise(lambda v, g: v * beta2 + g * g * (1 - beta2), slots["exp_avg_sq"], updates)
        direction = leafwise(
            lambda g, m, v: (g * of_g + m * of_m) / (root(v) * unbias2 + eps),
            updates,
            m,
            v,
        )
        return direction, {"exp_avg": m, "exp_avg_sq": v, "mu_product": product}, {}

    hyperparams = {
        "beta1": betas[0],
        "beta2": betas[1],
        "eps": eps,
        "momentum_decay": momentum_decay,
    }
    slots = ("exp_avg", "exp_avg_sq", "mu_product")
    return chain(Part("nadam", init, update, hyperparams, slots=slots))


def nadam(
    lr: ScalarOrSchedule = 2e-3,
    betas: Betas = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    momentum_decay: ScalarOrSchedule = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> Chain:
    """NAdam: torch.optim.NAdam's arguments, defaults and trajectory.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: forgetting factors of the mean and the mean square, each in [0, 1).
        eps: added to the root of the mean square.
        weight_decay: factor of an L2 penalty, or of a decoupled decay.
        momentum_decay: how fast the momentum grows to its full size.
        decoupled_weight_decay: shrink the parameters themselves, as `adamw` does.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> from fdnn import optim
        >>> tx = nadam(lr=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.8944])}, ['exp_avg', 'exp_avg_sq', 'mu_product'])

    References:
        Dozat (2016), "Incorporating Nesterov momentum into Adam".
    """
    return descent(
        scale_by_nadam(betas, eps, momentum_decay),
        lr,
        weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
    )
