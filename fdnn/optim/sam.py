"""Sharpness-aware minimisation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check, extra_argument
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part, narrow, widen
from fdnn.types import GradientTransformation, ScalarOrSchedule, Tree

__all__ = ["sam"]


def sam(
    inner: GradientTransformation, rho: ScalarOrSchedule = 0.05, adaptive: bool = False
) -> Chain:
    r"""Step with the gradient at the worst point nearby: look for minima that are flat.

    $g' = \nabla f(\theta + \rho\, g / \lVert g \rVert)$ with $g = \nabla f(\theta)$; `inner` makes
    the step from $g'$. With `adaptive` the neighbourhood scales with the parameters, and the point
    is $\theta + \rho\, \theta^2 g / \lVert \theta g \rVert$ (elementwise products). Where the norm
    is 0, the point is $\theta$. The norm $\lVert g \rVert$ is the diagnostic `grad_norm`.

    `update` needs the function `value_and_grad` as an extra argument, which `train.make_step`
    passes; a step costs two gradients. The state of `inner` is the slot `inner`.

    Args:
        inner: the optimizer, with all that acts on gradients: `sam(chain(clip_by_global_norm(1.0),
            sgd(0.1)))`. What comes before `sam` in a chain changes the point alone. `inner` is
            passed the loss at that point as `value`.
        rho: $\rho$, the radius of the neighbourhood.
        adaptive: scale the neighbourhood by the parameters' sizes.

    Raises:
        ValueError: `rho` is negative, or, when used, `params` or `value_and_grad` is missing.

    Example:
        >>> from fdnn import optim
        >>> tx = sam(optim.sgd(lr=0.1), rho=0.5)
        >>> params = {"x": torch.tensor([3.0, 4.0])}
        >>> def value_and_grad(params):
        ...     return (params["x"] ** 2).sum() / 2, {"x": params["x"]}
        >>> value, grads = value_and_grad(params)
        >>> params, state = optim.step(
        ...     tx, params, grads, tx.init(params), value_and_grad=value_and_grad
        ... )
        >>> params
        {'x': tensor([2.6700, 3.5600])}
        >>> optim.diagnostics(state)["grad_norm"], list(state.slots)
        (tensor(5.), ['inner'])

    References:
        Foret, Kleiner, Mobahi, Neyshabur (2021), "Sharpness-aware minimization for efficiently
        improving generalization".
        Kwon, Kim, Park, Choi (2021), "ASAM: adaptive sharpness-aware minimization for
        scale-invariant learning of deep neural networks" (elementwise, without the constant that
        its experiments add to the parameters' sizes).
    """
    check(rho=(rho, 0.0, math.inf))
    inner = chain(inner)

    def init(params: Tree) -> dict[str, Tree]:
        return {"inner": inner.init(params)}

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        *,
        stored: Tree,
        **extra: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        value_and_grad = extra_argument(extra, "value_and_grad", "sam")
        gradient, place = widen(updates), widen(params)
        norm = tree.global_norm(gradient)
        if adaptive:
            size = tree.global_norm(leafwise(lambda p, g: p * g, place, gradient))
            gradient = leafwise(lambda p, g: p * p * g, place, gradient)
        else:
            size = norm
        scale = hyper["rho"] / torch.where(size == 0, 1.0, size)
        worst = narrow(leafwise(lambda p, g: p + g * scale, place, gradient), params)
        value, there = value_and_grad(worst)
        steps, state = inner.update(there, slots["inner"], params, **{**extra, "value": value})
        return steps, {"inner": state}, {"grad_norm": norm}

    part = Part(
        "sam",
        init,
        update,
        {"rho": rho},
        slots=("inner",),
        diagnostics=("grad_norm",),
        as_is=True,
        is_step=any(part.is_step for part in inner.parts),
        needs_params="`sam` moves away from them",
    )
    return chain(part)
