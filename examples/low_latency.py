"""What makes a network fast? The chapter's list for low latency, each item measured alone.

    python examples/low_latency.py            # 10 seeds, 10 epochs
    python examples/low_latency.py --fast

The net is 784-300-100-100-10 with batch norm before SiLU, trained with Adam on Fashion-MNIST. Each
item changes one thing of it: batch norm folded into the layers; numbers of 16 bits, or int8 weights
and inputs (torchao); ReLU or Hardswish in place of SiLU, or a layer less (both trained anew); half
of the units pruned, taken out, and the rest trained for one more epoch; the exported program. The
last one puts together what needs no other kernels: ReLU, half of the units, folded.

Times are of the first seed's networks, called in turns on one thread, eagerly: a row, and a batch.
The ratio is the median of the ratios within a turn, so a busy machine is busy for all. Accuracies
are of all seeds, differences paired by seed. Writes `low_latency.json` and `low_latency.png`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from _compressed import classifier, fit, lane
from _fashion_mnist import add_arguments, console, load, parse, spread
from rich.markdown import Markdown
from torch import Tensor, nn, vmap

from fdnn import Model, compress, data, optim

HIDDEN = (300, 100, 100)
BASE = "SiLU, batch norm"
Make = Callable[[int], Any]
"""Gives the network of a seed, as `compress.benchmark` takes it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=10, epochs=10)
    parser.add_argument("--repeats", type=int, default=500, help="calls that are timed")
    args = parse(parser, fast_seeds=2)
    args.repeats = min(args.repeats, 30) if args.fast else args.repeats
    splits, name = load(args)
    makers = variants(splits, args)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = (1, min(256, len(splits.test.targets)))
    rows = compress.benchmark(
        {way: make(0) for way, make in makers.items()},
        splits.test.inputs,
        splits.test.targets,
        batch_sizes=sizes,
        repeats=args.repeats,
    )
    torch.set_num_threads(threads)
    found = {way: accuracies(make, splits.test, args.seeds) for way, make in makers.items()}
    report = [
        {
            "network": way,
            "latency": {row.batch_size: row._asdict() for row in rows if row.name == way},
            "accuracy": spread(values),
            "minus_base": spread(values - found[BASE]),
        }
        for way, values in found.items()
    ]
    console.print(Markdown(compress.benchmark_table(rows)))
    for one in report:
        drop = one["minus_base"]
        console.print(
            f"{one['network']}: accuracy {one['accuracy']['mean']:.4f}, minus base "
            f"{100 * drop['mean']:+.2f} points "
            f"({100 * drop['low']:+.2f} to {100 * drop['high']:+.2f})"
        )
    plot(report, sizes, name, args)
    (args.out / "low_latency.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"Wrote {args.out}/low_latency.json and .png.")


def variants(splits: data.Splits, args: argparse.Namespace) -> dict[str, Make]:
    """Train what must be, and say how to make each network."""
    tx = optim.adam(lr=1e-3)

    def trained(activation: type[nn.Module], hidden: tuple[int, ...] = HIDDEN) -> Any:
        model = classifier(splits, activation, hidden=hidden, batch_norm=True)
        return model, fit(model, splits, args, tx)

    silu, relu, hard = trained(nn.SiLU), trained(nn.ReLU), trained(nn.Hardswish)
    shallow = trained(nn.SiLU, HIDDEN[:-1])
    silu_half, relu_half = halved(*silu, splits, args), halved(*relu, splits, args)

    def of(run: tuple[Model, Any], change: Callable[..., Any]) -> Make:
        def make(seed: int) -> Any:
            one = lane(run[1], seed)
            return change(run[0], one.params, one.buffers)

        return make

    def half(model: Model, params: Any, buffers: Any) -> Any:
        small = compress.shrink(model, params, buffers)
        return small, small.params, small.buffers

    found = {
        BASE: of(silu, lambda *run: run),
        "batch norm folded": of(silu, folded),
        "bfloat16": of(silu, lambda *run: compress.cast_module(*run, torch.bfloat16)),
        "float16": of(silu, lambda *run: compress.cast_module(*run, torch.float16)),
        "int8 (torchao)": of(silu, compress.quantize),
        "ReLU": of(relu, lambda *run: run),
        "Hardswish": of(hard, lambda *run: run),
        "a layer less": of(shallow, lambda *run: run),
        "half of the units": of(silu_half, half),
        "exported": of(silu, lambda *run: compress.export(*run, (splits.test.inputs[:8],))),
        "ReLU, half, folded": of(relu_half, lambda *run: folded(*half(*run))),
    }
    try:
        found["int8 (torchao)"](0)
    except ImportError as missing:
        console.print(f"{missing}\n[bold]Leaving int8 out.[/bold]")
        del found["int8 (torchao)"]
    return found


def folded(model: Model, params: Any, buffers: Any) -> Any:
    new, fold = compress.fold_batch_norm(model)
    return (new, *fold(params, buffers))


def halved(
    model: Model, state: Any, splits: data.Splits, args: argparse.Namespace
) -> tuple[Model, Any]:
    """Prune half of the units of each hidden layer, and train the rest for an epoch."""
    hidden = [f"{path}.weight" for path in linear_layers(model)[:-1]]
    tx = compress.keep_masked(
        optim.adam(lr=1e-3),
        lambda params: compress.with_biases(
            model, compress.ln_structured(params, 0.5, where=hidden)
        ),
    )
    opt_state = vmap(tx.init)(state.params)
    params = compress.apply_masks(state.params, compress.masks_of(opt_state))
    start = state._replace(params=params, opt_state=opt_state, count=torch.zeros_like(state.count))
    return model, fit(model, splits, args, tx, start, epochs=1)


def linear_layers(model: Model) -> list[str]:
    layers = model.skeleton().named_modules()
    return [path for path, layer in layers if isinstance(layer, nn.Linear)]


@torch.no_grad()
def accuracies(make: Make, test: data.Batch, seeds: int) -> Tensor:
    """Return the share of right predictions of each seed's network."""
    values = []
    for seed in range(seeds):
        variant = make(seed)
        if isinstance(variant, tuple):
            model, params, buffers = variant
            variant = model.to_module(params, buffers)
        elif isinstance(variant, torch.export.ExportedProgram):
            variant = variant.module()
        values.append((variant(test.inputs).argmax(-1) == test.targets).double().mean())
    return torch.stack(values)


def plot(
    report: list[dict[str, Any]], sizes: tuple[int, int], name: str, args: argparse.Namespace
) -> None:
    """Draw latency ratios and accuracy differences, a line for each network."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 5), layout="constrained", sharey=True)
    places = range(len(report))
    for ax, size in zip(axes, sizes, strict=False):
        ratios = [one["latency"][size]["ratio"] for one in report]
        ax.barh(places, ratios, color=["tab:gray", *["tab:blue"] * (len(report) - 1)])
        ax.axvline(1, color="black", lw=0.8)
        for place, ratio in zip(places, ratios, strict=True):
            ax.text(ratio, place, f" {ratio:.2f}", va="center")
        ax.set(
            xlabel=f"latency, share of the first ({size} row{'s' * (size > 1)})",
            xlim=(0, 1.15 * max(ratios)),
        )
    drops = [one["minus_base"] for one in report]
    means = [100 * drop["mean"] for drop in drops]
    bars = [
        [100 * (drop["mean"] - drop["low"]) for drop in drops],
        [100 * (drop["high"] - drop["mean"]) for drop in drops],
    ]
    axes[2].errorbar(means, places, xerr=bars, fmt="o", capsize=3)
    axes[2].axvline(0, color="black", lw=0.8)
    axes[2].set(xlabel="accuracy minus the first's, points (95 %)")
    axes[0].set_yticks(places, [one["network"] for one in report])
    axes[0].invert_yaxis()
    figure.suptitle(f"{name}, 784-300-100-100-10, {args.seeds} seeds, one thread")
    figure.savefig(args.out / "low_latency.png", dpi=110)


if __name__ == "__main__":
    main()
