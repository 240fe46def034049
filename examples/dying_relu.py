"""Watch ReLUs die: units that output 0 for every image, at a sane and at a high learning rate.

    python examples/dying_relu.py            # 10 seeds x 2 learning rates at once, 5 epochs
    python examples/dying_relu.py --fast

Trains the 784-100-100-100-10 classifier on Fashion-MNIST by SGD in batches of 32, with ReLU and
with leaky ReLU, at learning rates of 0.05 and 0.5. Seeds and learning rates are lanes of one
`vmap`: the rate is a tensor in the optimizer's state. After every epoch `fdnn.inspect` counts the
hidden units that are 0 for all validation images. Prints the share of dead units and the accuracy,
and writes `dying_relu.json` and `dying_relu.png` into `--out`.

The chapter's claim: ReLUs die, above all at a high learning rate; leaky ones cannot.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from _fashion_mnist import add_arguments, console, load, parse, spread, stack
from rich.table import Table
from torch import Tensor, nn, vmap

from fdnn import data, functionalize, initializers, inspect, metrics, optim, random, train

DEPTH, BATCH_SIZE = 3, 32
RATES = (0.05, 0.5)
ACTIVATIONS: dict[str, type[nn.Module]] = {"ReLU": nn.ReLU, "leaky ReLU": nn.LeakyReLU}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=10, epochs=5)
    args = parse(parser, fast_seeds=2)
    splits, name = load(args)
    console.print(f"{name}: {args.seeds} seeds, {args.epochs} epochs, SGD at {RATES}.")
    rows = [row for arm in ACTIVATIONS for row in run(arm, splits, args)]
    table = Table(
        "activation", "learning rate", "dead units", "over seeds", "accuracy", "over seeds"
    )
    for row in rows:
        dead, accuracy = row["dead"], row["accuracy"]
        table.add_row(
            row["activation"],
            str(row["lr"]),
            f"{dead['mean']:.1%}",
            f"{dead['min']:.1%} to {dead['max']:.1%}",
            f"{accuracy['mean']:.3f}",
            f"{accuracy['min']:.3f} to {accuracy['max']:.3f}",
        )
    console.print(table)
    plot(rows, args, name)
    results = [{k: row[k] for k in ("activation", "lr", "dead", "accuracy")} for row in rows]
    (args.out / "dying_relu.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Wrote {args.out}/dying_relu.json and .png.")


def run(arm: str, splits: data.Splits, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one activation for all seeds and rates at once; lanes are rate by rate."""
    model, tx = functionalize(stack(splits, DEPTH, ACTIVATIONS[arm])), optim.sgd(lr=RATES[0])
    he = initializers.he_normal()
    keys = random.split(random.key(0), args.seeds).repeat(len(RATES), 1)  # the same for each rate
    states = vmap(lambda key: train.init(model, tx, key, weight=he, bias=initializers.zeros))(keys)
    rates = torch.tensor(RATES).repeat_interleave(args.seeds)
    states = states._replace(opt_state=optim.set_hyperparams(states.opt_state, lr=rates))

    def evaluate(states: train.TrainState) -> dict[str, Tensor]:
        measured = train.evaluate(model, states, splits.valid, {"accuracy": metrics.accuracy()})
        return {**measured, "dead": dead(states)}

    def dead(states: train.TrainState) -> Tensor:
        signals = vmap(
            lambda params: inspect.signal_propagation(
                model, params, {}, splits.valid, F.cross_entropy
            ),
            chunk_size=args.seeds,
        )(states.params)
        activations = [str(i) for i in range(2, 2 * DEPTH + 1, 2)]
        return torch.stack([signals[layer].dead for layer in activations]).mean(0)

    first = dead(states)
    states, history = train.fit(
        train.make_step(train.supervised(model, F.cross_entropy), tx),
        states,
        splits.train,
        epochs=args.epochs,
        batch_size=BATCH_SIZE,
        evaluate=evaluate,
        nonfinite="report",  # a run that diverges is a result
        compile=not args.no_compile,
    )
    shares = torch.cat([first[None], history["dead"]]).unflatten(1, (len(RATES), args.seeds))
    accuracy = history["accuracy"][-1].unflatten(0, (len(RATES), args.seeds))
    return [
        {
            "activation": arm,
            "lr": lr,
            "dead": spread(shares[-1, i]),
            "accuracy": spread(accuracy[i]),
            "shares": shares[:, i],
        }
        for i, lr in enumerate(RATES)
    ]


def plot(rows: list[dict[str, Any]], args: argparse.Namespace, name: str) -> None:
    """Draw the share of dead units by epoch, and the accuracy at the end."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for i, row in enumerate(rows):
        shares, label = row["shares"], f"{row['activation']}, lr {row['lr']}"
        low, high = shares.min(1).values, shares.max(1).values
        left.fill_between(range(args.epochs + 1), low, high, color=f"C{i}", alpha=0.3, lw=0)
        left.plot(range(args.epochs + 1), shares.mean(1), color=f"C{i}", label=label)
        scores = row["accuracy"]
        right.barh(i, scores["mean"], color=f"C{i}")
        right.plot([scores["min"], scores["max"]], [i, i], color="black")
    left.set(xlabel="epoch", ylabel="share of dead hidden units, mean and range")
    left.legend()
    right.set_yticks(range(len(rows)), [f"{row['activation']}, lr {row['lr']}" for row in rows])
    right.invert_yaxis()
    right.set(xlabel="validation accuracy, mean and range over seeds", xlim=(0, 1))
    figure.suptitle(f"{name}: {args.seeds} seeds")
    figure.savefig(args.out / "dying_relu.png", dpi=120)


if __name__ == "__main__":
    main()
