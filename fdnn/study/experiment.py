"""What a run is, as pure functions, whatever its seed and hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import optim, train, tree
from fdnn.model import Model
from fdnn.train import Monitor, TrainState
from fdnn.train.step import Loss, Step
from fdnn.types import GradientTransformation, Key

__all__ = ["Experiment", "from_functions", "training"]


class Experiment(NamedTuple):
    """One arm of a study: what `train.fit` is called with, for many runs at once.

    Attributes:
        init: `init(key, **hyper) -> state`, of one run; under vmap over keys and hyperparameters.
        step: `step(state, batch) -> (state, info)`, of one run.
        data: as for `train.fit`; all runs share it.
        epochs: passes over the data.
        batch_size: examples in a step, if `data` is tensors.
        evaluate: `evaluate(state) -> {name: number}`, of one run or many stacked: after each epoch,
            and of the state in the end, which gives the results. `train.evaluator` makes one.
        monitors: as for `train.fit`.
    """

    init: Callable[..., TrainState]
    step: Step
    data: Any
    epochs: int
    batch_size: int
    evaluate: Callable[[TrainState], Mapping[str, Tensor]]
    monitors: Mapping[str, Monitor] = {}


def training(
    model: Model,
    loss: Loss,
    tx: GradientTransformation,
    data: Any,
    *,
    epochs: int,
    evaluate: Callable[[TrainState], Mapping[str, Tensor]],
    batch_size: int = 32,
    monitors: Mapping[str, Monitor] | None = None,
    **rules: Any,
) -> Experiment:
    """Build the experiment of training a model.

    The run of a key is the one that `train.init`, `train.make_step` and `train.fit` make of it. So
    arms with parameters of the same names and shapes begin with the same values, and arms with data
    of the same size see it in the same order: their differences are paired, seed by seed.

    Args:
        model: from `functionalize`.
        loss: as `train.supervised` builds it.
        tx: the optimizer. A sweep over its hyperparameters, by their names in the state, sets them.
        data: as for `train.fit`.
        epochs: passes over the data.
        evaluate: what is measured, of one run or many stacked, such as a `train.evaluator`.
        batch_size: examples in a step, if `data` is tensors.
        monitors: as for `train.fit`.
        **rules: `weight`, `bias` and `rules` of `Model.init`.

    Returns:
        What `study.run` takes.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, metrics, random, train
        >>> model, x = functionalize(nn.Linear(4, 1)), random.normal(random.key(1), (64, 4))
        >>> data = x, x.sum(1, keepdim=True)
        >>> experiment = training(
        ...     model,
        ...     train.supervised(model, F.mse_loss),
        ...     optim.sgd(lr=0.1),
        ...     data,
        ...     epochs=3,
        ...     evaluate=train.evaluator(model, {"loss": metrics.mean_squared_error()}, valid=data),
        ... )
        >>> experiment.init(random.key(0), lr=0.3).opt_state.hyperparams["lr"]
        tensor(0.3000, dtype=torch.float64)
    """

    def init(key: Key, **hyper: Any) -> TrainState:
        state = train.init(model, tx, key, **rules)
        if not hyper:
            return state
        return state._replace(opt_state=optim.set_hyperparams(state.opt_state, **hyper))

    step = train.make_step(loss, tx)
    return Experiment(init, step, data, epochs, batch_size, evaluate, dict(monitors or {}))


def from_functions(
    init: Callable[..., Any],
    step: Callable[[Any], tuple[Any, dict[str, Tensor]]],
    evaluate: Callable[[Any], Mapping[str, Tensor]],
    *,
    num_steps: int,
    evaluate_every: int | None = None,
) -> Experiment:
    """Build an experiment of any three pure functions of one run.

    Args:
        init: `init(key, **hyper) -> state`, any tree of tensors (or numbers), with the keys and
            counts that the steps need.
        step: `step(state) -> (state, info)`.
        evaluate: `evaluate(state) -> {name: 0-d tensor}`.
        num_steps: how many steps a run has.
        evaluate_every: steps between evaluations, a divisor of `num_steps`; all if left out.

    Returns:
        What `study.run` takes; an epoch is what lies between two evaluations.

    Raises:
        ValueError: `evaluate_every` is no positive divisor of `num_steps`.

    Example:
        >>> from fdnn import random
        >>> walk = from_functions(
        ...     init=lambda key, size=1.0: {"key": key, "x": torch.zeros(()), "size": size},
        ...     step=lambda s: ({**s, "key": random.fold_in(s["key"], 1),
        ...                      "x": s["x"] + s["size"] * random.normal(s["key"])}, {}),
        ...     evaluate=lambda s: {"distance": s["x"].abs()},
        ...     num_steps=100,
        ... )
        >>> walk.epochs
        1
    """
    every = num_steps if evaluate_every is None else evaluate_every
    if num_steps < 1 or every < 1 or num_steps % every:
        raise ValueError(
            "`evaluate_every` must be a positive divisor of `num_steps`, got "
            f"{evaluate_every} and {num_steps}"
        )

    def begin(key: Key, **hyper: Any) -> TrainState:
        state = tree.map(torch.as_tensor, init(key, **hyper))
        return TrainState(state, {}, {}, key, key.new_zeros(()))

    def advance(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        inner, info = step(state.params)
        return state._replace(params=inner, count=state.count + 1), info

    def measure(state: TrainState) -> Mapping[str, Tensor]:
        lanewise = torch.vmap(evaluate) if state.count.ndim else evaluate
        return lanewise(state.params)

    return Experiment(begin, torch.no_grad()(advance), [()] * every, num_steps // every, 1, measure)
