"""Training states: begun from given values, and taken along when a model is split anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fdnn import random, tree
from fdnn.model import Model
from fdnn.train import TrainState
from fdnn.transfer.reusing import reuse
from fdnn.types import GradientTransformation, Key, Tree

__all__ = ["carry_over", "init"]


def init(
    model: Model,
    tx: GradientTransformation,
    key: Key,
    source: Mapping[str, Tensor],
    *,
    match: Callable[[str], str | None] | None = None,
    **rules: Any,
) -> TrainState:
    """Begin a run as `train.init` does, from the values of another model wherever they fit.

    Args:
        model: from `functionalize`, frozen in part or not.
        tx: the optimizer.
        key: the run's key. What is drawn, and the order of the data, are those of `train.init`
            with the same key.
        source: tensors by dotted name: `{**params, **buffers}` of a trained model. Under vmap
            every lane may have its own.
        match: as in `reuse`, which also gives a report.
        **rules: `weight`, `bias` and `rules` of `Model.init`, for what is drawn.

    Returns:
        The state before the first step.

    Raises:
        ValueError: nothing of `source` fits.

    Example:
        >>> from torch import nn, vmap
        >>> from fdnn import functionalize, optim, transfer
        >>> a = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)))
        >>> b = transfer.freeze(transfer.replace_head(a, 1), "0.*")
        >>> runs = vmap(lambda key: init(b, optim.sgd(), key, a.params))(
        ...     random.split(random.key(0), 10)
        ... )
        >>> runs.params["2.weight"].shape
        torch.Size([10, 1, 8])
        >>> torch.equal(runs.buffers["0.bias"][9], a.params["0.bias"])
        True
    """
    key_init, key_run = random.split(key)
    params, buffers, _ = reuse(source, model, key=key_init, match=match, **rules)
    return TrainState(params, buffers, tx.init(params), key_run, key.new_zeros(()))


def carry_over(state: TrainState, model: Model, tx: GradientTransformation) -> TrainState:
    """Take a run along to a model that is frozen otherwise: `freeze` and `unfreeze` for states.

    Parameters move between `params` and `buffers`. Of the optimizer's state, all that still has a
    place is kept: the count, the slots of parameters that stay trained, and the hyperparameters
    (`optim.set_hyperparams` changes them). Parameters that are newly trained get new slots.
    Monitors of `fit` (early stopping) begin anew.

    They start at the common count. An optimizer that corrects for its averages' zero start by the
    count (Adam) does not know that theirs has only begun, and its first steps on them are up to
    (1 - beta1) / sqrt(1 - beta2) times as long, 3.2 by default. `gradual_unfreezing` gives each
    group its own count; `state._replace(opt_state=tx.init(state.params))` starts all anew.

    Args:
        state: one run, or many stacked; not changed.
        model: what `freeze` or `unfreeze` made of the model of `state`.
        tx: the optimizer.

    Returns:
        A state for `model`.

    Raises:
        ValueError: `state` and `model` have not the same tensors.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, optim, train, transfer
        >>> net, tx = functionalize(nn.Linear(4, 2)), optim.sgd(lr=0.1, momentum=0.9)
        >>> model = transfer.freeze(net, "weight")
        >>> state = train.init(model, tx, random.key(0))
        >>> model = transfer.unfreeze(model)
        >>> state = carry_over(state, model, tx)
        >>> list(state.params), list(state.opt_state.slots["momentum_buffer"])
        (['weight', 'bias'], ['weight', 'bias'])
        >>> slower = optim.set_hyperparams(state.opt_state, lr=0.01)
        >>> state = state._replace(opt_state=slower)
    """
    values = {**state.params, **state.buffers}
    wanted = {**model.params, **model.buffers}
    if values.keys() != wanted.keys():
        missing = [name for name in wanted if name not in values]
        unknown = [name for name in values if name not in wanted]
        raise ValueError(
            f"`state` must have the tensors of `model`: missing {missing}, unknown {unknown}"
        )
    if state.count.ndim:
        moved: TrainState = torch.vmap(lambda lane: carry_over(lane, model, tx))(state)
        return moved
    params = {name: values[name] for name in model.params}
    return state._replace(
        params=params,
        buffers={name: values[name] for name in model.buffers},
        opt_state=_kept(tx.init(params), state.opt_state),
        monitors={},  # they would remember the other model's
    )


def _kept(new: Tree, old: Tree) -> Tree:
    """Put the leaves of `old` into `new` wherever the paths and shapes are the same."""
    known = tree.select(old)

    def choose(path: str, leaf: Tensor) -> Tensor:
        found = known.get(path, leaf)
        return found if found.shape == leaf.shape else leaf

    return tree.map_with_path(choose, new)
