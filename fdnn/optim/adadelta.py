"""Adadelta: steps in the units of the parameters."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.descent import descent
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import root
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["adadelta", "scale_by_adadelta"]


def scale_by_adadelta(rho: ScalarOrSchedule = 0.9, eps: ScalarOrSchedule = 1e-6) -> Chain:
    r"""Scale the gradient by the running size of directions over the running size of gradients.

    $v_t = \rho v_{t-1} + (1 - \rho) g_t^2$; the direction is $d_t = g_t \sqrt{a_{t-1} + \epsilon}
    / \sqrt{v_t + \epsilon}$, and $a_t = \rho a_{t-1} + (1 - \rho) d_t^2$.

    Args:
        rho: $\rho$, the share of both means that is kept, in [0, 1).
        eps: $\epsilon$, added under the roots; it sets the size of the first steps.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> import torch
        >>> tx = scale_by_adadelta(rho=0.75, eps=1e-6)
        >>> grads = {"w": torch.tensor([100.0, -1.0])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([ 0.0020, -0.0020])}

    References:
        Zeiler (2012), "ADADELTA: an adaptive learning rate method".
    """
    check(rho=(rho, 0.0, 1.0), eps=(eps, 0.0, math.inf))

    def init(params: Tree) -> dict[str, Tree]:
        return {"square_avg": tree.zeros_like(params), "acc_delta": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        rho, eps, acc = hyper["rho"], hyper["eps"], slots["acc_delta"]
        v = leafwise(lambda v, g: v * rho + g * g * (1 - rho), slots["square_avg"], updates)
        direction = leafwise(lambda g, a, v: root(a + eps) / root(v + eps) * g, updates, acc, v)
        acc = leafwise(lambda a, d: a * rho + d * d * (1 - rho), acc, direction)
        return direction, {"square_avg": v, "acc_delta": acc}, {}

    return chain(
        Part(
            "adadelta",
            init,
            update,
            {"rho": rho, "eps": eps},
            slots=("square_avg", "acc_delta"),
            elementwise=True,
        )
    )


def adadelta(
    lr: ScalarOrSchedule = 1.0,
    rho: ScalarOrSchedule = 0.9,
    eps: ScalarOrSchedule = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
) -> Chain:
    """Adadelta: torch.optim.Adadelta's arguments, defaults and trajectory.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule; 1 is the paper's method.
        rho: share of the running mean squares that is kept, in [0, 1).
        eps: added under the roots; it sets the size of the first steps.
        weight_decay: factor of an L2 penalty, added to the gradient.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> tx = adadelta(eps=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.2929])}, ['square_avg', 'acc_delta'])

    References:
        Zeiler (2012), "ADADELTA: an adaptive learning rate method". It has no learning rate.
    """
    return descent(scale_by_adadelta(rho, eps), lr, weight_decay, maximize=maximize)
