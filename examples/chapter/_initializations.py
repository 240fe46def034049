"""What H4 trains, what it sees before the first step, and the results by combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from _contrast import Contrast
from _fashion_mnist import stack
from torch import Tensor, nn, vmap

from fdnn import (
    data,
    functionalize,
    initializers,
    inspect,
    losses,
    metrics,
    optim,
    random,
    study,
    train,
    tree,
)
from fdnn.model import Model

RATE, BATCH_SIZE, DELTA, TRAINS = 0.01, 128, 0.01, 0.5  # chosen before any run, as is HEALTHY
HEALTHY = (0.01, 100.0)  # a signal or gradient ratio in here neither vanished nor exploded
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "SiLU": nn.SiLU,
    "SELU": nn.SELU,
}
LAWS = {
    "Glorot": initializers.glorot_normal(),
    "He": initializers.he_normal(),
    "LeCun": initializers.lecun_normal(),
}
NAMES = ("default", *LAWS)
USUAL = {"sigmoid": "Glorot", "tanh": "Glorot", "ReLU": "He", "SiLU": "He", "SELU": "LeCun"}


def experiment(
    splits: data.Splits, depth: int, activation: str, lr: float, epochs: int
) -> study.Experiment:
    """Build an arm, whose initialization is a swept number: the place of its name in `NAMES`."""
    model, tx = network(splits, depth, activation), optim.sgd(lr=lr)
    plain = study.training(
        model,
        train.supervised(model, losses.cross_entropy),
        tx,
        splits.train,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        evaluate=train.evaluator(
            model, {"accuracy": metrics.accuracy()}, valid=splits.valid, test=splits.test
        ),
    )

    def init(key: Tensor, initialization: Tensor) -> train.TrainState:
        state = plain.init(key)  # torch's default
        for number, law in enumerate(LAWS.values(), 1):
            drawn = train.init(model, tx, key, weight=law, bias=initializers.zeros)
            params = tree.where(initialization == number, drawn.params, state.params)
            state = state._replace(params=params)
        return state

    return plain._replace(init=init)


def network(splits: data.Splits, depth: int, activation: str) -> Model:
    return functionalize(stack(splits, depth, ACTIVATIONS[activation]))


def look(
    splits: data.Splits, seeds: int, depth: int, activation: str, lr: float, epochs: int
) -> list[Any]:
    """Measure signal and gradient before the first step, in float64 lest they underflow.

    Returns the standard deviation of the last hidden layer, and the norm of the first weight's
    gradient over that of the last one's, each of shape `(initializations, seeds)`.
    """
    model, begin = network(splits, depth, activation), experiment(splits, depth, activation, lr, 1)
    batch = splits.train.inputs[:BATCH_SIZE].double(), splits.train.targets[:BATCH_SIZE]
    keys = torch.stack([random.key(seed) for seed in range(seeds)])

    def signals(key: Tensor, initialization: Tensor) -> tuple[Tensor, Tensor]:
        params = tree.map(torch.Tensor.double, begin.init(key, initialization).params)
        seen = inspect.signal_propagation(model, params, {}, batch, losses.cross_entropy)
        *_, hidden, last = seen.values()
        return hidden.std, seen["1"].weight_grad_norm / last.weight_grad_norm

    per_seed = vmap(signals, in_dims=(0, None), chunk_size=10)
    found = [per_seed(keys, torch.tensor(number)) for number in range(len(NAMES))]
    return [torch.stack(part).numpy() for part in zip(*found, strict=True)]


def shorten(splits: data.Splits) -> data.Splits:
    """Leave 1,000 images to measure on, for `--fast`."""
    valid, test = (
        data.Batch(*(part[:1000] for part in examples)) for examples in (splits.valid, splits.test)
    )
    return splits._replace(valid=valid, test=test)


class Runs:
    """The study, and what was seen before the first step: by depth, activation, initialization."""

    def __init__(self, depths: Sequence[int], found: study.Study, before: Mapping[str, Any]):
        self.depths, self.found, self.before, self.seeds = depths, found, before, len(found.seeds)

    def combinations(self) -> list[tuple[int, str, str]]:
        return list(product(self.depths, ACTIVATIONS, NAMES))

    def accuracy(self, depth: int, activation: str, law: str, part: str = "test") -> Any:
        arm, number = f"{activation} {depth}", NAMES.index(law)
        return self.found.values(f"{part}_accuracy", arm, initialization=number)

    def trained(self, depth: int, activation: str, law: str) -> int:
        return int((self.accuracy(depth, activation, law) >= TRAINS).sum())

    def signal(self, depth: int, activation: str, law: str) -> tuple[float, float]:
        """The standard deviation of the last hidden layer, and the gradient's ratio."""
        std, ratio = self.before[f"{activation} {depth}"]
        return tuple(float(np.median(x[NAMES.index(law)])) for x in (std, ratio))

    def best(self, depth: int, activation: str) -> str:
        return max(NAMES, key=lambda law: self.accuracy(depth, activation, law, "valid").mean())

    def contrast(self, depth: int, a: tuple[str, str], b: tuple[str, str]) -> Contrast:
        names = [" ".join(pair) for pair in (a, b)]
        return Contrast(names[0], self.accuracy(depth, *a), names[1], self.accuracy(depth, *b))
