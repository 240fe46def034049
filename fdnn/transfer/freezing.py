"""A model some of whose parameters are not trained: they travel among its buffers."""

from __future__ import annotations

import copy
import dataclasses

from fdnn import tree
from fdnn.model import Model
from fdnn.transfer.layers import statistics
from fdnn.types import Buffers, Params, Where

__all__ = ["freeze", "merge", "resplit", "unfreeze"]


def freeze(model: Model, where: Where) -> Model:
    """Make a model in which some parameters are not trained: they are buffers of it.

    It is a model like any other. No gradient is computed for a frozen parameter, none is carried
    back through layers below the first trained one, no optimizer keeps state for it, and every
    step hands it on as it is, whatever momentum or weight decay the optimizer has.

    A layer with running statistics (batch norm) all of whose parameters are frozen runs in eval
    mode, and its statistics stay as they are. Dropout in a frozen part goes on in training, as in
    torch; make a model without it if it shall not.

    Only names matter. The values of the frozen parameters are in the buffers, so that under
    `vmap` every lane may have its own; `init` takes them from the model's own values, and `reuse`
    and `transfer.init` from elsewhere.

    Args:
        model: from `functionalize`, or frozen in part already.
        where: what to freeze, of parameters and buffers: a glob on dotted names, several globs,
            or a predicate `(path, leaf)`, such as `by_type` and `by_depth` return. Frozen running
            statistics put their layer in eval mode, even if its parameters are trained.

    Returns:
        A model with fewer `params` and more `buffers`.

    Raises:
        ValueError: a glob matches no name.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, optim, random, train
        >>> pretrained = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        >>> model = freeze(pretrained, "0.*")
        >>> model
        Model(Sequential, 18 parameters, 2 buffers, 2 of them frozen)
        >>> state = train.init(model, optim.adam(), random.key(0))  # draws the head alone
        >>> list(state.opt_state.slots["exp_avg"])
        ['2.weight', '2.bias']
    """
    frozen = model._frozen | set(tree.select({**model.params, **model.buffers}, where))
    for parameters, running in statistics(model).values():
        if parameters and frozen.issuperset(parameters):
            frozen = frozen.union(running)
    return resplit(model, frozen)


def unfreeze(model: Model, where: Where = "*") -> Model:
    """Make a model in which parameters that were frozen are trained again.

    Running statistics move on again with the first parameter of their layer. A run is taken along
    by `carry_over`.

    Args:
        model: a model that is frozen in part.
        where: what to release, as in `freeze`; everything if left out.

    Raises:
        ValueError: a glob matches no name.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> net = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        >>> list(unfreeze(freeze(net, "*"), "2.*").params)
        ['2.weight', '2.bias']
    """
    released = set(tree.select({**model.params, **model.buffers}, where))
    for parameters, running in statistics(model).values():
        if released.intersection(parameters):
            released.update(running)
    return resplit(model, model._frozen - released)


def merge(model: Model, params: Params, buffers: Buffers) -> tuple[Params, Buffers]:
    """Return the parameters and buffers of the plain model: halves joined, adapters added.

    Args:
        model: what `freeze` or `lora` made.
        params: its trained parameters.
        buffers: its buffers, frozen parameters among them.

    Returns:
        `(params, buffers)` as the model from which it was made takes them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> net = functionalize(nn.Linear(4, 2))
        >>> half = freeze(net, "weight")
        >>> params, buffers = merge(half, half.params, half.buffers)
        >>> list(params), list(buffers)
        (['weight', 'bias'], [])
    """
    values = model._values(params, buffers)
    own = {name for name, _ in model.skeleton().named_parameters()}
    return (
        {name: values[name] for name in model._plans if name in own},
        {name: values[name] for name in buffers if name in values and name not in own},
    )


def resplit(model: Model, frozen: frozenset[str]) -> Model:
    """Let a model be trained in all but the tensors of these names."""
    values = {**model.params, **model.buffers}
    params = {name: values[name] for name in model._plans if name not in frozen}
    module = copy.deepcopy(model._train).train()
    for path, (_, running) in statistics(model).items():
        if frozen.intersection(running):
            module.get_submodule(path).eval()
    return dataclasses.replace(
        model,
        params=params,
        buffers={name: value for name, value in values.items() if name not in params},
        _train=module,
        _frozen=frozen,
    )
