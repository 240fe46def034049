"""From a model and a criterion to a loss, from a loss and an optimizer to a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from fdnn import optim, random
from fdnn.model import Model
from fdnn.train.accumulate import Gradient, accumulate
from fdnn.train.batches import arguments
from fdnn.train.gradient import value_and_grad
from fdnn.train.state import TrainState
from fdnn.train.with_loss_scaling import loss_scale, unscaled
from fdnn.types import Buffers, GradientTransformation, Key, Params

__all__ = ["Loss", "Step", "make_step", "supervised"]

Loss = Callable[[Params, Buffers, Any, Key], tuple[Tensor, Buffers]]
"""`loss(params, buffers, batch, key) -> (value, buffers)`."""

Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, Tensor]]]
"""`step(state, batch) -> (state, info)`."""


class MadeStep(Protocol):
    """A `Step` as `make_step` returns it."""

    total_steps: int | None

    def __call__(self, state: TrainState, batch: Any, /) -> tuple[TrainState, dict[str, Tensor]]:
        """Take one step."""
        ...


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


def make_step(
    loss: Loss,
    tx: GradientTransformation,
    *,
    num_microbatches: int = 1,
    differentiable: bool = False,
) -> MadeStep:
    """Build the training step: gradient of the loss, then one step of the optimizer.

    Args:
        loss: as `supervised` builds it.
        tx: the optimizer. It is also given the loss, `value`, and the function
            `value_and_grad(params)` that evaluates it and its gradient elsewhere, on the same
            batch under the same key. With `with_loss_scaling` in it, the loss is scaled for the
            gradient.
        num_microbatches: in how many parts, one after the other, a batch goes through the model,
            which saves memory; see `accumulate`. The loss must be a mean over examples.
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
    gradient = accumulate(_gradient(loss, differentiable), num_microbatches)
    tx = optim.with_extra_args(tx)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        key, scale = random.fold_in(state.key, state.count), loss_scale(state.opt_state)
        (value, buffers), grads = gradient(state.params, state.buffers, batch, key, scale)

        def elsewhere(params: Params) -> tuple[Tensor, Params]:
            (value, _), grads = gradient(params, state.buffers, batch, key, scale)
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
    return step if differentiable else torch.no_grad()(step)  # type: ignore[return-value]


def _gradient(loss: Loss, differentiable: bool) -> Gradient:
    """The loss and its gradient, which is taken of the loss times a scale, if there is one."""

    def scaled(
        params: Params, buffers: Buffers, batch: Any, key: Key, scale: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Buffers]]:
        value, buffers = loss(params, buffers, batch, key)
        return value if scale is None else value * scale, (value, buffers)

    differentiate = value_and_grad(scaled, differentiable=differentiable)

    def gradient(
        params: Params, buffers: Buffers, batch: Any, key: Key, scale: Tensor | None
    ) -> tuple[tuple[Tensor, Buffers], Params]:
        (_, aux), grads = differentiate(params, buffers, batch, key, scale)
        return aux, unscaled(grads, scale)

    return gradient
