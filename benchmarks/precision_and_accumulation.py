"""What mixed precision saves in time, and micro-batches in memory.

    python benchmarks/precision_and_accumulation.py [--rounds 5] [--threads N] [--out FILE]

Training steps with SGD on an MLP of eight layers, 512 wide, with batch norm and GELU. First in
float32 and with the matrix products in bfloat16 and in float16, the latter with dynamic loss
scaling, on batches of 256, eagerly and under `fdnn.jit`: contenders take turns, and the table shows
medians of microseconds a step, and of the ratio to float32 within the round. Then in float32 on one
batch of 8192, eagerly, in 1 to 16 micro-batches: the most memory that a step has at a time, besides
state and data, as torch's profiler counts it, and the seconds of one step.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _turns import Contender, Figure, measure, report, stepping
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile

import fdnn
from fdnn import Model, functionalize, optim, random, train

WIDTH, DEPTH = 512, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    precisions = [
        figure for jit in (False, True) for figure in measure(contenders(jit), args.rounds)
    ]
    report(precisions)
    memory = [memory_of(parts) for parts in (1, 2, 4, 8, 16)]
    table = Table("micro-batches", "MiB", "seconds")
    for figure in memory:
        table.add_row(str(figure["name"]), f"{figure['mib']:.0f}", f"{figure['seconds']:.2f}")
    Console().print(table)
    if args.out:
        written = {"threads": args.threads, "precision": precisions, "memory": memory}
        args.out.write_text(json.dumps(written, indent=2) + "\n")


def network() -> Model:
    layers = [
        layer
        for _ in range(DEPTH)
        for layer in (nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.GELU())
    ]
    return functionalize(nn.Sequential(*layers, nn.Linear(WIDTH, 10)))


def batch_of(size: int) -> Any:
    return random.normal(random.key(1), (size, WIDTH)), torch.arange(size) % 10


def contenders(jit: bool) -> dict[str, Contender]:
    where, plain, tx = "jit" if jit else "eager", network(), optim.sgd(0.01)
    mixed = {
        dtype: train.mixed_precision(plain, train.Policy(compute=dtype))
        for dtype in (torch.bfloat16, torch.float16)
    }
    return {
        f"{where}: float32": steps(plain, tx, jit),
        f"{where}: bfloat16": steps(mixed[torch.bfloat16], tx, jit),
        f"{where}: float16, scaled": steps(mixed[torch.float16], train.with_loss_scaling(tx), jit),
    }


def steps(model: Model, tx: Any, jit: bool) -> Contender:
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    run = fdnn.jit(step, donate_argnums=0) if jit else step
    return stepping(run, train.init(model, tx, random.key(0)), batch_of(256))


def memory_of(parts: int) -> Figure:
    model, tx, batch = network(), optim.sgd(0.01), batch_of(8192)
    loss = train.supervised(model, F.cross_entropy)
    step = train.make_step(loss, tx, num_microbatches=parts)
    state = train.init(model, tx, random.key(0))
    step(state, batch)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step(state, batch)
    live = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    begun = time.perf_counter()
    step(state, batch)
    return {"name": str(parts), "mib": peak / 2**20, "seconds": time.perf_counter() - begun}


if __name__ == "__main__":
    main()
