"""From a model and a criterion to a loss, from a loss and an optimizer to a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn import optim, random, tree
from fdnn.model import Model
from fdnn.optim.core.branch import can_see
from fdnn.train.batches import arguments
from fdnn.train.state import TrainState
from fdnn.types import Buffers, GradientTransformation, Key, Params

__all__ = ["Loss", "Step", "make_step", "supervised", "value_and_grad"]

Loss = Callable[[Params, Buffers, Any, Key], tuple[Tensor, Buffers]]
"""`loss(params, buffers, batch, key) -> (value, buffers)`."""

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, Tensor]]]
"""`step(state, batch) -> (state, info)`."""


def supervised(model: Model, criterion: Callable[[Any, Any], Tensor]) -> Loss:
    """Build the loss of supervised learning: `criterion(model(inputs), target)`, in train mode.

    Args:
        model: from `functionalize`.
        criterion: `criterion(output, target)` gives a 0-d tensor: a function of
            `torch.nn.functional`, or a stateless loss module.

    Returns:
        `loss(params, buffers, batch, key) -> (value, buffers)`. The last element of
        `batch` is the target, the others are the model's inputs; if the first is a mapping, it
        holds keyword arguments.

    Raises:
        ValueError: the criterion does not return a 0-d tensor.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(4, 2))
        >>> loss = supervised(model, F.cross_entropy)
        >>> batch = torch.zeros(3, 4), torch.tensor([0, 1, 1])
        >>> value, _ = loss(model.params, model.buffers, batch, random.key(0))
        >>> value.shape
        torch.Size([])
    """

    def loss(params: Params, buffers: Buffers, batch: Any, key: Key) -> tuple[Tensor, Buffers]:
        *inputs, target = batch
        args, keywords = arguments(inputs)
        output, buffers = model.apply(params, buffers, *args, key=key, train=True, **keywords)
        return scalar_loss(criterion(output, target)), buffers

    return loss


def scalar_loss(value: Tensor) -> Tensor:
    """Return what a criterion returned, or raise ValueError if it is not 0-d."""
    if value.ndim != 0:
        raise ValueError(
            f"`criterion` must return a 0-d tensor, got shape {tuple(value.shape)}; "
            "average it over the batch"
        )
    return value


def make_step(loss: Loss, tx: GradientTransformation, *, differentiable: bool = False) -> Step:
    """Build the training step: gradient of the loss, then one step of the optimizer.

    Args:
        loss: as `supervised` builds it.
        tx: the optimizer. It is also given the loss, `value`, and the function
            `value_and_grad(params)` that evaluates it and its gradient elsewhere, on the same
            batch under the same key.
        differentiable: keep the graph through the step, to differentiate through training.
            Otherwise the new state is detached.

    Returns:
        `step(state, batch) -> (state, info)`, pure. The step's key is
        `fold_in(state.key, state.count)`. `info` holds `loss` and the optimizer's diagnostics as
        0-d tensors. `vmap(step)` takes a stacked state; `fdnn.jit(step, donate_argnums=0)`
        compiles it. `step.total_steps` is the length of the optimizer's schedules, None if they
        are endless.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, optim, train
        >>> model, tx = functionalize(nn.Linear(4, 2)), optim.sgd(lr=0.1)
        >>> step = make_step(supervised(model, F.cross_entropy), tx)
        >>> state = train.init(model, tx, random.key(0))
        >>> state, info = step(state, (torch.ones(3, 4), torch.tensor([0, 1, 1])))
        >>> state.count, sorted(info)
        (tensor(1), ['loss', 'lr'])
    """
    gradient = value_and_grad(loss, differentiable=differentiable)
    tx = optim.with_extra_args(tx)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        key = random.fold_in(state.key, state.count)
        (value, buffers), grads = gradient(state.params, state.buffers, batch, key)

        def elsewhere(params: Params) -> tuple[Tensor, Params]:
            (value, _), grads = gradient(params, state.buffers, batch, key)
            return value, grads

        params, opt_state = optim.step(
            tx, state.params, grads, state.opt_state, value=value, value_and_grad=elsewhere
        )
        info = {"loss": value}
        if isinstance(opt_state, optim.OptState):
            info |= optim.diagnostics(opt_state)
        return TrainState(params, buffers, opt_state, state.key, state.count + 1), info

    # vmap, jit and no_grad copy it to what they return.
    step.total_steps = getattr(tx, "total_steps", None)  # type: ignore[attr-defined]
    return step if differentiable else torch.no_grad()(step)


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
