"""Show why deep networks did not train, and what cured them: activation x initialisation x depth.

    python examples/vanishing_gradients.py            # 20 and 50 layers, 5 seeds of each arm
    python examples/vanishing_gradients.py --fast

Trains stacks of 100 units a layer on standardised Fashion-MNIST for two epochs of SGD, all seeds
of an arm at once. Before the first step it looks into the network (`fdnn.inspect`): how much of the
gradient that the last layer gets arrives at the first. Prints both, beside the accuracies that the
chapter's notes print for 20 layers (3 seeds), and writes `vanishing_gradients.json` and
`vanishing_gradients.png` into `--out`.
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

BATCH_SIZE, LR = 128, 0.01


class Arm(NamedTuple):
    """One way to build the network, and the accuracies printed for 20 layers, 2 epochs, 3 seeds."""

    activation: type[nn.Module]
    initialisation: str
    weight: Initializer | None
    printed: tuple[float, float]

    @property
    def name(self) -> str:
        return f"{self.activation.__name__}, {self.initialisation}"


ARMS = (
    Arm(nn.Sigmoid, "Glorot", initializers.glorot_normal(), (0.1, 0.1)),
    Arm(nn.Tanh, "Glorot", initializers.glorot_normal(), (0.810, 0.823)),
    Arm(nn.ReLU, "torch's default", None, (0.1, 0.1)),
    Arm(nn.ReLU, "He", initializers.he_normal(), (0.806, 0.816)),
    Arm(nn.SiLU, "He", initializers.he_normal(), (0.59, 0.79)),
    Arm(nn.SELU, "LeCun", initializers.lecun_normal(), (0.835, 0.849)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=5, epochs=2)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 50], help="hidden layers")
    args = parse(parser, fast_seeds=2)
    if args.fast:
        args.depths, args.no_compile = [min(args.depths)], True
    splits, name = load(args, standardize=True)
    console.print(f"{name}: {args.seeds} seeds, {args.epochs} epochs, SGD {LR}.")
    rows = [run(arm, depth, splits, args) for depth in args.depths for arm in ARMS]
    show(rows)
    plot(rows, args.out / "vanishing_gradients.png", name)
    results = [{k: v for k, v in row.items() if k != "gradients"} for row in rows]
    (args.out / "vanishing_gradients.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Wrote {args.out}/vanishing_gradients.json and .png.")


def run(arm: Arm, depth: int, splits: data.Splits, args: argparse.Namespace) -> dict[str, Any]:
    """Look into the new networks of one arm, and train them."""
    model, tx = functionalize(stack(splits, depth, arm.activation)), optim.sgd(lr=LR)
    rules = {} if arm.weight is None else {"weight": arm.weight, "bias": initializers.zeros}
    states = vmap(lambda key: train.init(model, tx, key, **rules))(
        random.split(random.key(0), args.seeds)
    )
    batch = tuple(part[:BATCH_SIZE] for part in splits.train)
    signals = vmap(
        lambda params: inspect.signal_propagation(model, params, {}, batch, F.cross_entropy)
    )(states.params)
    gradients = torch.stack(
        [s.weight_grad_norm for name, s in signals.items() if f"{name}.weight" in states.params]
    )
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    states, _ = train.fit(
        step,
        states,
        splits.train,
        epochs=args.epochs,
        batch_size=BATCH_SIZE,
        nonfinite="report",  # a run that diverges is a result
        compile=not args.no_compile,
    )
    accuracy = train.evaluate(model, states, splits.test, {"accuracy": metrics.accuracy()})
    return {
        "arm": arm.name,
        "depth": depth,
        "printed": arm.printed if depth == 20 and not args.fast else None,
        "accuracy": spread(accuracy["accuracy"]),
        "first_to_last_gradient": spread(gradients[0] / gradients[-1].clamp(min=1e-30)),
        "gradients": gradients,
    }


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "hidden layers", "activation, initialisation", "gradient, first / last layer",
        "test accuracy", "over seeds", "printed",
    )  # fmt: skip
    for row in rows:
        accuracy = row["accuracy"]
        table.add_row(
            str(row["depth"]),
            row["arm"],
            f"{row['first_to_last_gradient']['mean']:.1e}",
            f"{accuracy['mean']:.3f}",
            f"{accuracy['min']:.3f} to {accuracy['max']:.3f}",
            compare(accuracy, row["printed"]) if row["printed"] else "",
        )
    console.print(table)


def plot(rows: list[dict[str, Any]], path: Any, name: str) -> None:
    """Draw the gradient of each layer's weights before training, and the accuracy after it."""
    depths = sorted({row["depth"] for row in rows})
    figure, axes = plt.subplots(
        2, len(depths), figsize=(6 * len(depths), 8), squeeze=False, layout="constrained"
    )
    for (above, below), depth in zip(axes.T, depths, strict=True):
        own = [row for row in rows if row["depth"] == depth]
        for i, row in enumerate(own):
            norms: Tensor = row["gradients"].clamp(min=1e-30)
            layers = range(1, len(norms) + 1)
            low, high = norms.min(1).values, norms.max(1).values
            above.fill_between(layers, low, high, alpha=0.3, color=f"C{i}", lw=0)
            above.plot(layers, norms.median(1).values, color=f"C{i}", label=row["arm"])
            scores = row["accuracy"]
            below.barh(i, scores["mean"], color=f"C{i}")
            below.plot([scores["min"], scores["max"]], [i, i], color="black")
        above.set(yscale="log", xlabel="layer", title=f"{depth} hidden layers")
        above.set_ylabel("gradient norm before the first step")
        below.set_yticks(range(len(own)), [row["arm"] for row in own])
        below.invert_yaxis()
        below.set(xlabel="test accuracy, mean and range over seeds", xlim=(0, 1))
    axes[0, 0].legend()
    figure.suptitle(f"{name}: vanishing gradients, and their cures")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
