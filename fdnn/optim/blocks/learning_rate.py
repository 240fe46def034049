"""The ends of every optimizer: the sign at the beginning, the learning rate at the end."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["maximize", "scale_by_learning_rate"]


def scale_by_learning_rate(lr: ScalarOrSchedule) -> Chain:
    r"""Turn a direction into a step downhill: $u = -\text{lr} \cdot d$.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.

    Raises:
        ValueError: `lr` is negative.

    Example:
        >>> import torch
        >>> tx = scale_by_learning_rate(lambda count: 0.5**count)
        >>> updates, _ = tx.update({"w": torch.ones(1)}, tx.init({"w": torch.ones(1)}))
        >>> updates
        {'w': tensor([-1.])}
    """
    check(lr=(lr, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        factor = -hyper["lr"]
        return leafwise(lambda u: u * factor, updates), {}, {}

    return chain(
        Part("learning_rate", lambda params: {}, update, {"lr": lr}, is_step=True, elementwise=True)
    )


def maximize() -> Chain:
    """Turn gradients around, so that what follows climbs.

    Example:
        >>> import torch
        >>> tx = maximize()
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.ones(1)}))[0]
        {'w': tensor([-1.])}
    """

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        return leafwise(lambda u: -u, updates), {}, {}

    return chain(Part("maximize", lambda params: {}, update, elementwise=True))
