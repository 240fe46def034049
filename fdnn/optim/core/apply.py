"""From updates to new parameters."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from fdnn.optim.core.chain import Chain, add
from fdnn.optim.core.part import narrow
from fdnn.types import GradientTransformation, Params, Tree

__all__ = ["apply_updates", "step"]

State = TypeVar("State")
"""An optimizer's state."""


def apply_updates(params: Params, updates: Tree) -> Params:
    """Add updates to parameters, leaf by leaf, in the parameters' dtypes.

    Raises:
        ValueError: the trees have different structures.

    Example:
        >>> apply_updates({"w": torch.ones(2)}, {"w": torch.tensor([0.5, -0.5])})
        {'w': tensor([1.5000, 0.5000])}
    """
    new: Params = add(params, narrow(updates, params))
    return new


def step(
    tx: GradientTransformation, params: Params, grads: Tree, opt_state: State, **extra: Any
) -> tuple[Params, State]:
    """Take one optimizer step: `tx.update`, then `apply_updates`.

    Args:
        tx: the optimizer.
        params: parameters.
        grads: their gradients, a tree of the same structure.
        opt_state: from `tx.init(params)` or the last step.
        **extra: what `tx.update` wants besides, such as the loss as `value`.

    Returns:
        `(params, opt_state)`, new.

    Example:
        >>> from fdnn import optim
        >>> tx = optim.sgd(lr=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> params, _ = step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params
        {'w': tensor([0.9000])}
    """
    # Eagerly in one go, which is faster; the compiler sees to that by itself.
    if isinstance(tx, Chain) and not torch.compiler.is_compiling():
        new: tuple[Params, Any] = tx.update.step(params, grads, opt_state, extra)  # type: ignore[arg-type]
        return new
    updates, opt_state = tx.update(grads, opt_state, params, **extra)
    return apply_updates(params, updates), opt_state
