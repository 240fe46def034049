"""A model up to one of its layers, and what that layer is given."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from fdnn.model import Model
from fdnn.model.functionalize import SKELETONS
from fdnn.transfer.layers import find
from fdnn.types import Buffers, Params

__all__ = ["features", "truncate"]


def truncate(model: Model, *, at: str | None = None) -> Model:
    """Make a model that stops before one of its layers: what it returns is that layer's input.

    Args:
        model: from `functionalize`, frozen in part or not.
        at: the dotted name of the layer; the last of `layers` if left out.

    Returns:
        A model with the same parameters and buffers, so that those of `model` serve as they are.

    Raises:
        ValueError: there is nothing of the name `at`, it is the whole model, or, when called, the
            forward pass does not come by it.

    Example:
        >>> from fdnn import functionalize
        >>> net = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)))
        >>> body = truncate(net)
        >>> body.apply(net.params, net.buffers, torch.ones(2, 4))[0].shape
        torch.Size([2, 8])
    """
    at = find(model, at)
    skeletons = {}
    for name in SKELETONS:
        skeletons[name] = module = copy.deepcopy(getattr(model, name))
        _become(module.get_submodule(at), _Stopping)
        _become(module, _Stopped)
    return dataclasses.replace(model, **skeletons)


@torch.no_grad()
def features(
    model: Model,
    params: Params,
    buffers: Buffers,
    inputs: Tensor,
    *,
    at: str | None = None,
    batch_size: int = 1000,
) -> Tensor:
    """Compute what a layer of a trained model is given, once, for a probe to be trained on.

    Eval mode, no gradient. A linear probe is `nn.Linear` trained on these instead of the whole
    model with all but its head frozen: the same head, without a forward pass through the body in
    every step.

    Args:
        model: from `functionalize`.
        params: parameters by dotted name.
        buffers: buffers by dotted name.
        inputs: what the model takes, of shape `(examples, ...)`.
        at: the dotted name of the layer; the last of `layers` if left out.
        batch_size: how many examples at once.

    Returns:
        A tensor of shape `(examples, ...)`. Under vmap over `params` and `buffers` every lane has
        its own.

    Raises:
        ValueError: as `truncate`; or `batch_size` is not positive.

    Example:
        >>> from fdnn import functionalize
        >>> net = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)))
        >>> features(net, net.params, net.buffers, torch.ones(20, 4)).shape
        torch.Size([20, 8])

    References:
        Alain, Bengio (2016), "Understanding intermediate layers using linear classifier probes".
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    body = truncate(model, at=at)
    return torch.cat([body.apply(params, buffers, x)[0] for x in torch.split(inputs, batch_size)])


class _Reached(Exception):
    """The forward pass has come to the layer, whose input this holds."""


class _Stopping:
    """What the layer becomes as well."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise _Reached(args[0] if args else next(iter(kwargs.values())))


class _Stopped:
    """What the whole model becomes as well."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        try:
            super().forward(*args, **kwargs)  # type: ignore[misc]
        except _Reached as reached:
            return reached.args[0]
        raise ValueError("`at`: the forward pass does not come by this layer")


def _become(module: nn.Module, kind: type) -> None:
    """Give a module another `forward`, by its class, which copies of the module share."""
    module.__class__ = type(type(module).__name__, (kind, type(module)), {})
