"""Train a hundred layers without normalisation: SELU, LeCun's initialisation, standardised input.

    python examples/self_normalizing.py            # 5 seeds, 5 epochs; some 15 minutes on two cores
    python examples/self_normalizing.py --fast

The chapter's comparison: 100 hidden layers of 100 units on standardised Fashion-MNIST by SGD at
0.001 in batches of 32, with SELU and LeCun's initialisation against ReLU with He's. All seeds of an
arm train at once. Shows the size of the signal in every layer before and after training, and the
validation accuracy by epoch over seeds, beside the chapter's single run; writes
`self_normalizing.json` and `self_normalizing.png` into `--out`.

Reference: Klambauer, Unterthiner, Mayr, Hochreiter (2017), "Self-normalizing neural networks".
"""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from _fashion_mnist import add_arguments, compare, console, load, parse, spread, stack
from rich.table import Table
from torch import Tensor, nn, vmap

from fdnn import data, functionalize, initializers, inspect, metrics, optim, random, train
from fdnn.types import Initializer

BATCH_SIZE, LR = 32, 0.001


class Arm(NamedTuple):
    """A way to build the network, and the validation accuracy printed for it (one seed)."""

    name: str
    activation: type[nn.Module]
    weight: Initializer
    printed: tuple[float, float]


ARMS = (
    Arm("SELU, LeCun", nn.SELU, initializers.lecun_normal(), (0.8046, 0.8046)),
    Arm("ReLU, He", nn.ReLU, initializers.he_normal(), (0.7054, 0.7054)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=5, epochs=5)
    parser.add_argument("--depth", type=int, default=100, help="hidden layers")
    args = parse(parser, fast_seeds=2)
    if args.fast:
        args.depth, args.no_compile = 20, True
    splits, name = load(args, standardize=True)
    console.print(f"{name}: {args.depth} layers, {args.seeds} seeds, {args.epochs} epochs.")
    rows = [run(arm, splits, args) for arm in ARMS]
    table = Table("", "validation accuracy", "over seeds", "printed", "std, layer 1", "last layer")
    for row in rows:
        accuracy, size = row["accuracy"], row["std"]["before"].mean(1)
        table.add_row(
            row["arm"],
            f"{accuracy['mean']:.3f}",
            f"{accuracy['min']:.3f} to {accuracy['max']:.3f}",
            compare(accuracy, row["printed"]) if row["printed"] else "",
            f"{size[0]:.2f}",
            f"{size[-1]:.2f}",
        )
    console.print(table)
    plot(rows, args, name)
    results = [{k: row[k] for k in ("arm", "accuracy", "printed")} for row in rows]
    (args.out / "self_normalizing.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Wrote {args.out}/self_normalizing.json and .png.")


def run(arm: Arm, splits: data.Splits, args: argparse.Namespace) -> dict[str, Any]:
    """Train one arm, all seeds at once."""
    model, tx = functionalize(stack(splits, args.depth, arm.activation)), optim.sgd(lr=LR)
    states = vmap(
        lambda key: train.init(model, tx, key, weight=arm.weight, bias=initializers.zeros)
    )(random.split(random.key(0), args.seeds))

    def sizes(states: train.TrainState) -> Tensor:
        batch = tuple(part[:1000] for part in splits.valid)
        signals = vmap(
            lambda params: inspect.signal_propagation(model, params, {}, batch, F.cross_entropy)
        )(states.params)
        activations = [str(i) for i in range(2, 2 * args.depth + 1, 2)]
        return torch.stack([signals[layer].std for layer in activations])

    def evaluate(states: train.TrainState) -> dict[str, Tensor]:
        return train.evaluate(model, states, splits.valid, {"accuracy": metrics.accuracy()})

    before = sizes(states)
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
    return {
        "arm": arm.name,
        "accuracy": spread(history["accuracy"][-1]),
        "printed": None if args.fast else arm.printed,
        "history": history["accuracy"],
        "std": {"before": before, "after": sizes(states)},
    }


def plot(rows: list[dict[str, Any]], args: argparse.Namespace, name: str) -> None:
    """Draw accuracy by epoch, and the standard deviation of each layer's output."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for i, row in enumerate(rows):
        history, epochs = row["history"], range(1, args.epochs + 1)
        low, high = history.min(1).values, history.max(1).values
        left.fill_between(epochs, low, high, color=f"C{i}", alpha=0.3, lw=0)
        left.plot(epochs, history.median(1).values, color=f"C{i}", marker="o", label=row["arm"])
        for when, style in (("before", "-"), ("after", "--")):
            std = row["std"][when]
            layers = range(1, len(std) + 1)
            right.plot(layers, std.mean(1), style, color=f"C{i}", label=f"{row['arm']}, {when}")
    left.set(xlabel="epoch", ylabel="validation accuracy, median and range")
    right.set(xlabel="layer", ylabel="standard deviation of its output", yscale="log")
    left.legend()
    right.legend()
    figure.suptitle(f"{name}: {args.depth} hidden layers, {args.seeds} seeds")
    figure.savefig(args.out / "self_normalizing.png", dpi=120)


if __name__ == "__main__":
    main()
