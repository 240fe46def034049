"""Schedule-free AdamW."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.decay import add_decayed_weights
from fdnn.optim.blocks.learning_rate import scale_by_learning_rate
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check, is_zero
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import bias_correction, root
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.optim.schedule_free import schedule_free
from fdnn.types import Scalar, ScalarOrSchedule, Tree

__all__ = ["schedule_free_adamw"]


def schedule_free_adamw(
    lr: ScalarOrSchedule = 0.0025,
    betas: tuple[Scalar, ScalarOrSchedule] = (0.9, 0.999),
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    warmup_steps: ScalarOrSchedule = 0,
    r: ScalarOrSchedule = 0.0,
    weight_lr_power: ScalarOrSchedule = 2.0,
) -> Chain:
    r"""Schedule-free AdamW: the `schedulefree` package's AdamWScheduleFree.

    $z$ takes the steps of AdamW without a mean, $-\text{lr} \, (g / (\sqrt{\hat v} + \epsilon) +
    \lambda y)$; $x$ averages them, and the parameters are $y = (1 - \beta_1) z + \beta_1 x$. See
    `schedule_free` for where to evaluate.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule that only rises.
        betas: $\beta_1$, how near to the average gradients are taken, in (0, 1), which is the
            hyperparameter `beta` of the state; $\beta_2$, the forgetting factor of the mean
            square, in [0, 1).
        eps: $\epsilon$, added to the root of the mean square.
        weight_decay: $\lambda$, decoupled weight decay at $y$.
        warmup_steps: steps in which the learning rate grows linearly.
        r: power of the step's number in the weights of the average.
        weight_lr_power: power of the learning rate in the weights of the average.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> tx = schedule_free_adamw(lr=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots["inner"].slots)
        ({'w': tensor([0.9000])}, ['exp_avg_sq'])

    References:
        Defazio et al. (2024), "The road less scheduled". The paper's algorithm decays at $z$ by
        default; the package, and so this, at $y$.
    """
    inner = chain(
        _scale_by_rms(betas[1], eps),
        *([] if is_zero(weight_decay) else [add_decayed_weights(weight_decay)]),
        scale_by_learning_rate(lr),
    )
    return schedule_free(inner, betas[0], warmup_steps, r, weight_lr_power)


def _scale_by_rms(beta2: ScalarOrSchedule, eps: ScalarOrSchedule) -> Part:
    """Divide gradients by the root of their bias-corrected mean square: Adam without a mean."""
    check(beta2=(beta2, 0.0, 1.0), eps=(eps, 0.0, math.inf))

    def init(params: Tree) -> dict[str, Tree]:
        return {"exp_avg_sq": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta2, eps = hyper["beta2"], hyper["eps"]
        unbias2 = bias_correction(beta2, count) ** -0.5
        v = leafwise(lambda v, g: v * beta2 + g * g * (1 - beta2), slots["exp_avg_sq"], updates)
        direction = leafwise(lambda g, v: g / (root(v) * unbias2 + eps), updates, v)
        return direction, {"exp_avg_sq": v}, {}

    return Part(
        "rms",
        init,
        update,
        {"beta2": beta2, "eps": eps},
        slots=("exp_avg_sq",),
        elementwise=True,
    )
