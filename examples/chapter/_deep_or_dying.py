"""What H4b trains, and what it sees in the layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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
)
from fdnn.model import Model
from fdnn.types import Initializer

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "SELU": nn.SELU,
    "ReLU": nn.ReLU,
    "leaky ReLU": nn.LeakyReLU,
}
LAWS = {"LeCun": initializers.lecun_normal(), "He": initializers.he_normal()}
FAR = {"LeCun": initializers.lecun_normal(), "He": initializers.he_uniform()}


def network(splits: data.Splits, depth: int, activation: str) -> Model:
    return functionalize(stack(splits, depth, ACTIVATIONS[activation]))


def experiment(
    splits: data.Splits, activation: str, law: str, depth: int, lr: float, epochs: int
) -> study.Experiment:
    model = network(splits, depth, activation)
    measure = train.evaluator(
        model, {"accuracy": metrics.accuracy()}, valid=splits.valid, test=splits.test
    )
    layers = [str(i) for i in range(2, 2 * depth + 1, 2)]  # the activations

    def dead(params: dict[str, Tensor]) -> Tensor:
        seen = inspect.signal_propagation(model, params, {}, splits.valid, losses.cross_entropy)
        share = torch.stack([seen[name].dead for name in layers]).mean()
        known = torch.stack([seen[name].std for name in layers]).isfinite().all()
        return torch.where(known, share, torch.nan)

    def evaluate(state: train.TrainState) -> dict[str, Tensor]:
        if activation == "SELU" or depth > 3:
            return measure(state)
        lanewise = vmap(dead, chunk_size=10) if state.count.ndim else dead
        return {**measure(state), "dead": lanewise(state.params)}

    return study.training(
        model,
        train.supervised(model, losses.cross_entropy),
        optim.sgd(lr=lr),
        splits.train,
        epochs=epochs,
        evaluate=evaluate,
        weight=LAWS[law],
        bias=initializers.zeros,
    )


def signals(splits: data.Splits, deep: study.Study, name: str, **arm: Any) -> Any:
    """Measure mean and standard deviation of every layer, of shape `(2, 2, layers)`.

    First before and after training, then mean and standard deviation; averages over seeds.
    """
    model, begin = network(splits, arm["depth"], arm["activation"]), experiment(splits, **arm)
    new = vmap(begin.init)(torch.stack([random.key(seed) for seed in deep.seeds])).params
    batch = tuple(part[:1000] for part in splits.valid)

    def see(params: dict[str, Tensor]) -> Tensor:
        seen = inspect.signal_propagation(model, params, {}, batch, losses.cross_entropy)
        hidden = [seen[str(i)] for i in range(2, 2 * arm["depth"] + 1, 2)]
        return torch.stack([torch.stack([one.mean for one in hidden]),
                            torch.stack([one.std for one in hidden])])  # fmt: skip

    return torch.stack(
        [vmap(see, chunk_size=2)(params).mean(0) for params in (new, deep.parameters(name)[0])]
    ).numpy()


def thousand(law: Initializer, seeds: int, layers: int) -> list[float]:
    """Return mean and standard deviation after so many layers of SELUs, averages over seeds."""

    def forward(key: Tensor) -> Tensor:
        x = random.normal(random.fold_in(key, 0), (500, 300))
        for layer in range(1, layers + 1):
            x = F.selu(x @ law(random.fold_in(key, layer), (300, 300)).T)
        return torch.stack([x.mean(), x.std()])

    return torch.stack([forward(random.key(seed)) for seed in range(seeds)]).mean(0).tolist()
