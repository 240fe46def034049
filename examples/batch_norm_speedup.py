"""Measure what batch and layer normalisation buy: epochs, and wall time, to the plain net's best.

    python examples/batch_norm_speedup.py            # 3 arms x 5 learning rates x 5 seeds
    python examples/batch_norm_speedup.py --fast

Trains 20 hidden layers of 100 SiLU units on Fashion-MNIST by NAdam in batches of 128: plain, with
batch norm, with layer norm. Each arm gets its best of five learning rates, all rates and seeds
being lanes of one `vmap`. The mark to reach is the plain net's lowest validation loss, seed by
seed. Prints the epochs and the seconds that each arm takes to it, beside the chapter's figures, and
writes `batch_norm_speedup.json` and `batch_norm_speedup.png` into `--out`.

The chapter (CIFAR-10, one run): 29 epochs without, 12 with batch norm, each epoch 1.5 times as
long.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from _fashion_mnist import add_arguments, console, load, parse, spread
from rich.table import Table
from torch import Tensor, vmap

from fdnn import data, functionalize, metrics, nn, optim, random, train

DEPTH, WIDTH, BATCH_SIZE = 20, 100, 128
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
ARMS = {"plain": None, "batch norm": "batch", "layer norm": "layer"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=5, epochs=15)
    parser.add_argument("--depth", type=int, default=DEPTH, help="hidden layers")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="learning rates")
    args = parse(parser, fast_seeds=2, fast_epochs=2)
    if args.fast:
        args.depth, args.no_compile = 4, True
    splits, name = load(args)
    splits = splits._replace(**{k: flat(batch) for k, batch in splits._asdict().items()})
    console.print(
        f"{name}: {args.depth} layers, {args.seeds} seeds at each of {len(args.rates)} rates, "
        f"{args.epochs} epochs."
    )
    arms = {arm: run(norm, splits, args) for arm, norm in ARMS.items()}
    mark = arms["plain"]["loss"].min(0).values  # by seed
    rows = [{"arm": arm, **score(found, mark)} for arm, found in arms.items()]
    show(rows)
    plot(arms, mark, args, name)
    (args.out / "batch_norm_speedup.json").write_text(json.dumps(rows, indent=2) + "\n")
    console.print(f"Wrote {args.out}/batch_norm_speedup.json and .png.")


def flat(batch: data.Batch) -> data.Batch:
    return batch._replace(inputs=batch.inputs.flatten(1))


def run(norm: Any, splits: data.Splits, args: argparse.Namespace) -> dict[str, Any]:
    """Train one arm at all rates and seeds, and keep its best rate.

    Returns the rate, the validation loss and accuracy of shape `(epochs, seeds)`, and the median
    seconds that an epoch of one run takes.
    """
    classes, pixels = int(splits.train.targets.max()) + 1, splits.train.inputs.shape[1]
    model = functionalize(
        nn.MLP(pixels, WIDTH, classes, depth=args.depth, activation="silu", norm=norm)
    )
    tx = optim.nadam(lr=args.rates[0])
    keys = random.split(random.key(0), args.seeds).repeat(len(args.rates), 1)
    states = vmap(lambda key: train.init(model, tx, key))(keys)
    rates = torch.tensor(args.rates).repeat_interleave(args.seeds)
    states = states._replace(opt_state=optim.set_hyperparams(states.opt_state, lr=rates))
    seconds, measures = [], {"loss": metrics.cross_entropy(), "accuracy": metrics.accuracy()}
    clock = time.perf_counter()

    def evaluate(states: train.TrainState) -> dict[str, Tensor]:
        nonlocal clock
        seconds.append(time.perf_counter() - clock)
        found = train.evaluate(model, states, splits.valid, measures)
        clock = time.perf_counter()
        return {f"valid_{k}": v for k, v in found.items()}

    _, history = train.fit(
        train.make_step(train.supervised(model, F.cross_entropy), tx),
        states,
        splits.train,
        epochs=args.epochs,
        batch_size=BATCH_SIZE,
        evaluate=evaluate,
        chunk_size=args.seeds,
        nonfinite="report",  # a run that diverges is a result
        compile=not args.no_compile,
    )
    loss, accuracy = (
        history[f"valid_{name}"].unflatten(1, (len(args.rates), args.seeds)) for name in measures
    )
    best = loss.min(0).values.nan_to_num(torch.inf).mean(1).argmin()
    later = seconds[1:] or seconds  # the first epoch compiles
    return {
        "lr": args.rates[best],
        "loss": loss[:, best],
        "accuracy": accuracy[:, best],
        "seconds": sorted(later)[len(later) // 2] / len(keys),
    }


def score(found: dict[str, Any], mark: Tensor) -> dict[str, Any]:
    """Count epochs to the mark by seed; a run that never gets there has none."""
    reached = (found["loss"] <= mark).int()
    epochs = torch.where(reached.any(0), reached.argmax(0) + 1.0, torch.nan)
    return {
        "lr": found["lr"],
        "reached": int(reached.any(0).sum()),
        "epochs": spread(epochs[~epochs.isnan()]) if reached.any() else None,
        "seconds_an_epoch": found["seconds"],
        "accuracy": spread(found["accuracy"].max(0).values),
    }


def show(rows: list[dict[str, Any]]) -> None:
    plain = rows[0]
    table = Table("", "best lr", "epochs to the mark", "runs", "s an epoch", "s to the mark",
                  "epochs, of plain", "time, of plain", "best accuracy")  # fmt: skip
    for row in rows:
        cells = ["never", "", "", "", ""]
        if row["epochs"]:
            epochs, seconds = row["epochs"]["mean"], row["seconds_an_epoch"]
            ratio = epochs / plain["epochs"]["mean"]
            slower = seconds / plain["seconds_an_epoch"]
            cells = [
                f"{epochs:.1f} ({row['epochs']['min']:.0f} to {row['epochs']['max']:.0f})",
                f"{seconds:.2f}",
                f"{epochs * seconds:.1f}",
                f"{ratio:.2f}",
                f"{ratio * slower:.2f}",
            ]
        table.add_row(
            row["arm"],
            f"{row['lr']:g}",
            cells[0],
            str(row["reached"]),
            *cells[1:],
            f"{row['accuracy']['mean']:.3f}",
        )
    console.print(table)


def plot(
    arms: dict[str, dict[str, Any]], mark: Tensor, args: argparse.Namespace, name: str
) -> None:
    """Draw the validation loss of each arm at its best rate, by epoch and by time."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), sharey=True, layout="constrained")
    for i, (arm, found) in enumerate(arms.items()):
        loss, epochs = found["loss"], torch.arange(1, args.epochs + 1)
        low, high = loss.min(1).values, loss.max(1).values
        for axis, unit in zip(axes, (1.0, found["seconds"]), strict=True):
            axis.fill_between(epochs * unit, low, high, color=f"C{i}", alpha=0.3, lw=0)
            axis.plot(epochs * unit, loss.median(1).values, color=f"C{i}", label=arm)
    for axis, label in zip(axes, ("epoch", "seconds of one run"), strict=True):
        axis.axhline(mark.mean(), color="grey", ls=":", label="the plain net's best")
        axis.set(xlabel=label)
    axes[0].set_ylabel("validation loss, median and range over seeds")
    axes[0].legend()
    figure.suptitle(f"{name}: {args.depth} hidden layers, {args.seeds} seeds")
    figure.savefig(args.out / "batch_norm_speedup.png", dpi=120)


if __name__ == "__main__":
    main()
