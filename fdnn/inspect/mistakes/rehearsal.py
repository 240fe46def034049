"""A model and its loss, run once on one batch, whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn.inspect.mistakes.loss import Loss, known_loss, named_loss
from fdnn.inspect.mistakes.report import Finding
from fdnn.inspect.mistakes.targets import target_mistakes
from fdnn.inspect.mistakes.trace import Op, Recorder, run
from fdnn.model import Model
from fdnn.train.batches import arguments
from fdnn.train.step import scalar_loss
from fdnn.types import Buffers, Key, Params

__all__ = ["Rehearsal", "rehearse"]


class Rehearsal(NamedTuple):
    """What happened.

    Attributes:
        train: whether the model ran in train mode.
        leaves: the parameters, as leaves of a graph of autograd.
        forward: the operations of the model.
        ops: these, and those of the criterion.
        losses: calls of known losses, and the operations that their inputs came from.
        wrong: targets that these losses cannot take. Their calls were left out.
        value: the loss, 0-d; None if there was no criterion.
    """

    train: bool
    leaves: Params
    forward: Sequence[Op]
    ops: Sequence[Op]
    losses: Sequence[tuple[Loss, int | None]]
    wrong: Sequence[Finding]
    value: Tensor | None


def rehearse(
    model: Model,
    params: Params,
    buffers: Buffers,
    batch: Any,
    criterion: Callable[[Any, Any], Tensor] | None,
    key: Key | None,
) -> Rehearsal:
    """Run in train mode, or in eval mode if the model draws and there is no key."""
    try:
        return _rehearse(model, params, buffers, batch, criterion, key, train=True)
    except ValueError as error:
        if key is not None or not str(error).startswith("`key` must be given"):
            raise
    return _rehearse(model, params, buffers, batch, criterion, key, train=False)


def _rehearse(
    model: Model,
    params: Params,
    buffers: Buffers,
    batch: Any,
    criterion: Callable[[Any, Any], Tensor] | None,
    key: Key | None,
    train: bool,
) -> Rehearsal:
    *inputs, target = batch
    args, keywords = arguments(inputs)
    leaves = {
        name: x.detach().requires_grad_(x.is_floating_point() or x.is_complex())
        for name, x in params.items()
    }
    losses: list[tuple[Loss, int | None]] = []
    wrong: list[Finding] = []

    def fails(loss: Loss) -> bool:
        losses.append((loss, recorder.source(loss.input)))
        found = target_mistakes(loss)
        wrong.extend(found)
        return bool(found)

    def in_model(name: str, args: Any, kwargs: Any, compute: Callable[[], Any]) -> Any:
        if name == "batch_norm" and _is_alone(*args, **kwargs):
            return _pass(*args, **kwargs)
        return compute()

    def in_criterion(name: str, args: Any, kwargs: Any, compute: Callable[[], Any]) -> Any:
        loss = named_loss(name, args, kwargs)
        return loss.input.sum() if loss is not None and fails(loss) else compute()

    recorder = Recorder((args, keywords), in_model)
    output = run(recorder, model, leaves, buffers, args, keywords, key=key, train=train)
    forward = tuple(recorder.ops)
    value = None
    if criterion is not None:
        known = known_loss(criterion, output, target)
        with torch.enable_grad():
            if known is None:
                recorder.around = in_criterion
                with recorder, recorder.inside("criterion"):
                    value = criterion(output, target)
            else:
                value = known.input.sum() if fails(known) else criterion(output, target)
        value = scalar_loss(value)
    return Rehearsal(train, leaves, forward, recorder.ops, losses, wrong, value)


def _is_alone(
    input: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, *_: Any, **__: Any,
) -> bool:  # fmt: skip
    """Tell whether batch norm has one number for each channel, of which torch makes an error."""
    return training and input.numel() == input.shape[1]


def _pass(
    input: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, *_: Any, **__: Any
) -> Tensor:
    """Leave the normalization out of a batch norm."""
    like = input.new_zeros(input.shape[1])
    output: Tensor = torch.nn.functional.batch_norm(input, like, like + 1, weight, bias)
    return output
