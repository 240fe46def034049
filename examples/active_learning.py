"""Let a network choose what to have labelled: BALD against random, from 20 labels on.

    python examples/active_learning.py            # 20 seeds of each way, all at once
    python examples/active_learning.py --fast

A network 784-100-100-10 begins with 20 random images of Fashion-MNIST. In each round it is trained
anew, by 100 steps of Adam, each on all that is labelled; it looks at 1000 random images, and has 10
of those that are not labelled yet labelled:

- random: any;
- entropy: those whose predictive entropy by Monte Carlo dropout is largest;
- BALD: those about which the dropout samples disagree most (mutual information). Entropy also asks
  for images that are ambiguous for good, BALD for those whose label would tell about the weights.

Every seed of every way is a lane of one vmapped program. Labelled sets have a fixed largest size
and a mask, so that shapes stay the same and the step is compiled once. Ways share a seed's first
images, the networks' starts and the images that are looked at. Prints accuracy on the test set by
number of labels, and at the end the paired differences with their 95 % intervals (Student's t) and
Holm's correction; writes `active_learning.json` and `active_learning.png`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from _classifiers import HE, head
from _fashion_mnist import add_arguments, console, load, parse, spread
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn, vmap

import fdnn
from fdnn import (
    Model,
    data,
    functionalize,
    losses,
    metrics,
    optim,
    random,
    study,
    train,
    tree,
    uncertainty,
)

START, ACQUIRED, CANDIDATES = 20, 10, 1000
WAYS = ("random", "entropy", "BALD")
EMPTY = -1  # in a labelled set: a place that is still free


class Setting(NamedTuple):
    """What does not change from round to round."""

    model: Model
    tx: Any
    step: Any  # of all lanes
    pool: data.Batch
    args: argparse.Namespace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=20, epochs=100)
    parser.add_argument("--labels", type=int, default=200, help="how many in the end")
    parser.add_argument("--samples", type=int, default=30, help="predictions with dropout")
    args = parse(parser, fast_seeds=4, fast_epochs=20)
    splits, name = load(args, fast_images=10_000)
    test = splits.test
    if args.fast:
        args.labels, test = min(args.labels, 50), head(test, 1000)
    setting = prepare(splits, args)
    curves = learn(setting, test)  # (rounds, ways, seeds)
    labels = [START + ACQUIRED * i for i in range(len(curves))]
    rows = [
        {"labels": n, "way": way, **spread(found)}
        for n, ways in zip(labels, curves, strict=True)
        for way, found in zip(WAYS, ways, strict=True)
    ]
    compared = study.compare_all(
        dict(zip(WAYS, curves[-1].double().numpy(), strict=True)), baseline="random"
    )
    show(rows, compared, labels)
    plot(curves, labels, name, args)
    differences = {
        f"{a} - {b}": {
            "difference": one.difference,
            "interval": list(one.t_interval),
            "p_holm": one.p_holm,
        }
        for (a, b), one in compared.items()
    }
    (args.out / "active_learning.json").write_text(
        json.dumps({"curves": rows, "at_the_end": differences}, indent=2) + "\n"
    )
    console.print(f"Wrote {args.out}/active_learning.json and .png.")


def prepare(splits: data.Splits, args: argparse.Namespace) -> Setting:
    pixels, classes = splits.train.inputs[0].numel(), int(splits.train.targets.max()) + 1
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (pixels, 100):
        layers += [nn.Linear(inputs, 100), nn.ReLU(), nn.Dropout(0.5)]
    model, tx = functionalize(nn.Sequential(*layers, nn.Linear(100, classes))), optim.adam(lr=3e-3)

    def loss(params: Any, buffers: Any, batch: Any, key: Any) -> tuple[Tensor, Any]:
        inputs, targets, is_labelled = batch
        output, buffers = model.apply(params, buffers, inputs, key=key, train=True)
        each = losses.cross_entropy(output, targets, reduction="none")
        return (each * is_labelled).sum() / is_labelled.sum(), buffers

    step = vmap(train.make_step(loss, tx))
    compiled = step if args.no_compile or args.fast else fdnn.jit(step)
    return Setting(model, tx, compiled, splits.train, args)


def learn(setting: Setting, test: data.Batch) -> Tensor:
    """Train, measure and acquire until there are enough labels; accuracies (rounds, ways, seeds).

    Lanes are ordered by way, then by seed.
    """
    args, total = setting.args, len(setting.pool.targets)
    keys = random.split(random.key(0), args.seeds)

    def begin(key: Any) -> Tensor:
        first = random.permutation(key, total)[:START]
        return torch.cat([first, first.new_full((args.labels - START,), EMPTY)])

    labelled = vmap(begin)(keys).repeat(len(WAYS), 1)
    curves = []
    for count in track(range(START, args.labels + 1, ACQUIRED), "rounds", console=console):
        here = vmap(lambda key, count=count: random.fold_in(key, count))(keys)
        to_train, to_look, to_sample = vmap(lambda key: random.split(key, 3))(here).unbind(1)
        state = fit(setting, labelled, to_train.repeat(len(WAYS), 1))
        accuracy = train.evaluate(setting.model, state, test, {"accuracy": metrics.accuracy()})[
            "accuracy"
        ]
        curves.append(accuracy.reshape(len(WAYS), args.seeds))
        if count < args.labels:
            seen = vmap(lambda key: random.permutation(key, total)[:CANDIDATES])(to_look)
            new = acquire(setting, state, labelled, seen.repeat(len(WAYS), 1), to_sample)
            labelled = torch.cat([labelled[:, :count], new, labelled[:, count + ACQUIRED :]], dim=1)
    return torch.stack(curves)


def fit(setting: Setting, labelled: Tensor, keys: Tensor) -> train.TrainState:
    """Train every lane anew on its own labelled images, all of them in each step."""
    state = vmap(lambda key: train.init(setting.model, setting.tx, key, **HE))(keys)
    chosen = labelled.clamp(min=0)  # free places hold the first image, with weight 0
    batch = (
        setting.pool.inputs[chosen],
        setting.pool.targets[chosen],
        (labelled != EMPTY).float(),
    )
    for _ in range(setting.args.epochs):
        state, _ = setting.step(state, batch)
    return state


@torch.no_grad()
def acquire(
    setting: Setting, state: train.TrainState, labelled: Tensor, seen: Tensor, keys: Tensor
) -> Tensor:
    """Choose what each lane has labelled, from the images that it looks at: (lanes, acquired)."""
    seeds = setting.args.seeds

    def probabilities(params: Any, buffers: Any, key: Any, places: Tensor) -> Tensor:
        logits = uncertainty.mc_dropout(
            setting.model,
            params,
            buffers,
            setting.pool.inputs[places],
            key=key,
            num_samples=setting.args.samples,
        )
        return logits.softmax(-1)

    guided = tree.map(lambda x: x[seeds:], (state.params, state.buffers))
    members = vmap(probabilities)(*guided, keys.repeat(2, 1), seen[seeds:])
    scores = torch.cat(
        [
            torch.zeros(seeds, CANDIDATES).sub(torch.arange(CANDIDATES)),  # the first: any
            uncertainty.predictive_entropy(members[:seeds].mean(1)),
            vmap(uncertainty.mutual_information)(members[seeds:]),
        ]
    )
    known = (seen[:, :, None] == labelled[:, None, :]).any(-1)
    best = scores.masked_fill(known, -torch.inf).topk(ACQUIRED).indices
    return seen.gather(1, best)


def show(rows: list[dict[str, Any]], compared: Any, labels: list[int]) -> None:
    shown = {labels[0], labels[len(labels) // 4], labels[len(labels) // 2], labels[-1]}
    table = Table("labels", *WAYS)
    for n in sorted(shown):
        found = [row for row in rows if row["labels"] == n]
        table.add_row(
            str(n), *(f"{r['mean']:.3f} ({r['low']:.3f} to {r['high']:.3f})" for r in found)
        )
    console.print(table)
    for (a, b), one in compared.items():
        console.print(one.verdict(a, b))


def plot(curves: Tensor, labels: list[int], name: str, args: argparse.Namespace) -> None:
    """Draw accuracy by labels, and the paired gains over random."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for i, way in enumerate(WAYS):
        draw(left, labels, curves[:, i], f"C{i}", way)
        if i:
            draw(right, labels, curves[:, i] - curves[:, 0], f"C{i}", f"{way} − random")
    left.set(xlabel="labels", ylabel="test accuracy")
    right.axhline(0.0, color="grey")
    right.set(xlabel="labels", ylabel="paired gain in accuracy")
    for ax in (left, right):
        ax.legend()
    figure.suptitle(f"Active learning on {name}: mean and 95 % interval over {args.seeds} seeds")
    figure.savefig(args.out / "active_learning.png", dpi=120)


def draw(ax: Any, labels: list[int], values: Tensor, color: str, label: str) -> None:
    found = [spread(one) for one in values]
    low, high = [f["low"] for f in found], [f["high"] for f in found]
    ax.fill_between(labels, low, high, color=color, alpha=0.2)
    ax.plot(labels, [f["mean"] for f in found], "o-", ms=3, color=color, label=label)


if __name__ == "__main__":
    main()
