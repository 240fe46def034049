"""What folding is worth: calls of networks as they were trained, and with their norms folded.

    python benchmarks/folding.py [--repeats 300] [--threads N] [--out FILE]
    python benchmarks/folding.py --fast   # a small part, to see that it runs

Three networks in eval mode: an MLP of 20 hidden layers of 100 SiLU units with batch norm; the same
with layer norm behind the activation, of which only weight and bias can be folded; and a small
convolutional net with batch norm. One row or 256 rows a call, eagerly and compiled
(`torch.compile`, one graph).

`fdnn.compress.benchmark` calls a network and its folded twin in turns; the ratio is the median over
turns of the folded one's time divided by the other's. Compilation comes before, and so does a check
that both give the same outputs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fdnn import Model, compress, functionalize, random
from fdnn.nn import MLP

Fold = Callable[[Model], tuple[Model, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=20, help="hidden layers of the MLPs")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 256])
    parser.add_argument("--repeats", type=int, default=300, help="calls that are timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--fast", action="store_true", help="a small part, to see that it runs")
    args = parser.parse_args()
    if args.fast:
        args.depth, args.repeats = min(args.depth, 3), min(args.repeats, 20)
    torch.set_num_threads(args.threads)

    rows = []
    for name, (net, x, fold) in networks(args.depth, max(args.batch_sizes)).items():
        trained, folded = modules(functionalize(net), x, fold)
        for how, change in {"eager": lambda module: module, "compiled": compiled}.items():
            pair = {
                f"{name}, {how}: as trained": change(trained),
                f"{name}, {how}: folded": change(folded),
            }
            rows += compress.benchmark(
                pair, x, batch_sizes=args.batch_sizes, repeats=args.repeats, warmup=20
            )
    print(compress.benchmark_table(rows))
    if args.out:
        written = {
            "threads": args.threads,
            "depth": args.depth,
            "repeats": args.repeats,
            "calls": [row._asdict() for row in rows],
        }
        args.out.write_text(json.dumps(written, indent=2) + "\n")


def networks(depth: int, rows: int) -> dict[str, tuple[nn.Module, Tensor, Fold]]:
    """Build each network, with inputs, and say how to fold it."""
    numbers, images = random.split(random.key(0))
    x, maps = random.normal(numbers, (rows, 784)), random.normal(images, (rows, 1, 28, 28))

    def mlp(norm: Any) -> nn.Module:
        before = norm == "batch"  # layer norm is folded into what comes directly behind it
        return MLP(784, 100, 10, depth=depth, activation="silu", norm=norm, norm_first=before)

    return {
        "MLP, batch norm": (mlp("batch"), x, compress.fold_batch_norm),
        "MLP, layer norm": (mlp("layer"), x, compress.fold_layer_norm),
        "convolutions, batch norm": (convolutions(), maps, compress.fold_batch_norm),
    }


def convolutions() -> nn.Module:
    layers: list[nn.Module] = []
    for channels, outputs in (1, 16), (16, 32), (32, 64):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 3 * 3, 10))


def modules(model: Model, x: Tensor, fold: Fold) -> tuple[nn.Module, nn.Module]:
    """Return the network and its folded twin, with statistics, scales and shifts that matter."""
    params, buffers = model.init(random.key(1))
    keys = random.split(random.key(2), len(params))
    for key, (name, value) in zip(keys, params.items(), strict=True):
        if value.ndim == 1:
            params[name] = value + 0.1 * random.normal(key, value.shape)
    _, buffers = model.apply(params, buffers, x, train=True)
    small, values_of = fold(model)
    values = values_of(params, buffers)
    trained = model.to_module(params, buffers).requires_grad_(False)
    folded = small.to_module(*values).requires_grad_(False)
    torch.testing.assert_close(folded(x), trained(x), rtol=1e-3, atol=1e-3)
    return trained, folded


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, fullgraph=True, dynamic=False)


if __name__ == "__main__":
    main()
