"""The runs of H9: networks trained, pruned by every amount, and trained on for an epoch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from _chapter import run
from _fashion_mnist import stack
from torch import Tensor, nn, vmap

from fdnn import (
    compress,
    data,
    functionalize,
    initializers,
    losses,
    metrics,
    optim,
    random,
    study,
    train,
)

AMOUNTS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)  # 0: what the others are compared with
TRAINED = {"plain": 0.0, "l1": 1e-4}  # by arm, the factor of the l1 penalty
PRUNE: dict[str, Callable[..., compress.Masks]] = {
    "layer-wise": compress.l1_unstructured,
    "global": compress.global_unstructured,
}
LR = 0.05


class Found(NamedTuple):
    """What was measured.

    Attributes:
        trained: the study of training, its arms those of `TRAINED`.
        tuned: the study of the epoch after pruning, its arms `"plain, global"` and so on, its cells
            the amounts.
        pruned: test accuracy without that epoch, by the arms of `tuned`; shape (amounts, seeds).
        after: with it.
        zeros: by the same arms, the share of each layer that is pruned (amounts, layers).
        near_zero: by the arms of `trained`, the share of weights below 0.001 before (seeds,).
    """

    trained: study.Study
    tuned: study.Study
    pruned: dict[str, Any]
    after: dict[str, Any]
    zeros: dict[str, Any]
    near_zero: dict[str, Any]


def optimizer(l1: float) -> optim.Chain:
    """Build plain SGD on the loss plus `l1` times the sum of the sizes of all weights."""
    return optim.chain(optim.add_l1(l1, mask="*weight"), optim.sgd(lr=LR))


def runs(args: argparse.Namespace, splits: data.Splits) -> Found:
    """Train, prune and tune; or go on with it."""
    model = functionalize(stack(splits, 3, nn.ReLU))
    loss = train.supervised(model, losses.cross_entropy)
    measures = {"accuracy": metrics.accuracy()}
    evaluate = train.evaluator(model, measures, valid=splits.valid, test=splits.test)

    def training(l1: float, epochs: int) -> study.Experiment:
        return study.training(
            model,
            loss,
            optimizer(l1),
            splits.train,
            epochs=epochs,
            evaluate=evaluate,
            weight=initializers.he_uniform(),
            bias=initializers.zeros,
        )

    epochs = 2 if args.fast else 10
    arms = {name: {"l1": l1, "epochs": epochs} for name, l1 in TRAINED.items()}
    trained = run(args, "training", training, arms=arms, keep_parameters=True)
    stacked = {name: trained.parameters(name)[0] for name in TRAINED}

    def tuning(start: str, prune: str, l1: float, after_epochs: int) -> study.Experiment:
        inner, params = optimizer(l1), stacked[start]
        tx = compress.keep_masked(inner, lambda params: PRUNE[prune](params, 0.0))

        def init(key: Tensor, amount: Tensor) -> train.TrainState:
            own = of_seed(params, trained.seeds, key)
            masks = PRUNE[prune](own, amount)
            own = compress.apply_masks(own, masks)
            # A key of its own, so that the batches do not come in the order of the first epoch.
            state = train.TrainState(own, {}, tx.init(own), random.fold_in(key, 1), key[0] * 0)
            return state._replace(opt_state=compress.set_masks(state.opt_state, masks))

        return study.Experiment(init, train.make_step(loss, tx), splits.train, 1, 32, evaluate)

    arms = {
        f"{start}, {prune}": {"start": start, "prune": prune, "l1": l1, "after_epochs": epochs}
        for start, l1 in TRAINED.items()
        for prune in PRUNE
    }
    tuned = run(args, "tuning", tuning, arms=arms, sweep={"amount": AMOUNTS})

    pruned, zeros = {}, {}
    for name, arm in arms.items():
        found = [
            prune_all(stacked[arm["start"]], PRUNE[arm["prune"]], amount, evaluate)
            for amount in AMOUNTS
        ]
        pruned[name] = torch.stack([accuracy for accuracy, _ in found]).double().numpy()
        zeros[name] = torch.stack([share for _, share in found]).numpy()
    return Found(
        trained,
        tuned,
        pruned,
        {name: tuned.arms[name].results["test_accuracy"] for name in arms},
        zeros,
        {name: near_zero(params) for name, params in stacked.items()},
    )


def of_seed(params: dict[str, Tensor], seeds: Sequence[int], key: Tensor) -> dict[str, Tensor]:
    """Take the parameters of the seed whose key this is."""
    keys = torch.stack([random.key(seed) for seed in seeds])
    lane = (keys == key).all(1).int().argmax().reshape(1)
    return {name: leaf.index_select(0, lane)[0] for name, leaf in params.items()}


def prune_all(
    params: dict[str, Tensor],
    prune: Callable[..., compress.Masks],
    amount: float,
    evaluate: Callable[[train.TrainState], dict[str, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Prune all seeds: the test accuracy of each, and the mean share of zeros in each layer."""
    masks = vmap(lambda own: prune(own, amount))(params)
    left = compress.apply_masks(params, masks)
    seeds = len(next(iter(left.values())))
    lanes = torch.zeros(seeds, dtype=torch.int64)
    state = train.TrainState(left, {}, (), random.split(random.key(0), seeds), lanes)
    shares = vmap(lambda own, masks: compress.sparsity(own, masks).leaves)(params, masks)
    return evaluate(state)["test_accuracy"], torch.stack([x.mean() for x in shares.values()])


def near_zero(params: dict[str, Tensor]) -> Any:
    """Tell what share of the weights is smaller than 0.001, by seed."""
    weights = torch.cat([leaf.flatten(1) for name, leaf in params.items() if "weight" in name], 1)
    return (weights.abs() < 1e-3).double().mean(1).numpy()
