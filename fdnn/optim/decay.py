"""Weight decay."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn.optim.chain import Chain, chain
from fdnn.optim.check import check
from fdnn.optim.leafwise import leafwise
from fdnn.optim.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["add_decayed_weights"]


def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0) -> Chain:
    r"""Add a multiple of the parameters: $u' = u + \lambda \theta$.

    Before an optimizer's scaling this is the gradient of an L2 penalty; between the scaling and
    the learning rate it is decoupled weight decay.

    Args:
        weight_decay: the factor $\lambda$: a number, a 0-d tensor, or a schedule.

    Raises:
        ValueError: `weight_decay` is negative, or `update` is called without `params`.

    Example:
        >>> import torch
        >>> tx = add_decayed_weights(0.5)
        >>> params = {"w": torch.ones(1)}
        >>> tx.update({"w": torch.zeros(1)}, tx.init(params), params)[0]
        {'w': tensor([0.5000])}

    References:
        Loshchilov, Hutter (2019), "Decoupled weight decay regularization".
    """
    check(weight_decay=(weight_decay, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        if params is None:
            raise ValueError("`params` must be given to `update`: weight decay needs them")
        factor = hyper["weight_decay"]
        return leafwise(lambda u, p: u + p * factor, updates, params), {}, {}

    return chain(Part("decay", lambda params: {}, update, {"weight_decay": weight_decay}))
