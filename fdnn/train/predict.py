"""What a trained state says of inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.model import Model
from fdnn.train.batches import arguments, is_tensors
from fdnn.train.state import TrainState

__all__ = ["outputs", "predict"]


@torch.no_grad()
def predict(model: Model, state: TrainState, inputs: Any, *, batch_size: int = 1000) -> Any:
    """Compute the model's outputs in eval mode, of one run or of every lane of a stacked state.

    Args:
        model: from `functionalize`.
        state: one run, or many stacked.
        inputs: the model's input; a tuple of several; or an iterable of such batches.
        batch_size: how many examples at once, if `inputs` are tensors.

    Returns:
        The outputs, `(examples, ...)` or `(lanes, examples, ...)`; a tree of such if the model's
        output is one.

    Raises:
        ValueError: there are no inputs, or they differ in length.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, optim, random, train
        >>> model, tx = functionalize(nn.Linear(4, 2)), optim.sgd()
        >>> state = train.init(model, tx, random.key(0))
        >>> predict(model, state, torch.ones(3, 4)).shape
        torch.Size([3, 2])
    """
    batches = inputs
    if isinstance(inputs, Tensor) or is_tensors(inputs):
        parts = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        sizes = sorted({len(part) for part in parts})
        if len(sizes) != 1 or sizes[0] == 0:
            raise ValueError(f"`inputs` must be tensors of one length above 0, got {sizes}")
        batches = zip(*(part.split(batch_size) for part in parts), strict=True)
    apply = outputs(model, state)
    found = [apply([b] if isinstance(b, Tensor | Mapping) else list(b)) for b in batches]
    if not found:
        raise ValueError("`inputs` must hold at least one batch, got none")
    return tree.map(lambda *parts: torch.cat(parts, dim=state.count.ndim), *found)


def outputs(model: Model, state: TrainState) -> Callable[[Sequence[Any]], Any]:
    """Return the function from a batch's inputs to the model's outputs, lane by lane."""

    def apply(params: Any, buffers: Any, inputs: Sequence[Any]) -> Any:
        args, keywords = arguments(inputs)
        return model.apply(params, buffers, *args, **keywords)[0]

    lanewise = torch.vmap(apply, in_dims=(0, 0, None)) if state.count.ndim else apply
    return lambda inputs: lanewise(state.params, state.buffers, inputs)
