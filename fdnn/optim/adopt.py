"""ADOPT: Adam that divides by the mean square of earlier gradients only."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.adam import Betas
from fdnn.optim.blocks.decay import add_decayed_weights
from fdnn.optim.blocks.learning_rate import maximize as turn_around
from fdnn.optim.blocks.learning_rate import scale_by_learning_rate
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check, is_zero
from fdnn.optim.core.exact import exact_count
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import root, where
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["adopt", "scale_by_adopt"]


def fourth_root(count: Any) -> Tensor:
    """Return the paper's bound at step `count`, 0 at the first step, which does not move."""
    return exact_count(count) ** 0.25


def scale_by_adopt(
    betas: Betas = (0.9, 0.9999),
    eps: ScalarOrSchedule = 1e-6,
    clip_value: ScalarOrSchedule | None = fourth_root,
) -> Chain:
    r"""Average gradients that were divided by the root of the mean square of those before them.

    The first gradient gives $v_0 = g_0^2$ and moves nothing. From then on, $m_t = \beta_1 m_{t-1} +
    (1 - \beta_1) \operatorname{clip}(g_t / \max(\sqrt{v_{t-1}}, \epsilon), \pm c_t)$ is the
    direction, and $v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2$. Because $v_{t-1}$ does not depend
    on $g_t$, the method converges for every $\beta_2$. No bias is corrected.

    Args:
        betas: $(\beta_1, \beta_2)$, each in [0, 1).
        eps: $\epsilon$, the smallest denominator.
        clip_value: $c_t$, by default $t^{1/4}$, where $t$ is the number of steps before this one;
            None not to clip.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> tx = scale_by_adopt()
        >>> grads = {"w": torch.tensor([0.5, -2.0])}
        >>> first, state = tx.update(grads, tx.init(grads))
        >>> first["w"], tx.update(grads, state)[0]["w"]
        (tensor([0., 0.]), tensor([ 0.1000, -0.1000]))

    References:
        Taniguchi et al. (2024), "ADOPT: modified Adam can converge with any $\beta_2$ with the
        optimal rate", algorithm 2 (with None, algorithm 1). pytorch-optimizer counts from one step
        later, so that its bounds are $(t + 1)^{1/4}$.
    """
    check(
        beta1=(betas[0], 0.0, 1.0),
        beta2=(betas[1], 0.0, 1.0),
        eps=(eps, 0.0, math.inf),
        clip_value=(math.inf if clip_value is None else clip_value, 0.0, math.inf),
    )

    def init(params: Tree) -> dict[str, Tree]:
        return {"exp_avg": tree.zeros_like(params), "exp_avg_sq": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta1, beta2, eps = hyper["beta1"], hyper["beta2"], hyper["eps"]
        is_first = count == 0
        kept = where(is_first, 0.0, beta2)
        fresh = where(is_first, 0.0, 1 - beta1)
        m, v = slots["exp_avg"], slots["exp_avg_sq"]
        normed = leafwise(lambda g, v: g / torch.clamp(root(v), min=eps), updates, v)
        if clip_value is not None:
            bound = hyper["clip_value"]
            normed = leafwise(lambda n: torch.clamp(n, -bound, bound), normed)
        m = leafwise(lambda m, n: m * beta1 + n * fresh, m, normed)
        v = leafwise(lambda v, g: v * kept + g * g * (1 - kept), v, updates)
        return m, {"exp_avg": m, "exp_avg_sq": v}, {}

    hyperparams = {"beta1": betas[0], "beta2": betas[1], "eps": eps}
    if clip_value is not None:
        hyperparams["clip_value"] = clip_value
    slots = ("exp_avg", "exp_avg_sq")
    return chain(Part("adopt", init, update, hyperparams, slots=slots, elementwise=True))


def adopt(
    lr: ScalarOrSchedule = 1e-3,
    betas: Betas = (0.9, 0.9999),
    eps: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    decoupled_weight_decay: bool = False,
    clip_value: ScalarOrSchedule | None = fourth_root,
    *,
    maximize: bool = False,
) -> Chain:
    r"""ADOPT: Adam that converges whatever `betas[1]` is.

    $\theta_t = \theta_{t-1} - \text{lr} \, m_t$ with the direction $m_t$ of `scale_by_adopt`. The
    first step only measures: it moves parameters by nothing but decoupled weight decay.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: forgetting factors of the mean and the mean square, each in [0, 1).
        eps: the smallest denominator.
        weight_decay: factor of an L2 penalty, added to the gradient; or, if decoupled, the share
            of a parameter that a step of learning rate 1 would remove.
        decoupled_weight_decay: let the decay act on the parameters themselves, as in AdamW.
        clip_value: bound of the divided gradients, by default $t^{1/4}$; None not to clip.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> from fdnn import optim
        >>> tx = adopt(lr=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = optim.step(tx, params, {"w": torch.ones(1)}, state)
        >>> params, list(state.slots)
        ({'w': tensor([0.9900])}, ['exp_avg', 'exp_avg_sq'])

    References:
        Taniguchi et al. (2024), "ADOPT: modified Adam can converge with any $\beta_2$ with the
        optimal rate". The paper has no weight decay; this is that of the authors' code, where the
        argument is called `decouple`.
    """
    parts = [scale_by_adopt(betas, eps, clip_value)]
    if not is_zero(weight_decay):
        if decoupled_weight_decay:
            parts.append(_decay_after_the_first(weight_decay))
        else:
            parts.insert(0, add_decayed_weights(weight_decay))
    if maximize:
        parts.insert(0, turn_around())
    return chain(*parts, scale_by_learning_rate(lr))


def _decay_after_the_first(weight_decay: ScalarOrSchedule) -> Chain:
    """Add a multiple of the parameters in every step but the first."""
    check(weight_decay=(weight_decay, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        factor = where(count == 0, 0.0, hyper["weight_decay"])
        return leafwise(lambda u, p: u + p * factor, updates, params), {}, {}

    return chain(
        Part(
            "decay",
            lambda params: {},
            update,
            {"weight_decay": weight_decay},
            elementwise=True,
            needs_params="weight decay needs them",
        )
    )
