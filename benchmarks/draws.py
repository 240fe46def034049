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
from pathlib import Path

import torch
from _turns import Contender, measure, report
from torch import Tensor

import fdnn
from fdnn import random

COUNTS = (25_000, 1_000_000)
P = 0.5


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


if __name__ == "__main__":
    main()
