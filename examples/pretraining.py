"""Which pretraining helps, and how many labels does it save? T-shirts against pullovers.

    python examples/pretraining.py            # 8 seeds of each way
    python examples/pretraining.py --fast

The body of a small network, 784-100-100-100, is pretrained on Fashion-MNIST without the labels of
its task: as an autoencoder (trained end to end, layer by layer, or to fill in hidden patches), as
SimCLR, on pairs of the same or of different classes, and as a classifier of the eight classes that
the task leaves out. Then it gets a new head and learns T-shirts from pullovers with 20, 100 or 500
labelled images, by full-batch steps of Adam. Pairs and classifier see the eight classes; what needs
no label sees the 5 000 images of which some are labelled later as well. None sees a test image.

All seeds are trained at once. A seed has its own bodies and its own images; with few labels it has
several draws of them, which are averaged. The gain over scratch is paired by seed, with its 95 %
interval (Student's t). Prints the table, writes `pretraining.json` and `pretraining.png`.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import torch
from _fashion_mnist import add_arguments, console, load, parse, spread
from _two_classes import Task, binary_accuracy, divide
from rich.table import Table
from torch import Tensor, nn, vmap

from fdnn import data, functionalize, initializers, losses, optim, pretrain, random, train, transfer
from fdnn.nn import MLP

LABELS = {20: 4, 100: 2, 500: 1}  # and how often each seed draws as many images
SCRATCH = "scratch"
HE = {"weight": initializers.he_uniform(), "bias": initializers.zeros}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=8, epochs=3)
    args = parse(parser, fast_seeds=2)
    args.steps = (5, 20) if args.fast else (30, 200)
    splits, name = load(args, fast_images=55_000)
    if name != "Fashion-MNIST":
        raise SystemExit("this example needs Fashion-MNIST")
    others, task = divide(splits)
    if args.fast:
        others = data.Batch(*(part[:1000] for part in others))
        task = Task(*(data.Batch(*(part[:1000] for part in half)) for half in task))
    sources: dict[str, dict[str, Tensor]] = {SCRATCH: {}}
    for arm, params, seconds in bodies(others, task, args):
        sources[arm] = params
        console.print(f"{arm}: {seconds:.0f} s for {args.seeds} bodies.")
    found = {
        (count, arm): learn(task, count, source, args)
        for count in LABELS
        for arm, source in sources.items()
    }
    rows = [
        {"labels": count, "arm": arm, "way": way}
        | {"accuracy": spread(values), "gain": spread(values - found[count, SCRATCH][way])}
        for (count, arm), ways in found.items()
        for way, values in ways.items()
    ]
    show(rows)
    plot(rows, args)
    (args.out / "pretraining.json").write_text(json.dumps(rows, indent=2) + "\n")
    console.print(f"Wrote {args.out}/pretraining.json and .png.")


def bodies(
    others: data.Batch, task: Task, args: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Tensor], float]]:
    """Pretrain every arm's bodies: its name, stacked parameters named "encoder...", seconds."""
    tx, keys = optim.adam(), random.split(random.key(0), args.seeds)
    unlabelled = (torch.cat([others.inputs, task.pool.inputs]),)
    options: dict[str, Any] = {"epochs": args.epochs, "batch_size": 128}
    options["compile"] = not args.no_compile and not args.fast

    def start(model: Any) -> train.TrainState:
        begun: train.TrainState = vmap(lambda key: train.init(model, tx, key, **HE))(keys)
        return begun

    def run(model: Any, loss: Any, seen: Any) -> dict[str, Tensor]:
        step = train.make_step(loss, tx)
        return train.fit(step, start(model), seen, **options)[0].params

    def greedy() -> dict[str, Tensor]:
        state = start(functionalize(coder))
        state, _ = pretrain.greedy_layerwise(coder, tx, state, unlabelled, **options)
        return state.params

    coder = autoencoder()
    model = functionalize(coder)
    hide = on_images(pretrain.patch_mask(7, 0.5))
    simclr = headed(nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 64)))
    views = pretrain.compose(
        pretrain.random_resized_crop((0.3, 1.0)),
        pretrain.random_horizontal_flip(),
        pretrain.random_erasing(),
    )
    # A margin above the distances at the start, about 3: one of 1 shrinks the body's features.
    apart = functools.partial(losses.contrastive_loss, margin=10.0)
    pair, classifier = headed(nn.Linear(100, 32)), headed(nn.Linear(100, 8))
    ways = {
        "autoencoder": lambda: run(model, pretrain.reconstruction(model), unlabelled),
        "layer by layer": greedy,
        "masked": lambda: run(model, pretrain.masked_reconstruction(model, hide), unlabelled),
        "SimCLR": lambda: run(simclr, pretrain.simclr(simclr, on_images(views)), unlabelled),
        "pairs": lambda: run(pair, pretrain.same_different(pair, apart), others),
        "eight classes": lambda: run(
            classifier, train.supervised(classifier, losses.cross_entropy), others
        ),
    }
    for arm, way in ways.items():
        begun = time.perf_counter()
        yield arm, way(), time.perf_counter() - begun


def body() -> nn.Sequential:
    """Build the hidden layers of the network that will learn the task."""
    return MLP(784, 100, 1, depth=3).hidden


def headed(head: nn.Module) -> Any:
    return functionalize(nn.Sequential(OrderedDict(encoder=body(), head=head)))


def autoencoder() -> pretrain.Autoencoder:
    """Build the body with its mirror image, stage for stage."""
    back = MLP(100, 100, 784, depth=2)
    return pretrain.Autoencoder(body(), nn.Sequential(*back.hidden, back.output))


def on_images(change: Any) -> Any:
    """Let a function of images take them flattened."""
    return lambda key, x: change(key, x.unflatten(1, (28, 28))).flatten(1)


def learn(
    task: Task, count: int, source: dict[str, Tensor], args: argparse.Namespace
) -> dict[str, Tensor]:
    """Learn the task from `count` labelled images: each way's accuracy for each seed."""
    draws = 1 if args.fast else LABELS[count]
    keys = random.split(random.key(count), args.seeds * draws)  # the same for all arms
    picks = vmap(lambda key: random.permutation(key, len(task.pool.targets))[:count])(keys)
    images = task.pool.inputs[picks], task.pool.targets[picks]
    source = {name: x.repeat_interleave(draws, 0) for name, x in source.items()}
    whole = functionalize(MLP(784, 100, 1, depth=3))
    frozen = transfer.freeze(whole, transfer.by_depth(whole, -1))
    accuracies = {}
    for model, lr, part in ((frozen, 1e-2, "head"), (whole, 1e-3, "all")):
        tx = optim.adam(lr=lr)
        states = vmap(functools.partial(begin, whole, model, tx))(keys, source)
        loss = train.supervised(model, losses.binary_cross_entropy_with_logits)
        step = vmap(train.make_step(loss, tx))
        for steps in args.steps[-1:] if model is frozen else args.steps:
            while states.count[0] < steps:
                states, _ = step(states, images)
            scores = train.evaluate(model, states, task.test, {"accuracy": binary_accuracy()})
            by_seed = scores["accuracy"].unflatten(0, (-1, draws)).mean(1)
            accuracies[f"{part}, {steps} steps"] = by_seed
    return accuracies


def begin(
    whole: Any, model: Any, tx: Any, key: Tensor, source: dict[str, Tensor]
) -> train.TrainState:
    """Begin with the body of `source`, or with a fresh one; the head is the same for all arms."""
    fresh = train.init(whole, tx, key)
    drawn = {**fresh.params, **fresh.buffers}
    match = transfer.rename({"hidden": "encoder"})
    known = {n: source.get(match(n) or "", value) for n, value in drawn.items()}
    return transfer.init(model, tx, key, known)


def show(rows: list[dict[str, Any]]) -> None:
    """Print, for each count of labels and body, accuracies and gains in per cent."""
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        gain, accuracy = row["gain"], f"{row['accuracy']['mean']:.1%}"
        half = (gain["high"] - gain["low"]) / 2
        if row["arm"] != SCRATCH:
            accuracy += f" {100 * gain['mean']:+.1f} ± {100 * half:.1f}"
        cells.setdefault((str(row["labels"]), row["arm"]), []).append(accuracy)
    ways = dict.fromkeys(row["way"] for row in rows)
    table = Table("labels", "body", *ways, title="test accuracy, gain over scratch ± 95 %")
    for name, columns in cells.items():
        table.add_row(*name, *columns)
    console.print(table)


def plot(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Draw the gain of each arm over the number of labels, one panel for each way."""
    ways, arms = (list(dict.fromkeys(row[name] for row in rows)) for name in ("way", "arm"))
    figure, axes = plt.subplots(
        1, len(ways), figsize=(5 * len(ways), 4.5), sharey=True, layout="constrained"
    )
    for axis, way in zip(axes, ways, strict=True):
        axis.axhline(0.0, color="grey")
        for i, arm in enumerate(arm for arm in arms if arm != SCRATCH):
            gains = [row["gain"] for row in rows if (row["arm"], row["way"]) == (arm, way)]
            low, mean, high = ([gain[name] for gain in gains] for name in ("low", "mean", "high"))
            axis.fill_between(list(LABELS), low, high, color=f"C{i}", alpha=0.15)
            axis.plot(list(LABELS), mean, "o-", color=f"C{i}", label=arm)
        axis.set(xscale="log", xlabel="labelled images", title=way)
        axis.set_xticks(list(LABELS), [str(count) for count in LABELS])
        axis.minorticks_off()
    axes[0].set_ylabel("paired gain over scratch, mean and 95 %")
    axes[0].legend()
    figure.suptitle(f"T-shirts against pullovers, pretrained bodies: {args.seeds} seeds")
    figure.savefig(args.out / "pretraining.png", dpi=120)


if __name__ == "__main__":
    main()
