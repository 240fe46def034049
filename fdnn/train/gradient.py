"""The gradient of a loss: by autograd's tape, or under transforms by functorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.branch import can_see
from fdnn.types import Params

__all__ = ["value_and_grad"]


def value_and_grad(
    loss: Callable[..., tuple[Tensor, Any]], *, differentiable: bool = False
) -> Callable[..., tuple[tuple[Tensor, Any], Params]]:
    """Differentiate a loss with respect to its first argument, a flat dict of tensors.

    Args:
        loss: `loss(params, ...) -> (value, aux)`.
        differentiable: keep the graph, so that the gradient can be differentiated again.

    Returns:
        A function of the same arguments that returns `((value, aux), grads)`.

    Example:
        >>> square = value_and_grad(lambda params: (params["x"] ** 2, None))
        >>> square({"x": torch.tensor(3.0)})
        ((tensor(9.), None), {'x': tensor(6.)})
    """

    def transformed(params: Params, *args: Any) -> tuple[tuple[Tensor, Any], Params]:
        grads, (value, aux) = torch.func.grad_and_value(loss, has_aux=True)(params, *args)
        return (value, aux), grads

    def taped(params: Params, *args: Any) -> tuple[tuple[Tensor, Any], Params]:
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        with torch.enable_grad():
            value, aux = loss(leaves, *args)
        grads = torch.autograd.grad(
            value, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        detached = tree.map(lambda x: x.detach() if isinstance(x, Tensor) else x, (value, aux))
        return detached, dict(zip(leaves, grads, strict=True))

    def gradient(params: Params, *args: Any) -> tuple[tuple[Tensor, Any], Params]:
        # Autograd's tape costs half of what a functorch level does, but only outside of all
        # transforms can it be used.
        eager = can_see() and not differentiable
        return taped(params, *args) if eager else transformed(params, *args)

    return gradient
