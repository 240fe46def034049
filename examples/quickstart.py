"""Train the chapter's Fashion-MNIST classifier for many seeds at once, and show the distribution.

    python examples/quickstart.py            # 32 seeds, 10 epochs, compiled
    python examples/quickstart.py --fast     # a small part of it, to see that it runs

Prints the accuracy over seeds, what a run costs here and in a torch.optim loop timed in between,
and the Monte Carlo dropout prediction of three test images. Writes `quickstart.json` and
`quickstart.png` into `--out`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from _fashion_mnist import add_arguments, console, load, parse, spread, stack
from rich.table import Table
from torch import Tensor, nn, vmap

from fdnn import data, functionalize, initializers, metrics, optim, random, train

BATCH_SIZE = 32
MC_SAMPLES = 100
TORCH_STEPS = 1000  # how long the torch.optim loop is timed after each epoch


def main() -> None:
    args = parse_args()
    splits, name = load(args)
    console.print(
        f"{name}: {len(splits.train.targets)} images to train on. "
        f"{args.seeds} seeds, {args.epochs} epochs, batches of {BATCH_SIZE}."
    )
    runs = Runs(splits, args)
    runs.train()
    results = {"data": name, "seeds": args.seeds, "epochs": args.epochs, **runs.results()}
    show_runs(results)
    results["mc_dropout"] = mc_dropout(splits, args)
    show_mc_dropout(results["mc_dropout"])
    plot(runs, results, args.out / "quickstart.png")
    (args.out / "quickstart.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Wrote {args.out}/quickstart.json and {args.out}/quickstart.png.")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=32, epochs=10)
    return parse(parser, fast_seeds=4, fast_epochs=2)


class Runs:
    """The main job: many seeds of the plain network, timed against a torch.optim loop."""

    def __init__(self, splits: data.Splits, args: argparse.Namespace):
        self.splits, self.args = splits, args
        module = stack(splits, 3, nn.ReLU)
        self.torch_loop = TorchLoop(module, splits.train)
        self.model = functionalize(module)
        self.metrics = {"accuracy": metrics.accuracy(), "log_loss": metrics.cross_entropy()}
        self.epoch_seconds: list[float] = []

    def train(self) -> None:
        tx = optim.sgd(lr=0.05)
        step = train.make_step(train.supervised(self.model, F.cross_entropy), tx)
        he, zeros = initializers.he_normal(nonlinearity="relu"), initializers.zeros
        states = vmap(lambda key: train.init(self.model, tx, key, weight=he, bias=zeros))(
            random.split(random.key(0), self.args.seeds)
        )
        self.clock = time.perf_counter()
        states, self.history = train.fit(
            step,
            states,
            self.splits.train,
            epochs=self.args.epochs,
            batch_size=BATCH_SIZE,
            evaluate=self.after_epoch,
            compile=not self.args.no_compile,
        )
        self.test = train.evaluate(self.model, states, self.splits.test, self.metrics)

    def after_epoch(self, states: train.TrainState) -> dict[str, Tensor]:
        self.epoch_seconds.append(time.perf_counter() - self.clock)
        self.torch_loop.time()
        measured = train.evaluate(self.model, states, self.splits.valid, self.metrics)
        self.clock = time.perf_counter()
        return measured

    def results(self) -> dict[str, Any]:
        """Sum up accuracy over seeds, and what a step of one seed costs in microseconds."""
        steps = -(-len(self.splits.train.targets) // BATCH_SIZE) * self.args.seeds
        first, *later = self.epoch_seconds
        per_epoch = statistics.median(later or [first])
        torch_step = statistics.median(self.torch_loop.step_seconds)
        return {
            "test": {name: spread(values) for name, values in self.test.items()},
            "training_seconds": sum(self.epoch_seconds),
            "compilation_seconds": max(0.0, first - per_epoch) if later else None,
            "step_us": {"fdnn": per_epoch / steps * 1e6, "torch": torch_step * 1e6},
            "times_cheaper": torch_step / (per_epoch / steps),
            "torch_run_seconds": torch_step * steps / self.args.seeds * self.args.epochs,
            "threads": torch.get_num_threads(),
        }


class TorchLoop:
    """The yardstick: the same work for one seed by torch.optim, with the fused optimizer."""

    def __init__(self, module: nn.Module, batch: data.Batch):
        self.module, self.batch = module, batch
        self.optimizer = torch.optim.SGD(module.parameters(), lr=0.05, fused=True)
        self.step_seconds: list[float] = []

    def time(self) -> None:
        begun, steps = time.perf_counter(), 0
        order = torch.randperm(len(self.batch.targets))
        for index in order.split(BATCH_SIZE)[:TORCH_STEPS]:
            output = self.module(self.batch.inputs[index])
            loss = F.cross_entropy(output, self.batch.targets[index])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            steps += 1
        self.step_seconds.append((time.perf_counter() - begun) / steps)


def mc_dropout(splits: data.Splits, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one network with dropout, and average its predictions over random masks."""
    model = functionalize(stack(splits, 2, nn.ReLU, dropout=0.2))
    tx = optim.sgd(lr=0.01, momentum=0.9)
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    state, _ = train.fit(
        step,
        train.init(model, tx, random.key(1), bias=initializers.zeros),
        splits.train,
        epochs=args.epochs,
        batch_size=BATCH_SIZE,
        compile=not args.no_compile,
    )
    images, labels = (part[:3] for part in splits.test)

    def predict(key: Tensor) -> Tensor:
        logits, _ = model.apply(state.params, state.buffers, images, key=key, train=True)
        return logits.softmax(-1)

    samples = vmap(predict)(random.split(random.key(2), MC_SAMPLES))
    mean, deviation = samples.mean(0), samples.std(0)
    guess = mean.argmax(-1, keepdim=True)
    columns = labels, guess[:, 0], mean.gather(1, guess)[:, 0], deviation.gather(1, guess)[:, 0]
    names = "label", "prediction", "mean", "std"
    return [
        dict(zip(names, row, strict=True))
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]


def show_runs(results: dict[str, Any]) -> None:
    table = Table("on the test set", "mean", "95 % interval", "min", "max")
    for name, s in results["test"].items():
        interval = f"{s['low']:.4f} to {s['high']:.4f}"
        table.add_row(name, f"{s['mean']:.4f}", interval, f"{s['min']:.4f}", f"{s['max']:.4f}")
    console.print(table)
    seconds, single = results["training_seconds"], results["torch_run_seconds"]
    compiling = results["compilation_seconds"]
    console.print(
        f"Training took {seconds:.0f} s"
        + (f", {compiling:.0f} s of it compilation" if compiling else "")
        + f": {seconds / results['seeds']:.2f} s a seed. "
        f"A torch.optim loop takes {single:.2f} s for one seed.\n"
        f"A step of one seed: {results['step_us']['fdnn']:.0f} µs here, "
        f"{results['step_us']['torch']:.0f} µs with torch.optim (fused), "
        f"{results['times_cheaper']:.2f} times as much."
    )


def show_mc_dropout(rows: list[dict[str, Any]]) -> None:
    table = Table("test image", "label", "prediction", "probability", "std", title="MC dropout")
    for i, row in enumerate(rows):
        shown = str(row["label"]), str(row["prediction"]), f"{row['mean']:.2f}", f"{row['std']:.2f}"
        table.add_row(str(i), *shown)
    console.print(table)


def plot(runs: Runs, results: dict[str, Any], path: Path) -> None:
    """Draw the learning curve of every seed, and where the seeds end on the test set."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    curves, ends = 100 * runs.history["accuracy"], 100 * runs.test["accuracy"]
    epochs = range(1, results["epochs"] + 1)
    low, middle, high = curves.quantile(torch.tensor([0.1, 0.5, 0.9]), dim=1)
    left.fill_between(epochs, low, high, color="C0", alpha=0.25, lw=0, label="middle 80 %")
    left.plot(epochs, curves, color="C0", alpha=0.35, lw=0.8)
    left.plot([], color="C0", alpha=0.5, lw=0.8, label="a seed")
    left.plot(epochs, middle, color="C3", lw=2, marker="o", markersize=4, label="median")
    left.set(xlabel="epoch", ylabel="validation accuracy, per cent", title="while they train")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend(loc="lower right")

    s = {name: 100 * value for name, value in results["test"]["accuracy"].items()}
    right.hist(ends, bins=max(4, len(ends) // 3), color="C0", alpha=0.45, edgecolor="white")
    places = torch.full_like(ends, 0.025)  # of the height
    right.plot(ends, places, "|", color="C0", ms=9, transform=right.get_xaxis_transform())
    right.axvline(s["mean"], color="C3", lw=2, label=f"mean {s['mean']:.2f}")
    right.axvspan(s["low"], s["high"], color="C3", alpha=0.25, lw=0, label="its 95 % interval")
    ends_at = f"in the end: {s['min']:.1f} to {s['max']:.1f} by seed"
    right.set(xlabel="test accuracy, per cent", ylabel="seeds", title=ends_at)
    right.yaxis.get_major_locator().set_params(integer=True)
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{results['data']}: {results['seeds']} seeds trained at once")
    figure.savefig(path, dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
