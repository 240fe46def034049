"""Measuring a trained state on data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fdnn.metrics import Metric, in_lanes
from fdnn.model import Model
from fdnn.train.batches import is_tensors
from fdnn.train.predict import outputs
from fdnn.train.state import TrainState

__all__ = ["evaluate", "evaluator"]


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
        One value for each metric, as it gives it: mostly 0-d, or of shape `(lanes,)`.

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
    if state.count.ndim:
        metrics = {name: in_lanes(metric, len(state.count)) for name, metric in metrics.items()}
    predict = outputs(model, state)
    states = {name: metric.init() for name, metric in metrics.items()}
    empty = True
    for *inputs, target in _batches(data, batch_size):
        output, empty = predict(inputs), False
        states = {name: m.update(states[name], output, target) for name, m in metrics.items()}
    if empty:
        raise ValueError("`data` must hold at least one batch, got none")
    return {name: metric.compute(states[name]) for name, metric in metrics.items()}


def evaluator(
    model: Model, metrics: Mapping[str, Metric], *, batch_size: int = 1000, **data: Any
) -> Callable[[TrainState], dict[str, Tensor]]:
    """Build what `fit` calls after each epoch: `evaluate` on one data set or several.

    With the training data among them, the training loss is also reported in eval mode: what the
    steps report is with dropout on and by parameters that were still changing, so it is not
    comparable with a validation loss.

    Args:
        model: from `functionalize`.
        metrics: by name; see `fdnn.metrics`.
        batch_size: how many examples at once, of data that is tensors.
        **data: data sets by name, each as `evaluate` takes it.

    Returns:
        A function of a state; its numbers are called `valid_loss` for metric `loss` on `valid`.

    Raises:
        ValueError: there is no data set.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, metrics, optim, random, train
        >>> model, tx = functionalize(nn.Linear(4, 2)), optim.sgd()
        >>> some = torch.ones(3, 4), torch.tensor([0, 0, 0])
        >>> measures = {"loss": metrics.cross_entropy(), "accuracy": metrics.accuracy()}
        >>> measure = evaluator(model, measures, train=some, valid=some)
        >>> sorted(measure(train.init(model, tx, random.key(0))))
        ['train_accuracy', 'train_loss', 'valid_accuracy', 'valid_loss']
    """
    if not data:
        raise ValueError("`data` must hold at least one data set by name, got none")

    def measure(state: TrainState) -> dict[str, Tensor]:
        return {
            f"{part}_{name}": value
            for part, examples in data.items()
            for name, value in evaluate(
                model, state, examples, metrics, batch_size=batch_size
            ).items()
        }

    return measure


def _batches(data: Any, batch_size: int) -> Any:
    if not is_tensors(data):
        return data
    return zip(*(part.split(batch_size) for part in data), strict=True)
