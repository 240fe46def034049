"""What a seed costs, in time and memory, when there are 1 to 512 of them.

    python benchmarks/seeds.py [--seeds 1 2 4 ...] [--rounds 7] [--optimizer sgd|adam] [--out DIR]

The training step of `many_seeds.py`: the MLP 784-100-100-100-10 on batches of 32. For each number
of seeds, all of them in one compiled step, and by chunks of 8 with 4 steps in a call. The
contenders take turns with a torch.optim loop, and the table shows medians over the rounds. Memory
is the peak resident size of a process of its own while it takes steps, compilation done; what grows
with each seed is compared with the bytes of its state, gradients and activations. It reads and
resets the peak in /proc, so it needs Linux.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
from many_seeds import BATCH_SIZE, SIZES, Contender, Job, fdnn_runs, torch_loop
from rich.console import Console
from rich.table import Table

CHUNKED = 8, 4  # seeds at once, steps in a call
WAYS = {"at once": None, "by 8": CHUNKED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2**i for i in range(10)])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--out", type=Path, help="folder for JSON and PNG")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(peak_resident(int(args.memory_of[0]), args.memory_of[1], args.optimizer))
        return

    job = Job("classifier", args.optimizer)
    cases = [(n, way) for n in args.seeds for way in WAYS]
    yardstick = torch_loop(job)
    contenders = {case: contender(job, *case) for case in cases}
    micros: dict[tuple[int, str], list[float]] = {case: [] for case in cases}
    ratios: dict[tuple[int, str], list[float]] = {case: [] for case in cases}
    for number in range(args.rounds + 1):
        for (n, way), run in contenders.items():
            steps = max(8, 1024 // n // 4 * 4)
            reference = timed(yardstick, 200)
            took = timed(run, steps) / n
            if number:  # round 0 compiles and warms up
                micros[n, way].append(took)
                ratios[n, way].append(reference / took)
    figures = [
        {
            "seeds": n,
            "way": way,
            "us": statistics.median(micros[n, way]),
            "ratio": statistics.median(ratios[n, way]),
            "peak": measured(n, way, args.optimizer),
        }
        for n, way in cases
    ]
    report(figures, args)


def contender(job: Job, seeds: int, way: str) -> Contender:
    chunk, group = WAYS[way] or (seeds, 1)
    return fdnn_runs(job, seeds, min(chunk, seeds), group)


def timed(run: Contender, steps: int) -> float:
    """Microseconds a step."""
    begun = time.perf_counter()
    run(steps)
    return (time.perf_counter() - begun) / steps * 1e6


def measured(seeds: int, way: str, optimizer: str) -> int:
    call = [sys.executable, __file__, "--memory-of", str(seeds), way, "--optimizer", optimizer]
    return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def peak_resident(seeds: int, way: str, optimizer: str) -> int:
    """Bytes of this process at most, while it takes steps."""
    run = contender(Job("classifier", optimizer), seeds, way)
    run(4)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now
    run(8)
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def bytes_of_a_seed(optimizer: str) -> dict[str, int]:
    """State, gradients and activations: the batch, each ReLU's input and output, the logits."""
    sizes = SIZES["classifier"]
    parameters = 4 * sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    state = parameters * {"sgd": 1, "adam": 3}[optimizer]
    activations = 4 * BATCH_SIZE * (sizes[0] + 2 * sum(sizes[1:-1]) + sizes[-1])
    return {"state": state, "gradients": parameters, "activations": activations}


def slope(figures: list[dict]) -> float:
    """Bytes that each seed adds, by least squares."""
    seeds = [figure["seeds"] for figure in figures]
    return statistics.linear_regression(seeds, [figure["peak"] for figure in figures]).slope


def report(figures: list[dict], args: argparse.Namespace) -> None:
    table = Table("seeds", "", "µs a step and seed", "times cheaper than torch", "peak MiB")
    for f in figures:
        cells = f"{f['us']:.0f}", f"{f['ratio']:.2f}", f"{f['peak'] / 2**20:.0f}"
        table.add_row(str(f["seeds"]), f["way"], *cells)
    console = Console()
    console.print(table)
    parts = bytes_of_a_seed(args.optimizer)
    by_way = {way: [f for f in figures if f["way"] == way] for way in WAYS}
    grows = {}
    if len(args.seeds) > 1:
        grows = {way: slope(some) for way, some in by_way.items()}
        least = {"at once": sum(parts.values()), "by 8": parts["state"]}
        what = {"at once": "state, gradients and activations", "by 8": "state"}
        for way, each in grows.items():
            console.print(
                f"{way}: a seed adds {each / 1e6:.2f} MB, {each / least[way]:.2f} times the "
                f"{least[way] / 1e6:.2f} MB of its {what[way]}"
            )
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        found = {
            "optimizer": args.optimizer,
            "figures": figures,
            "bytes": parts,
            "bytes_added_by_a_seed": grows,
        }
        (args.out / f"seeds_{args.optimizer}.json").write_text(json.dumps(found, indent=2) + "\n")
        draw(by_way, args)


def draw(by_way: dict[str, list[dict]], args: argparse.Namespace) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for way, some in by_way.items():
        seeds = [f["seeds"] for f in some]
        left.plot(seeds, [f["us"] for f in some], "o-", label=way)
        right.plot(seeds, [f["peak"] / 2**20 for f in some], "o-", label=way)
    left.set(xscale="log", yscale="log", xlabel="seeds", ylabel="µs a step and seed")
    right.set(xlabel="seeds", ylabel="peak resident MiB", ylim=(0, None))
    left.legend(frameon=False)
    figure.savefig(args.out / f"seeds_{args.optimizer}.png", dpi=150)


if __name__ == "__main__":
    main()
