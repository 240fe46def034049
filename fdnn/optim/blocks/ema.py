"""The running mean of the updates."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import bias_correction
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["ema"]


def ema(decay: ScalarOrSchedule, debias: bool = True) -> Chain:
    r"""Replace the updates by their exponential moving average.

    $e_t = \beta e_{t-1} + (1 - \beta) u_t$ from $e_0 = 0$; what is passed on is $e_t$, divided by
    $1 - \beta^t$ with `debias`, so that constant updates pass unchanged from the first step.

    Args:
        decay: the share $\beta$ that is kept, in [0, 1).
        debias: make up for the start from zero.

    Raises:
        ValueError: `decay` is outside its range.

    Example:
        >>> import torch
        >>> tx = ema(0.9)
        >>> grads = {"w": torch.ones(1)}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> updates["w"], state.slots["ema"]["w"]
        (tensor([1.]), tensor([0.1000]))

    References:
        Kingma, Ba (2015), "Adam: a method for stochastic optimization" (the correction).
    """
    check(decay=(decay, 0.0, 1.0))

    def init(params: Tree) -> dict[str, Tree]:
        return {"ema": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta = hyper["decay"]
        mean = leafwise(lambda e, u: e * beta + u * (1 - beta), slots["ema"], updates)
        if not debias:
            return mean, {"ema": mean}, {}
        weight = bias_correction(beta, count)
        return leafwise(lambda e: e / weight, mean), {"ema": mean}, {}

    return chain(Part("ema", init, update, {"decay": decay}, slots=("ema",), elementwise=True))
