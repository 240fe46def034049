"""What a draw costs, side by side: `fdnn.random` and torch's own generators.

    python benchmarks/draws.py [--rounds 25] [--threads 2] [--out FILE]

For 25 000 and a million numbers: `torch.rand` against `fdnn.random.uniform`, eager and under
`fdnn.jit`; `Tensor.bernoulli_` of booleans and of floats against `fdnn.random.bernoulli`, eager
and as dropout uses it, `where(bernoulli(...), x, 0)` under `fdnn.jit`. Then what a key costs:
`fold_in` and `split`, beside the compiled call that does next to nothing.

The contenders take turns, a few milliseconds each, and the table shows medians over rounds of
microseconds per call, and of the ratio to the group's first within the round (below 1: faster).
Compilation comes before the first round. torch's generators use one thread, whatever there are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import fdnn
from fdnn import random

COUNTS = (25_000, 1_000_000)
TURN = 0.005  # seconds: long against the clock's grain and a call's overhead
P = 0.5
Contender = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    key = random.key(0)
    groups = [group(key, count) for count in COUNTS for group in (uniform, bernoulli)]
    figures = [figure for group in [*groups, keys(key)] for figure in measure(group, args.rounds)]
    report(figures)
    if args.out:
        written = json.dumps({"threads": args.threads, "draws": figures}, indent=2)
        args.out.write_text(written + "\n")


def uniform(key: Tensor, count: int) -> dict[str, Contender]:
    compiled = fdnn.jit(lambda key: random.uniform(key, (count,)))
    return {
        f"{count:,}: torch.rand": lambda: torch.rand(count),
        f"{count:,}: uniform": lambda: random.uniform(key, (count,)),
        f"{count:,}: uniform, compiled": lambda: compiled(key),
    }


def bernoulli(key: Tensor, count: int) -> dict[str, Contender]:
    x = torch.randn(count)
    dropout = fdnn.jit(lambda key, x: torch.where(random.bernoulli(key, P, x.shape), x, 0))
    return {
        f"{count:,}: bernoulli_, bool": lambda: torch.empty(count, dtype=torch.bool).bernoulli_(P),
        f"{count:,}: bernoulli_, float": lambda: torch.empty(count).bernoulli_(P),
        f"{count:,}: bernoulli": lambda: random.bernoulli(key, P, (count,)),
        f"{count:,}: dropout, compiled": lambda: dropout(key, x),
    }


def keys(key: Tensor) -> dict[str, Contender]:
    nothing = fdnn.jit(lambda key: key + 1)
    return {
        "key + 1, compiled": lambda: nothing(key),
        "fold_in": lambda: random.fold_in(key, 7),
        "split": lambda: random.split(key),
    }


def measure(group: dict[str, Contender], rounds: int) -> list[dict[str, float | str]]:
    """Time the contenders in turn; the first is the yardstick."""
    for run in group.values():
        run()  # compiles and warms up
    calls = {name: max(1, round(TURN / timed(run, 9))) for name, run in group.items()}
    micros: dict[str, list[float]] = {name: [] for name in group}
    for _ in range(rounds):
        for name, run in group.items():
            micros[name].append(timed(run, calls[name]) * 1e6)
    yardstick, *_ = micros.values()
    return [
        {
            "name": name,
            "us": statistics.median(values),
            "ratio": statistics.median(v / t for t, v in zip(yardstick, values, strict=True)),
        }
        for name, values in micros.items()
    ]


def timed(run: Contender, calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begun) / calls


def report(figures: list[dict[str, float | str]]) -> None:
    table = Table("", "µs a call", "ratio")
    for figure in figures:
        table.add_row(str(figure["name"]), f"{figure['us']:.1f}", f"{figure['ratio']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
