"""AdEMAMix: Adam with a second, much slower mean of the gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.descent import descent
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.exact import exact_count
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import bias_correction, root
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import Scalar, ScalarOrSchedule, Schedule, Tree

__all__ = ["ademamix", "scale_by_ademamix"]

ThreeBetas = tuple[ScalarOrSchedule, ScalarOrSchedule, ScalarOrSchedule]

_SLOTS = ("exp_avg_fast", "exp_avg_slow", "exp_avg_sq")


def scale_by_ademamix(
    betas: ThreeBetas = (0.9, 0.999, 0.9999),
    alpha: ScalarOrSchedule = 5.0,
    eps: ScalarOrSchedule = 1e-8,
    alpha_warmup: int | None = None,
    beta3_warmup: int | None = None,
) -> Chain:
    r"""Add to Adam's mean a slow one, and divide both by the root of the mean square.

    $m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t$, $s_t = \beta_3 s_{t-1} + (1 - \beta_3) g_t$,
    $v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2$; the direction is $(\hat m_t + \alpha s_t) /
    (\sqrt{\hat v_t} + \epsilon)$ with $\hat m_t = m_t / (1 - \beta_1^t)$ and $\hat v_t = v_t / (1 -
    \beta_2^t)$. The slow mean $s$ starts at 0 and is not corrected for it.

    A warm-up makes a schedule of $\alpha$ or $\beta_3$. At step $t$ of $T$ it uses
    $\alpha t / T$, and the $\beta$ whose $1 / \ln \beta$ lies at $t / T$ between those of $\beta_1$
    and $\beta_3$: the half-life of the slow mean grows linearly.

    Args:
        betas: $(\beta_1, \beta_2, \beta_3)$, each in [0, 1): of the fast mean, of the mean square,
            of the slow mean.
        alpha: $\alpha$, the weight of the slow mean.
        eps: $\epsilon$, added to the root.
        alpha_warmup: steps in which $\alpha$ grows from 0; None for none.
        beta3_warmup: steps in which the slow mean slows down from $\beta_1$; None for none.

    Raises:
        ValueError: a value outside its range, or a warm-up of what is itself a schedule.

    Example:
        >>> tx = scale_by_ademamix(alpha=5.0, alpha_warmup=10)
        >>> grads = {"w": torch.tensor([0.5, -2.0])}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> updates["w"], state.hyperparams["alpha"].item()
        (tensor([ 1.0000, -1.0000]), 0.5)

    References:
        Pagliardini, Ablin, Grangier (2024), "The AdEMAMix optimizer: better, faster, older". As
        in the authors' code, the first step is $t = 1$ of a warm-up. optax calls its schedules
        with 0 there.
    """
    check(
        beta1=(betas[0], 0.0, 1.0),
        beta2=(betas[1], 0.0, 1.0),
        beta3=(betas[2], 0.0, 1.0),
        alpha=(alpha, 0.0, math.inf),
        eps=(eps, 0.0, math.inf),
    )
    beta3 = betas[2]
    if alpha_warmup is not None:
        alpha = _alpha_schedule(_constant("alpha", alpha), _steps("alpha_warmup", alpha_warmup))
    if beta3_warmup is not None:
        ends = _constant("betas[0]", betas[0]), _constant("betas[2]", beta3)
        beta3 = _beta3_schedule(*ends, _steps("beta3_warmup", beta3_warmup))

    def init(params: Tree) -> dict[str, Tree]:
        return {name: tree.zeros_like(params) for name in _SLOTS}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta1, beta2, beta3 = hyper["beta1"], hyper["beta2"], hyper["beta3"]
        alpha, eps = hyper["alpha"], hyper["eps"]
        unbias1 = 1 / bias_correction(beta1, count)
        unbias2 = bias_correction(beta2, count) ** -0.5
        m = leafwise(lambda m, g: m * beta1 + g * (1 - beta1), slots["exp_avg_fast"], updates)
        s = leafwise(lambda s, g: s * beta3 + g * (1 - beta3), slots["exp_avg_slow"], updates)
        v = leafwise(lambda v, g: v * beta2 + g * g * (1 - beta2), slots["exp_avg_sq"], updates)
        direction = leafwise(
            lambda m, s, v: (m * unbias1 + s * alpha) / (root(v) * unbias2 + eps),
            m,
            s,
            v,
        )
        return direction, dict(zip(_SLOTS, (m, s, v), strict=True)), {}

    hyperparams = {
        "beta1": betas[0],
        "beta2": betas[1],
        "beta3": beta3,
        "alpha": alpha,
        "eps": eps,
    }
    return chain(Part("ademamix", init, update, hyperparams, slots=_SLOTS, elementwise=True))


def ademamix(
    lr: ScalarOrSchedule = 1e-3,
    betas: ThreeBetas = (0.9, 0.999, 0.9999),
    alpha: ScalarOrSchedule = 5.0,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    alpha_warmup: int | None = None,
    beta3_warmup: int | None = None,
    *,
    maximize: bool = False,
) -> Chain:
    r"""AdEMAMix: AdamW that also follows gradients of thousands of steps ago.

    $\theta_t = \theta_{t-1} - \text{lr} \, ((\hat m_t + \alpha s_t) / (\sqrt{\hat v_t} + \epsilon)
    + \lambda \theta_{t-1})$; see `scale_by_ademamix`. Old gradients need time to be of use: for
    runs of few thousand steps take a `betas[2]` of 0.999. The paper warms up over the whole run.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: forgetting factors of the fast mean, the mean square and the slow mean, each in
            [0, 1).
        alpha: $\alpha$, the weight of the slow mean.
        eps: $\epsilon$, added to the root of the mean square.
        weight_decay: $\lambda$, the share of a parameter that a step of learning rate 1 would
            remove.
        alpha_warmup: steps in which $\alpha$ grows linearly from 0; None for none.
        beta3_warmup: steps in which the slow mean's half-life grows linearly from the fast one's;
            None for none.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range, or a warm-up of what is itself a schedule.

    Example:
        >>> from fdnn import optim
        >>> tx = ademamix(lr=0.1, alpha_warmup=1000, beta3_warmup=1000)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.9000])}, ['exp_avg_fast', 'exp_avg_slow', 'exp_avg_sq'])

    References:
        Pagliardini, Ablin, Grangier (2024), "The AdEMAMix optimizer: better, faster, older".
    """
    return descent(
        scale_by_ademamix(betas, alpha, eps, alpha_warmup, beta3_warmup),
        lr,
        weight_decay,
        decoupled_weight_decay=True,
        maximize=maximize,
    )


def _alpha_schedule(alpha: Scalar, steps: int) -> Schedule:
    return lambda count: alpha * _progress(count, steps)


def _beta3_schedule(beta1: Scalar, beta3: Scalar, steps: int) -> Schedule:
    def schedule(count: Any) -> Tensor:
        progress = _progress(count, steps)
        start, end = 1 / torch.log(progress * 0 + beta1), 1 / torch.log(progress * 0 + beta3)
        return torch.exp(1 / (start + progress * (end - start)))

    return schedule


def _progress(count: Any, steps: int) -> Tensor:
    """Return the share of a warm-up that has passed, the present step included."""
    return ((exact_count(count) + 1) / steps).clamp(max=1.0)


def _constant(name: str, value: ScalarOrSchedule) -> Scalar:
    if callable(value):
        raise ValueError(f"`{name}` must be a number or a 0-d tensor where it is warmed up")
    return value


def _steps(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, or None, got {value}")
    return value
