"""Gradient clipping."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.optim.chain import Chain, chain
from fdnn.optim.check import check
from fdnn.optim.leafwise import leafwise
from fdnn.optim.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["clip_by_global_norm"]

_EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_ adds to the norm


def clip_by_global_norm(max_norm: ScalarOrSchedule) -> Chain:
    r"""Shrink all gradients together so that their joint norm is at most `max_norm`.

    $g' = g \cdot \min(1, \text{max\_norm} / (\lVert g \rVert_2 + 10^{-6}))$, as
    `torch.nn.utils.clip_grad_norm_` does it. The norm before clipping is the diagnostic
    `grad_norm`.

    Args:
        max_norm: the largest norm: a number, a 0-d tensor, or a schedule.

    Raises:
        ValueError: `max_norm` is negative.

    Example:
        >>> import torch
        >>> tx = clip_by_global_norm(1.0)
        >>> grads = {"w": torch.tensor([3.0, 4.0])}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> updates["w"], state.diagnostics["grad_norm"]
        (tensor([0.6000, 0.8000]), tensor(5.))

    References:
        Pascanu, Mikolov, Bengio (2013), "On the difficulty of training recurrent neural networks".
    """
    check(max_norm=(max_norm, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        norm = tree.global_norm(updates)
        factor = (hyper["max_norm"] / (norm + _EPS)).clamp(max=1.0)
        return leafwise(lambda u: u * factor, updates), {}, {"grad_norm": norm}

    return chain(
        Part("clip", lambda params: {}, update, {"max_norm": max_norm}, diagnostics=("grad_norm",))
    )
