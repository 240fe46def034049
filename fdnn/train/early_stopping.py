"""Early stopping: end a run that no longer gets better, with the parameters that were best."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.train.monitor import Monitor, Row, number
from fdnn.train.state import TrainState
from fdnn.types import Buffers, Params

__all__ = ["EarlyStoppingState", "early_stopping"]


class EarlyStoppingState(NamedTuple):
    """What `early_stopping` remembers of a run.

    Attributes:
        best: the best value so far, 0-d float64.
        best_count: the steps taken when it was seen, 0-d int64.
        num_bad_epochs: epochs since then, 0-d int64.
        stopped: whether there were too many of them, 0-d bool.
        params: the parameters then.
        buffers: the buffers then.
    """

    best: Tensor
    best_count: Tensor
    num_bad_epochs: Tensor
    stopped: Tensor
    params: Params
    buffers: Buffers


def early_stopping(
    metric: str, *, patience: int = 10, mode: str = "min", min_delta: float = 0.0
) -> Monitor:
    r"""Stop when a metric has not been better than its best for `patience` epochs in a row.

    Value $v$ is better than the best $b$ if $v < b - \text{min\_delta}$ (`mode="min"`) or
    $v > b + \text{min\_delta}$ (`"max"`). NaN is never better. A run that stops, or that comes to
    its last epoch, gets the parameters and buffers of its best epoch back.

    Of many runs, each stops by its own values. It is then frozen, bit for bit, while the others go
    on, and its later numbers in the history are nan.

    Args:
        metric: the name of a number in the history, such as `"valid_loss"`.
        patience: epochs without improvement that end a run, at least 1.
        mode: `"min"` if a low metric is good, `"max"` if a high one is.
        min_delta: how much better is better, at least 0, in the metric's unit.

    Returns:
        A monitor for `fit`, whose memory is an `EarlyStoppingState`.

    Raises:
        ValueError: `patience`, `mode` or `min_delta` is out of range; or, after the first epoch,
            the history has no such number.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, metrics, optim, random, train
        >>> model, tx = functionalize(nn.Linear(4, 1)), optim.sgd(lr=0.5)
        >>> x = random.normal(random.key(1), (64, 4))
        >>> data = x, x.sum(1, keepdim=True)
        >>> measure = train.evaluator(model, {"loss": metrics.mean_squared_error()}, valid=data)
        >>> state, history = train.fit(
        ...     train.make_step(train.supervised(model, F.mse_loss), tx),
        ...     train.init(model, tx, random.key(0)),
        ...     data,
        ...     epochs=1000,
        ...     evaluate=measure,
        ...     monitors={"stop": early_stopping("valid_loss", patience=3, min_delta=1e-6)},
        ...     compile=False,
        ...     progress=False,
        ... )
        >>> len(history["loss"]) < 100
        True

    References:
        Prechelt (1998), "Early stopping - but when?". The criterion is Keras' and Lightning's.
    """
    if patience < 1:
        raise ValueError(f"`patience` must be at least 1, got {patience}")
    if mode not in ("min", "max"):
        raise ValueError(f'`mode` must be "min" or "max", got {mode!r}')
    if not min_delta >= 0:
        raise ValueError(f"`min_delta` must be at least 0, got {min_delta}")
    sign = 1.0 if mode == "min" else -1.0

    def init(state: TrainState) -> EarlyStoppingState:
        zero = torch.zeros_like(state.count)
        worst = torch.full_like(state.count, sign * math.inf, dtype=torch.float64)
        return EarlyStoppingState(worst, zero, zero, zero > 0, state.params, state.buffers)

    def update(
        memory: EarlyStoppingState, state: TrainState, numbers: Row
    ) -> tuple[EarlyStoppingState, TrainState]:
        value = number(numbers, metric).to(memory.best)
        better = sign * value < sign * memory.best - min_delta
        now = value, state.count, state.params, state.buffers
        before = memory.best, memory.best_count, memory.params, memory.buffers
        best, best_count, params, buffers = tree.where(better, now, before)
        bad = torch.where(better, 0, memory.num_bad_epochs + 1)
        new = EarlyStoppingState(best, best_count, bad, bad >= patience, params, buffers)
        return new, state

    def finish(memory: EarlyStoppingState, state: TrainState) -> TrainState:
        return state._replace(params=memory.params, buffers=memory.buffers)

    return Monitor(init, update, lambda memory: memory.stopped, finish)
