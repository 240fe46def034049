"""What freezing spares: training steps of one network, more or less of it frozen.

    python benchmarks/transfer.py [--seeds 16] [--rounds 15] [--threads N] [--out FILE]

The MLP 784-100-100-100-10 with Adam on batches of 32: all of it trained, the first two of its four
layers frozen, all but the head frozen, adapted by low-rank matrices (rank 4), and a linear probe
on features computed once. Eagerly, under `fdnn.jit`, and many seeds at once under `fdnn.jit`.

Contenders take turns; the table shows medians over rounds of microseconds a call, and of the ratio
to the fully trained network within the round (below 1: faster). Compilation comes before. The
numbers in the optimizer's state, as a share of the fully trained network's, stand in the names.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _turns import Contender, measure, report, stepping
from torch import nn, vmap

import fdnn
from fdnn import Model, functionalize, optim, random, train, transfer, tree
from fdnn.nn import MLP

TX = optim.adam(lr=1e-3)
BATCH_SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    figures = []
    for seeds, jit in ((None, False), (None, True), (args.seeds, True)):
        figures += measure(contenders(seeds, jit), args.rounds)
    report(figures)
    if args.out:
        written = {"threads": args.threads, "seeds": args.seeds, "steps": figures}
        args.out.write_text(json.dumps(written, indent=2) + "\n")


def contenders(seeds: int | None, jit: bool) -> dict[str, Contender]:
    net = functionalize(MLP(784, 100, 10, depth=3))
    images = torch.rand(BATCH_SIZE, 784), torch.randint(10, (BATCH_SIZE,))
    features = torch.rand(BATCH_SIZE, 100), images[1]
    cases = {
        "trained": (net, images),
        "half frozen": (transfer.freeze(net, transfer.by_depth(net, 2)), images),
        "head trained": (transfer.freeze(net, transfer.by_depth(net, -1)), images),
        "lora, rank 4": (transfer.lora(net, 4, 4.0), images),
        "probe on features": (functionalize(nn.Linear(100, 10)), features),
    }
    where = f"{f'{seeds} seeds, ' if seeds else ''}{'jit' if jit else 'eager'}"
    whole = slots(net)
    return {
        f"{where}: {name} ({slots(model) / whole:.1%} of the slots)": steps(
            model, batch, seeds, jit
        )
        for name, (model, batch) in cases.items()
    }


def slots(model: Model) -> int:
    return sum(leaf.numel() for leaf in tree.leaves(TX.init(model.params).slots))


def steps(model: Model, batch: Any, seeds: int | None, jit: bool) -> Contender:
    step = train.make_step(train.supervised(model, F.cross_entropy), TX)
    if seeds:
        keys = random.split(random.key(0), seeds)
        state = vmap(lambda key: train.init(model, TX, key))(keys)
        step = vmap(step, in_dims=(0, None))
    else:
        state = train.init(model, TX, random.key(0))
    return stepping(fdnn.jit(step, donate_argnums=0) if jit else step, state, batch)


if __name__ == "__main__":
    main()
