"""Measuring a trained state on data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.metrics import Metric
from fdnn.model import Model
from fdnn.train.batches import arguments, is_tensors
from fdnn.train.state import TrainState
from fdnn.types import Shape

__all__ = ["evaluate"]


@torch.no_grad()
def evaluate(
    model: Model,
    state: TrainState,
    data: Any,
    metrics: Mapping[str, Metric],
    *,
    batch_size: int = 1000,
) -> dict[str, Tensor]:
    """Compute metrics of a state, or of every lane of a stacked state, in eval mode.

    Args:
        model: from `functionalize`.
        state: one run, or many stacked.
        data: tensors `(*inputs, target)` of equal length, or an iterable of such batches
            (a `torch.utils.data.DataLoader`).
        metrics: by name; see `fdnn.metrics`.
        batch_size: how many examples at once, if `data` is tensors.

    Returns:
        One tensor for each metric: 0-d, or of shape `(lanes,)`.

    Raises:
        ValueError: `metrics` or `data` is empty.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, metrics, optim, random, train
        >>> model, tx = functionalize(nn.Linear(4, 2)), optim.sgd()
        >>> state = train.init(model, tx, random.key(0))
        >>> data = torch.ones(3, 4), torch.tensor([0, 0, 0])
        >>> evaluate(model, state, data, {"accuracy": metrics.accuracy()})["accuracy"].shape
        torch.Size([])
    """
    if not metrics:
        raise ValueError("`metrics` must hold at least one metric, got none")
    if is_tensors(data) and any(len(part) == 0 for part in data):
        raise ValueError("`data` must hold at least one example, got none")
    lanes = state.count.shape
    in_lanes = torch.vmap if lanes else lambda fn, in_dims=0: fn

    def apply(params: Any, buffers: Any, inputs: list[Any]) -> Any:
        args, keywords = arguments(inputs)
        return model.apply(params, buffers, *args, **keywords)[0]

    predict = in_lanes(apply, in_dims=(0, 0, None))
    updates = {name: in_lanes(m.update, in_dims=(0, 0, None)) for name, m in metrics.items()}
    states = {name: _expand(metric.init(), lanes) for name, metric in metrics.items()}
    empty = True
    for *inputs, target in _batches(data, batch_size):
        output, empty = predict(state.params, state.buffers, inputs), False
        states = {name: update(states[name], output, target) for name, update in updates.items()}
    if empty:
        raise ValueError("`data` must hold at least one batch, got none")
    return {name: in_lanes(metric.compute)(states[name]) for name, metric in metrics.items()}


def _batches(data: Any, batch_size: int) -> Any:
    if not is_tensors(data):
        return data
    return zip(*(part.split(batch_size) for part in data), strict=True)


def _expand(state: Any, lanes: Shape) -> Any:
    return tree.map(lambda leaf: leaf.expand((*lanes, *leaf.shape)), state)
