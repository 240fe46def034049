"""What the examples of small and fast networks share: classifiers trained for many seeds."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn, vmap

from fdnn import Model, data, functionalize, initializers, losses, optim, random, train, tree

HE = {"weight": initializers.he_uniform(), "bias": initializers.zeros}


def classifier(
    splits: data.Splits,
    activation: type[nn.Module] = nn.ReLU,
    *,
    hidden: Sequence[int] = (300, 100),
    batch_norm: bool = False,
) -> Model:
    """Build the net 784-300-100-10, batch norm before each activation if wanted."""
    sizes = [splits.train.inputs[0].numel(), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs)]
        layers += [nn.BatchNorm1d(outputs)] if batch_norm else []
        layers += [activation()]
    layers += [nn.Linear(sizes[-1], int(splits.train.targets.max()) + 1)]
    return functionalize(nn.Sequential(*layers))


def fit(
    model: Model,
    splits: data.Splits,
    args: argparse.Namespace,
    tx: optim.Chain,
    start: train.TrainState | None = None,
    epochs: int | None = None,
) -> train.TrainState:
    """Train all seeds at once, from new parameters or from a stacked state."""
    keys = torch.stack([random.key(seed) for seed in range(args.seeds)])
    if start is None:
        start = vmap(lambda key: train.init(model, tx, key, **HE))(keys)
    state, _ = train.fit(
        train.make_step(train.supervised(model, losses.cross_entropy), tx),
        start,
        splits.train,
        epochs=epochs or args.epochs,
        batch_size=128,
        compile=not args.no_compile and not args.fast,
    )
    return state


def accuracy(model: Model, state: train.TrainState, batch: data.Batch) -> Tensor:
    """Return the share of right predictions, `(seeds,)`."""
    outputs = train.predict(model, state, batch.inputs)
    return (outputs.argmax(-1) == batch.targets).double().mean(-1)


def lane(state: train.TrainState, seed: int) -> train.TrainState:
    """Take one run out of a stacked state."""
    one: train.TrainState = tree.map(lambda x: x[seed], state)
    return one
