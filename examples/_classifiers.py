"""What the examples of uncertainty share: classifiers of many seeds, and their MC dropout."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from _fashion_mnist import stack
from torch import Tensor, nn, vmap

from fdnn import (
    Model,
    data,
    functionalize,
    initializers,
    losses,
    optim,
    random,
    train,
    tree,
    uncertainty,
)
from fdnn.types import Key

HE = {"weight": initializers.he_uniform(), "bias": initializers.zeros}


def head(batch: data.Batch, count: int) -> data.Batch:
    """Return the first examples."""
    return data.Batch(*(part[:count] for part in batch))


def trained(
    splits: data.Splits, args: argparse.Namespace, *, dropout: float, runs: int
) -> tuple[Model, train.TrainState]:
    """Train as many runs of the net 784-100-100-10 at once, from the keys 0, 1, ... on.

    SGD with rate 0.01 and momentum 0.9 in batches of 32, as in the chapter.
    """
    model = functionalize(stack(splits, depth=2, activation=nn.ReLU, dropout=dropout))
    tx = optim.sgd(lr=0.01, momentum=0.9)
    keys = torch.stack([random.key(seed) for seed in range(runs)])
    step = train.make_step(train.supervised(model, losses.cross_entropy), tx)
    state, _ = train.fit(
        step,
        vmap(lambda key: train.init(model, tx, key, **HE))(keys),
        splits.train,
        epochs=args.epochs,
        batch_size=32,
        chunk_size=16,
        compile=not args.no_compile and not args.fast,
    )
    return model, state


@torch.no_grad()
def with_dropout(
    model: Model,
    state: train.TrainState,
    inputs: Tensor,
    summarize: Callable[[Tensor], Any] = uncertainty.categorical,
    *,
    key: Key,
    num_samples: int,
    batch_size: int = 500,
) -> Any:
    """Predict by Monte Carlo dropout, all runs at once, a batch of images after the other.

    `summarize` makes a tree of tensors `(images, ...)` of the logits `(samples, images, classes)`;
    what is returned is `(runs, images, ...)`.
    """

    def one(params: Any, buffers: Any, key: Key, batch: Tensor) -> Any:
        return summarize(
            uncertainty.mc_dropout(model, params, buffers, batch, key=key, num_samples=num_samples)
        )

    keys = random.split(key, len(state.count))
    many = vmap(one, in_dims=(0, 0, 0, None))
    parts = [many(state.params, state.buffers, keys, x) for x in inputs.split(batch_size)]
    return tree.map(lambda *fields: torch.cat(fields, 1), *parts)
