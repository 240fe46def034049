"""D1 to D3, D11 and D15: what small training runs settle."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from _chapter import run
from _fashion_mnist import stack
from _finding import Finding, decide, settle
from _two_classes import binary_accuracy, divide
from torch import Tensor, nn, vmap
from transfer_learning import images, walk

from fdnn import (
    data,
    functionalize,
    initializers,
    losses,
    metrics,
    optim,
    random,
    study,
    train,
    transfer,
)

HE: dict[str, Any] = {"weight": initializers.he_uniform(), "bias": initializers.zeros}
RATES = [0.05, 0.001]  # [E] and [N] use the first for all optimizers, [K] the second
RADII = [1e6, 2.0, 1.0]  # the first is out of reach
PRINTED_LOSSES = "0.565, 0.401, 0.361 with r = 2; 0.565, 0.402, 0.361 without"


def findings(args: argparse.Namespace, splits: data.Splits) -> Iterator[tuple[Finding, list[Any]]]:
    """Check them in turn; the studies that were run for each come along."""
    yield settle(args, twenty_images(args, splits), "h01_transfer", "gain is|as many steps"), []
    if args.fast:
        splits = splits._replace(valid=data.Batch(*(part[:1000] for part in splits.valid)))
    found = optimizers(args, splits)
    yield settle(args, one_rate(found), "h02_optimizers", r"at 0\.05"), [found]
    yield same_logs(found), []
    found = max_norm(args, splits)
    yield rows_moved(found), [found]
    found = dropout(args, splits)
    yield settle(args, averaging(args, found, splits), "h03_mc_dropout", "[Ll]ogits"), [found]


def twenty_images(args: argparse.Namespace, splits: data.Splits) -> Finding:
    """D1: training from scratch on the chapter's 20 images, by seeds and steps."""
    seeds, more = (8, 200) if args.fast else (40, 300)
    tx = optim.sgd(lr=0.005)
    others, task = divide(splits)
    model_a = functionalize(stack(splits._replace(train=others), depth=3, activation=nn.ReLU))
    model = transfer.replace_head(model_a, 1)
    state = vmap(lambda key: train.init(model, tx, key, **HE))(random.split(random.key(0), seeds))
    draws = images(task, torch.arange(20).expand(seeds, -1), "the chapter's")
    test = data.Batch(*(part[:2000] for part in task.test))
    accuracies = []
    for steps in (20, more):
        state = walk(model, tx, state, draws, steps, argparse.Namespace(no_compile=True))
        measured = train.evaluate(model, state, test, {"accuracy": binary_accuracy()})
        accuracies.append(measured["accuracy"].double())
    few, many = accuracies
    below = (few < 0.716).double().mean().item()
    return Finding(
        "D1. Transfer learning's 71.6 % against 92.5 % is a seed and too few steps: 20 images are "
        "less than one batch, so 20 epochs are 20 steps (transfer has 30); the same code and seeds "
        "on another device printed 88.6 % for scratch.",
        f"Scratch on the chapter's 20 images by full-batch SGD at 0.005, {seeds} seeds.",
        f"20 steps: mean {few.mean():.1%}, sd {100 * few.std():.1f} points, {below:.0%} of seeds "
        f"below 71.6 %; {more} steps: mean {many.mean():.1%}.",
        decide(below < 0.1 and few.mean() > 0.716 + few.std() and many.mean() > 0.925),
    )


def optimizers(args: argparse.Namespace, splits: data.Splits) -> study.Study:
    """D2 and D3: four optimizers at the two rates printed, on part of the data."""
    makers = {
        "SGD": optim.sgd(),
        "momentum": optim.sgd(momentum=0.9),
        "Adam": optim.adam(),
        "NAdam": optim.nadam(),
    }

    def experiment(optimizer: str, images: int, epochs: int) -> study.Experiment:
        model = functionalize(stack(splits, 3, nn.ReLU))
        return study.training(
            model,
            train.supervised(model, losses.cross_entropy),
            makers[optimizer],
            data.Batch(*(part[:images] for part in splits.train)),
            epochs=epochs,
            evaluate=train.evaluator(model, {"accuracy": metrics.accuracy()}, valid=splits.valid),
            **HE,
        )

    size = {"images": 1000, "epochs": 2} if args.fast else {"images": 10_000, "epochs": 2}
    arms = {name: {"optimizer": name} | size for name in makers}
    return run(args, "optimizers", experiment, arms=arms, sweep={"lr": RATES}, jit=False)


def one_rate(found: study.Study) -> Finding:
    """D2: who wins at which rate."""
    table = {
        rate: {name: found.values("valid_accuracy", name, lr=rate) for name in found.arms}
        for rate in RATES
    }
    large, small = ({name: x.mean() for name, x in table[rate].items()} for rate in RATES)
    shown = (
        f"at {rate:g}: " + ", ".join(f"{name} {100 * x.mean():.1f}" for name, x in row.items())
        for rate, row in table.items()
    )
    return Finding(
        "D2. That adaptive optimizers are fast and want little tuning is contradicted by the "
        "chapter's own cells: at 0.05 for all, plain SGD wins (.872; Adam .417, NAdam .191); at "
        "0.001 in the Keras twin it is the other way round.",
        f"Four optimizers at both rates, {found.arms['SGD'].finished.shape[-1]} seeds, part of the "
        "data: mean validation accuracy.",
        f"{'; '.join(shown)} %.",
        decide(
            max(large["Adam"], large["NAdam"]) < large["SGD"] - 0.1
            and min(small["Adam"], small["NAdam"]) > small["SGD"]
        ),
    )


def same_logs(found: study.Study) -> Finding:
    """D3: how far apart SGD and momentum are at the Keras twin's rate."""
    plain, moving = (
        found.arms[name].curves["loss"][0, found.cells.index({"lr": 0.001})]
        for name in ("SGD", "momentum")
    )
    return Finding(
        "D3. In the Keras twin, the logs printed for SGD and for momentum agree in every digit "
        "(.6877 ... .8672): one of them is old.",
        "The logs by reading. What follows: both optimizers at 0.001 from the same start on the "
        "same batches, training loss of the first epoch, seed by seed.",
        f"they differ by {np.abs(plain - moving).min():.3f} at least, {plain.mean():.3f} against "
        f"{moving.mean():.3f} on average.",
        decide(np.abs(plain - moving).min() > 1e-3),
    )


def max_norm(args: argparse.Namespace, splits: data.Splits) -> study.Study:
    """D11: the chapter's net under max-norm, its radii as lanes."""

    def experiment(lr: float, images: int, epochs: int) -> study.Experiment:
        model = functionalize(stack(splits, 3, nn.ReLU))
        return study.training(
            model,
            train.supervised(model, losses.cross_entropy),
            optim.chain(optim.sgd(lr=lr), optim.max_norm(2.0)),
            data.Batch(*(part[:images] for part in splits.train)),
            epochs=epochs,
            evaluate=train.evaluator(model, {"accuracy": metrics.accuracy()}, valid=splits.valid),
            **HE,
        )

    size = {"images": 2000, "epochs": 2} if args.fast else {"images": 55_000, "epochs": 3}
    arms = {"max-norm": {"lr": 0.05} | size}
    return run(args, "max norm", experiment, arms=arms, sweep={"max_norm": RADII}, seeds=2)


def rows_moved(found: study.Study) -> Finding:
    """D11: how many rows a radius moves, and what comes of it."""
    arm = found.arms["max-norm"]
    free, two, one = (found.cells.index({"max_norm": radius}) for radius in RADII)
    moved = {cell: float(arm.curves["max_norm_moved"][:, cell].mean()) for cell in (two, one)}
    loss = arm.curves["loss"].mean(-1)
    gap = float(np.abs(arm.curves["loss"][:, two] - arm.curves["loss"][:, free]).max())
    accuracy = {cell: arm.results["valid_accuracy"][cell].mean() for cell in (free, two, one)}
    norms = [
        initializers.he_uniform()(random.key(0), (1000, fan_in)).norm(dim=1).mean().item()
        for fan_in in (100, 784)
    ]
    losses_ = [", ".join(f"{x:.3f}" for x in loss[:, cell]) for cell in (two, free)]
    return Finding(
        f"D11. The max-norm cell does nothing: its radius of 2 is out of reach (printed losses: "
        f"{PRINTED_LOSSES}).",
        f"The chapter's net by SGD at 0.05, {len(loss)} epochs, {arm.finished.shape[-1]} seeds: "
        "share of rows that a step would have carried outside; row norms after He's start.",
        f"row norms {norms[0]:.3f} and {norms[1]:.3f} with 100 and 784 inputs (√2 = "
        f"{math.sqrt(2):.3f}); r = 2 moves {moved[two]:.3%} of rows, losses {losses_[0]} against "
        f"{losses_[1]} without (at most {gap:.4f} apart, accuracy "
        f"{100 * (accuracy[two] - accuracy[free]):+.2f} points); r = 1 moves {moved[one]:.1%}, "
        f"accuracy {100 * (accuracy[one] - accuracy[free]):+.2f}.",
        decide(moved[two] < 0.001 and gap < 0.005 and moved[one] > 0.05),
    )


def dropout(args: argparse.Namespace, splits: data.Splits) -> study.Study:
    """D15: the chapter's net with dropout, trained little on much, and much on little."""

    def experiment(p: float, images: int, epochs: int) -> study.Experiment:
        model = functionalize(stack(splits, 2, nn.ReLU, p))
        return study.training(
            model,
            train.supervised(model, losses.cross_entropy),
            optim.sgd(lr=0.01, momentum=0.9),
            data.Batch(*(part[:images] for part in splits.train)),
            epochs=epochs,
            evaluate=train.evaluator(model, {"accuracy": metrics.accuracy()}, valid=splits.valid),
            **HE,
        )

    sizes = ((2000, 2), (200, 40)) if args.fast else ((10_000, 2), (500, 60))
    arms = {
        name: {"p": 0.2, "images": images, "epochs": epochs}
        for name, (images, epochs) in zip(("under-trained", "over-fit"), sizes, strict=True)
    }
    return run(args, "dropout", experiment, arms=arms, jit=False, keep_parameters=True)


def averaging(args: argparse.Namespace, found: study.Study, splits: data.Splits) -> Finding:
    """D15: the log loss of mean probabilities and of mean logits, by Monte Carlo dropout."""
    model = functionalize(stack(splits, 2, nn.ReLU, 0.2))
    x, y = (part[:2000] for part in splits.test)
    shown, gaps = [], []
    for arm in found.arms:
        params, buffers = found.parameters(arm)

        def sample(key: Tensor, params: Any = params, buffers: Any = buffers) -> Tensor:
            def draw(p: Any, b: Any) -> Tensor:
                return model.apply(p, b, x, key=key, train=True)[0]

            return vmap(draw)(params, buffers)

        logits = torch.stack([sample(key) for key in random.split(random.key(5), 30)])
        both = logits.softmax(-1).mean(0).log(), logits.mean(0).log_softmax(-1)
        probs, logs = (-log_p[:, torch.arange(len(y)), y].mean(1) for log_p in both)
        gaps.append(probs - logs)
        shown.append(f"{arm}: {probs.mean():.4f} against {logs.mean():.4f}")
    return Finding(
        "D15. “Average probabilities, never logits” is no rule: at the chapter's own protocol the "
        "mean of probabilities has the worse log loss; the advice holds for an over-fit net.",
        f"Monte Carlo dropout of 784-100-100-10 (p 0.2, 30 samples, {len(found.seeds)} seeds, "
        f"2,000 test images), trained short on many images and long on few.",
        f"log loss of mean probabilities against mean logits: {'; '.join(shown)}.",
        decide((gaps[0] > 0).all() and (gaps[1] < 0).all()),
    )
