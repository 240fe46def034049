"""What does a smaller network cost? Accuracy against size: pruned, int8, and both.

    python examples/prune_and_quantize.py            # 10 seeds, 10 epochs
    python examples/prune_and_quantize.py --fast

Trains 784-300-100-10 on Fashion-MNIST with Adam. Weights of smallest absolute value are pruned, by
one threshold for all layers; what is left is trained for one more epoch, the pruned weights kept at
0. Both are then quantized: each layer's weights and inputs to int8, as torchao does
(`compress.quantize` runs for the first seed; for all seeds at once its fake-quantized twin does,
which a test holds equal to it).

Sizes are bytes of the file that a plain encoding would take: a kept weight its 4 bytes (1 in int8,
and 4 for the scale of each output), and, where weights are pruned, one bit for each weight that
says whether it is kept. All is paired by seed. The dense net is also given the one more epoch
("dense, tuned"), so that it is no gain of pruning. Writes `prune_and_quantize.json` and `.png`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import matplotlib.pyplot as plt
import torch
from _compressed import accuracy, classifier, fit, lane
from _fashion_mnist import add_arguments, console, load, parse, spread
from rich.table import Table
from torch import Tensor, vmap

from fdnn import Model, compress, data, optim, train
from fdnn.types import Params

AMOUNTS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
COLORS = {"pruned": "tab:orange", "pruned, tuned": "tab:blue"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=10, epochs=10)
    args = parse(parser, fast_seeds=2)
    splits, name = load(args)
    amounts = AMOUNTS[1::2] if args.fast else AMOUNTS
    model = classifier(splits)
    twin = compress.quantization_aware(model)
    dense = fit(model, splits, args, optim.adam(lr=1e-3))

    rows: list[dict[str, Any]] = []

    def record(way: str, amount: float, state: train.TrainState) -> None:
        for quantized in (False, True):
            found = accuracy(twin if quantized else model, state, splits.test)
            rows.append(
                {
                    "way": f"{way}, int8" if quantized else way,
                    "amount": amount,
                    "bytes": size(lane(state, 0).params, quantized),
                    "accuracy": spread(found),
                    "values": found.tolist(),
                }
            )

    record("dense", 0.0, dense)
    for amount in (0.0, *amounts):
        pruned, tuned = prune(model, splits, args, dense, amount)
        if amount:
            record("pruned", amount, pruned)
        record("pruned, tuned" if amount else "dense, tuned", amount, tuned)
    report = {"data": name, "rows": rows, "torchao": check(model, twin, dense, splits.test)}
    show(report, args)
    plot(rows, name, args)
    (args.out / "prune_and_quantize.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"Wrote {args.out}/prune_and_quantize.json and .png.")


def prune(
    model: Model, splits: data.Splits, args: argparse.Namespace, dense: Any, amount: float
) -> tuple[train.TrainState, train.TrainState]:
    """Prune all seeds, and train what is left for an epoch."""
    masks = vmap(lambda params: compress.global_unstructured(params, amount))(dense.params)
    left = compress.apply_masks(dense.params, masks)
    tx = compress.keep_masked(optim.adam(lr=1e-3), lambda p: compress.l1_unstructured(p, 0.0))

    def begin(params: Params, masks: Params) -> optim.OptState:
        return compress.set_masks(tx.init(params), masks)

    pruned = dense._replace(params=left)
    start = pruned._replace(opt_state=vmap(begin)(left, masks), count=torch.zeros_like(dense.count))
    return pruned, fit(model, splits, args, tx, start, epochs=1)


def size(params: Params, is_int8: bool) -> int:
    """Count the bytes of one network's parameters, pruned weights left out."""
    total = 0.0
    for value in params.values():
        kept = int(value.count_nonzero())
        if value.ndim < 2:
            total += 4 * value.numel()
            continue
        total += kept * (1 if is_int8 else 4) + (4 * len(value) if is_int8 else 0)
        total += value.numel() / 8 if kept < 0.999 * value.numel() else 0
    return round(total)


def check(model: Model, twin: Model, dense: Any, test: data.Batch) -> dict[str, float] | str:
    """Compare torchao's int8 network of the first seed with the twin."""
    one = lane(dense, 0)
    try:
        module = compress.quantize(model, one.params, one.buffers)
    except ImportError as missing:
        return str(missing)
    with torch.no_grad():
        found = module(test.inputs)
    expected, _ = twin.apply(one.params, one.buffers, test.inputs)
    right: Tensor = (found.argmax(-1) == test.targets).double().mean()
    return {
        "largest difference of logits": (found - expected).abs().max().item(),
        "accuracy": right.item(),
        "bytes": compress.size_in_bytes(module),
    }


def show(report: dict[str, Any], args: argparse.Namespace) -> None:
    rows = report["rows"]
    first = torch.tensor(rows[0]["values"])
    table = Table(
        "network", "pruned", "KiB", "accuracy, 95 %", "minus dense, points (range of seeds)"
    )
    for row in rows:
        gain = 100 * (torch.tensor(row["values"]) - first)
        found = row["accuracy"]
        table.add_row(
            row["way"],
            f"{row['amount']:.0%}",
            f"{row['bytes'] / 1024:.0f}",
            f"{found['mean']:.4f} ({found['low']:.4f} to {found['high']:.4f})",
            f"{gain.mean():+.2f} ({gain.min():+.2f} to {gain.max():+.2f})",
        )
    console.print(table)
    console.print(f"torchao's int8 network of the first seed: {report['torchao']}")


def plot(rows: list[dict[str, Any]], name: str, args: argparse.Namespace) -> None:
    """Draw accuracy against size, with the range of seeds."""
    figure, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    for row in rows:
        if row["way"].startswith("dense"):
            is_int8 = row["way"].endswith("int8")
            ax.plot(
                row["bytes"] / 1024,
                100 * row["accuracy"]["mean"],
                "D" if "tuned" in row["way"] else "s",
                color="black",
                mfc="white" if is_int8 else "black",
                label=row["way"],
            )
    for way, color in COLORS.items():
        for suffix, style in (("", "o-"), (", int8", "o--")):
            own = [row for row in rows if row["way"] == way + suffix]
            sizes = [row["bytes"] / 1024 for row in own]
            means = [100 * row["accuracy"]["mean"] for row in own]
            label = way + suffix
            ax.plot(sizes, means, style, color=color, label=label, mfc="white" if suffix else color)
            ax.fill_between(
                sizes,
                [100 * row["accuracy"]["min"] for row in own],
                [100 * row["accuracy"]["max"] for row in own],
                color=color,
                alpha=0.15,
                lw=0,
            )
    best = max(row["accuracy"]["mean"] for row in rows)
    ax.set(
        xscale="log",
        xlabel="KiB",
        ylabel="test accuracy, %",
        ylim=(100 * best - 12, 100 * best + 1.5),
        title=f"{name}, 784-300-100-10, mean and range of {args.seeds} seeds",
    )
    ax.grid(alpha=0.3)
    ax.legend()
    figure.savefig(args.out / "prune_and_quantize.png", dpi=110)


if __name__ == "__main__":
    main()
