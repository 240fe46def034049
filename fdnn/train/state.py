"""The state of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fdnn import random
from fdnn.model import Model
from fdnn.types import Buffers, GradientTransformation, Initializer, Key, Params

__all__ = ["TrainState", "init"]


class TrainState(NamedTuple):
    """All that a run needs to go on.

    Many runs are one state whose leaves have one more leading dimension, the lanes.

    Attributes:
        params: parameters by dotted name.
        buffers: buffers by dotted name.
        opt_state: the optimizer's state.
        key: the run's key, never changed: step and shuffle keys are folded from it.
        count: steps taken, 0-d int64.
        monitors: what the monitors of `fit` remember, by name. Steps neither see nor return it.
    """

    params: Params
    buffers: Buffers
    opt_state: Any
    key: Key
    count: Tensor  # type: ignore[assignment]
    monitors: dict[str, Any] = {}  # noqa: RUF012, nobody writes into a state


def init(
    model: Model,
    tx: GradientTransformation,
    key: Key,
    *,
    weight: Initializer | None = None,
    bias: Initializer | None = None,
    rules: Sequence[tuple[str, Initializer]] = (),
) -> TrainState:
    """Begin a run: draw parameters, start the optimizer.

    Args:
        model: from `functionalize`.
        tx: the optimizer.
        key: the run's key. Under vmap over `(n, 2)` keys, n runs begin at once.
        weight: draws every weight matrix or kernel, as for `Model.init`.
        bias: draws every bias.
        rules: pairs of a glob on dotted names and an initializer.

    Returns:
        The state before the first step.

    Example:
        >>> from torch import nn, vmap
        >>> from fdnn import functionalize, optim
        >>> model, tx = functionalize(nn.Linear(4, 2)), optim.adam()
        >>> runs = vmap(lambda key: init(model, tx, key))(random.split(random.key(0), 10))
        >>> runs.params["weight"].shape
        torch.Size([10, 2, 4])
    """
    key_init, key_run = random.split(key)
    params, buffers = model.init(key_init, weight=weight, bias=bias, rules=rules)
    count = key.new_zeros(())  # made from the key, so that under vmap every lane has its own
    return TrainState(params, buffers, tx.init(params), key_run, count)
