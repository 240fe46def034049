"""Momentum as a decaying sum."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["trace"]


def trace(decay: ScalarOrSchedule, nesterov: bool = False) -> Chain:
    r"""Sum up the updates with exponential forgetting.

    $t_k = \gamma t_{k-1} + u_k$ from $t_0 = 0$; what is passed on is $t_k$, or $u_k + \gamma t_k$
    with `nesterov`. On constant updates the trace grows to $1 / (1 - \gamma)$ times their size,
    where `ema` keeps it. It is `scale_by_momentum` without dampening.

    Args:
        decay: the share $\gamma$ that is kept, in [0, 1).
        nesterov: look ahead along the trace.

    Raises:
        ValueError: `decay` is outside its range.

    Example:
        >>> import torch
        >>> tx = trace(0.9)
        >>> grads = {"w": torch.ones(1)}
        >>> _, state = tx.update(grads, tx.init(grads))
        >>> tx.update(grads, state)[0]
        {'w': tensor([1.9000])}

    References:
        Polyak (1964), "Some methods of speeding up the convergence of iteration methods".
    """
    check(decay=(decay, 0.0, 1.0))

    def init(params: Tree) -> dict[str, Tree]:
        return {"trace": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        kept = hyper["decay"]
        summed = leafwise(lambda t, u: t * kept + u, slots["trace"], updates)
        ahead = leafwise(lambda u, t: u + t * kept, updates, summed) if nesterov else summed
        return ahead, {"trace": summed}, {}

    return chain(Part("trace", init, update, {"decay": decay}, slots=("trace",), elementwise=True))
