"""fdnn's optimizers under TorchOpt's signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.types import GradientTransformation, Params, Tree

__all__ = ["TorchOptTransformation", "as_torchopt"]


class TorchOptTransformation(NamedTuple):
    """A pair of functions with TorchOpt's signature.

    Attributes:
        init: `init(params) -> state`.
        update: `update(updates, state, *, params=None, inplace=...) -> (updates, state)`.
    """

    init: Callable[[Params], Any]
    update: Callable[..., tuple[Tree, Any]]


def as_torchopt(tx: GradientTransformation, *, inplace: bool = False) -> TorchOptTransformation:
    """Give an optimizer TorchOpt's signature, for libraries that stand on TorchOpt.

    TorchOpt's `update` overwrites the gradients and the state that it is given unless it is told
    `inplace=False`. This one does so only where it is asked to: by the caller's `inplace=True`, or
    by `inplace=True` here for callers that say nothing. Then the new values are written into the
    given tensors, without a graph, and these are returned. Otherwise what it returns is new.

    Args:
        tx: an optimizer of fdnn, or any pair `(init, update)`.
        inplace: what a caller means that does not say. True for callers that throw the returned
            state away: with False their optimizer would never leave its first step.

    Example:
        >>> from fdnn import optim
        >>> tx = as_torchopt(optim.adam(lr=0.1))
        >>> params = {"w": torch.ones(1)}
        >>> state = tx.init(params)
        >>> updates, state = tx.update({"w": torch.ones(1)}, state, params=params)
        >>> updates["w"], state.count
        (tensor([-0.1000]), tensor(1))

    References:
        Ren, Feng, Liu, Pan, Fu, Mai, Yang (2023), "TorchOpt: an efficient library for
        differentiable optimization".
    """
    default = inplace

    def update(
        updates: Tree, state: Any, *, params: Params | None = None, inplace: bool = default
    ) -> tuple[Tree, Any]:
        new = tx.update(updates, state, params)
        return tree.map(_overwrite, (updates, state), new) if inplace else new

    return TorchOptTransformation(tx.init, update)


@torch.no_grad()
def _overwrite(old: Tensor, new: Tensor) -> Tensor:
    return old if old is new else old.copy_(new)
