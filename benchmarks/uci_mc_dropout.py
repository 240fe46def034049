"""Gal and Ghahramani's table of regression by Monte Carlo dropout, its trainings as lanes.

    python benchmarks/uci_mc_dropout.py --data DIR [--sets NAME [NAME ...]] [--out FILE]
        [--splits 20] [--epochs 4000] [--samples 10000] [--rates 0.005 0.01 0.05 0.1] [--seed 0]
        [--chunk-size 48] [--threads N]

DIR/NAME is a set: `data.txt` (rows of numbers), `index_features.txt` and `index_target.txt` (which
columns), `tau_values.txt` (the grid of the noise's precision). In each of the 20 splits every pair
of a dropout rate and a tau is trained on the first 80 % of the training rows. The pair with the
best log-likelihood of the others is trained again, on all of them, and scored on the test rows by
10 000 passes. A lane is one training, with data, rate, penalty and order of batches of its own.

FILE gets `rmse, rmse_se, ll, ll_se, seconds` of a set as soon as it is done. A set that is in it
already, with the same settings, is not computed again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _regression_lanes import Done, Lane, run
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fdnn import random

PUBLISHED = {  # RMSE, its standard error, log-likelihood, its standard error
    "bostonHousing": (2.904, 0.177, -2.402, 0.042),
    "concrete": (4.826, 0.161, -2.937, 0.025),
    "energy": (0.539, 0.014, -1.212, 0.005),
    "wine-quality-red": (0.622, 0.008, -0.928, 0.013),
    "yacht": (0.666, 0.049, -1.250, 0.015),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of the sets")
    parser.add_argument("--sets", nargs="+", help="names of sets; all of the folder if left out")
    parser.add_argument("--out", type=Path, help="where the figures are written, as JSON")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=10_000, help="passes with dropout")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.005, 0.01, 0.05, 0.1])
    parser.add_argument("--seed", type=int, default=0, help="of the networks, not of the splits")
    parser.add_argument("--chunk-size", type=int, default=48, help="lanes at once, at most")
    parser.add_argument("--threads", type=int, help="of torch")
    args = parser.parse_args()
    if args.splits < 2:
        parser.error(f"--splits must be at least 2, for a standard error, got {args.splits}")
    if args.data is None:
        print("nothing to measure: give the folder of the sets, --data DIR")
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    names = args.sets or sorted(path.parent.name for path in args.data.glob("*/data.txt"))
    settings = {
        name: getattr(args, name) for name in ("splits", "epochs", "samples", "rates", "seed")
    }
    found, failed = {}, []
    for name in names:
        try:
            data = load(args.data / name)
            known = read(args.out).get(name, {})
            if known.get("settings") == settings | {"taus": data.taus}:
                print(f"{name}: in {args.out} already")
                found[name] = known
                report({name: known})
                continue
            with progress_bar(name) as done:
                found[name] = measure(data, args, done)
            found[name]["settings"] = settings | {"taus": data.taus}
        except Exception:  # the other sets are not to be lost
            traceback.print_exc()
            failed.append(name)
            continue
        write(args.out, {**read(args.out), name: found[name]})
        report({name: found[name]})
    if len(names) > 1:
        report(found)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


class Data(NamedTuple):
    """A set: features, targets `(rows, 1)`, the grid of tau."""

    x: np.ndarray
    y: np.ndarray
    taus: list[float]


def load(folder: Path) -> Data:
    rows = np.loadtxt(folder / "data.txt", ndmin=2)
    features, target = (
        np.loadtxt(folder / f"index_{which}.txt", ndmin=1).astype(int)
        for which in ("features", "target")
    )
    return Data(
        rows[:, features], rows[:, target], np.loadtxt(folder / "tau_values.txt", ndmin=1).tolist()
    )


def splits(rows: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return which rows train and which test, in the published splits."""
    generator, size = np.random.RandomState(1), round(0.9 * rows)
    orders = [generator.choice(range(rows), rows, replace=False) for _ in range(count)]
    return [(order[:size], order[size:]) for order in orders]


def standardised(data: Data, rows: np.ndarray, held: np.ndarray, rate: float, tau: float) -> Lane:
    """Make a lane that trains on `rows` and predicts `held`."""
    x, y = data.x[rows], data.y[rows]
    scale = np.where(x.std(0) == 0, 1, x.std(0))
    values = (
        (x - x.mean(0)) / scale,
        (y - y.mean()) / y.std(),
        (data.x[held] - x.mean(0)) / scale,
        data.y[held],
        y.mean(),
        y.std(),
        rate,
        tau,
    )
    return Lane(*(torch.as_tensor(value, dtype=torch.float32) for value in values))


def measure(data: Data, args: argparse.Namespace, done: Done) -> dict[str, Any]:
    """Choose rate and tau for each split, train again, score."""
    begun = time.perf_counter()
    parts = splits(len(data.x), args.splits)
    pairs = list(itertools.product(args.rates, data.taus))
    first = int(0.8 * len(parts[0][0]))
    grid = [
        standardised(data, rows[:first], rows[first:], *pair)
        for (rows, _), pair in itertools.product(parts, pairs)
    ]
    keys = random.split(random.key(args.seed))
    options = {name: getattr(args, name) for name in ("epochs", "samples", "chunk_size")}
    _, ll = run(grid, keys[0], **options, done=lambda what, at: done(f"grid, {what}", at))
    ll = ll.nan_to_num(nan=-math.inf).reshape(len(parts), len(pairs))
    best = [pairs[i] for i in ll.argmax(1).tolist()]
    refit = [standardised(data, *part, *pair) for part, pair in zip(parts, best, strict=True)]
    rmse, ll = run(refit, keys[1], **options, done=lambda what, at: done(f"refit, {what}", at))
    return {
        "rmse": rmse.mean().item(),
        "rmse_se": rmse.std().item() / len(parts) ** 0.5,
        "ll": ll.mean().item(),
        "ll_se": ll.std().item() / len(parts) ** 0.5,
        "seconds": time.perf_counter() - begun,
        "by_split": {
            "rmse": rmse.tolist(),
            "ll": ll.tolist(),
            "rate": [rate for rate, _ in best],
            "tau": [tau for _, tau in best],
        },
    }


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Done]:
    with Progress(transient=True) as progress:
        task = progress.add_task(name, total=1.0)
        yield lambda what, fraction: progress.update(
            task, description=f"{name}: {what}", completed=fraction
        )


def read(path: Path | None) -> dict[str, Any]:
    return json.loads(path.read_text()) if path is not None and path.exists() else {}


def write(path: Path | None, figures: dict[str, Any]) -> None:
    """Replace the file in one go: it is never half written."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(figures, indent=2) + "\n")
        part.replace(path)


def report(figures: dict[str, Any]) -> None:
    """Print ours beside the published, and their distance in combined standard errors."""
    table = Table("", "", "ours", "published", "apart", "seconds")
    for name, figure in figures.items():
        published = PUBLISHED.get(name)
        for title, metric, i in (("RMSE", "rmse", 0), ("LL", "ll", 2)):
            ours, error = figure[metric], figure[f"{metric}_se"]
            row = [f"{ours:.3f} ± {error:.3f}", "", ""]
            if published is not None:
                theirs, their_error = published[i : i + 2]
                distance = (ours - theirs) / math.hypot(error, their_error)
                row[1:] = f"{theirs:.3f} ± {their_error:.3f}", f"{distance:+.1f}"
            begins = i == 0
            seconds = f"{figure['seconds']:.0f}"
            table.add_row(name * begins, title, *row, seconds * begins)
    Console().print(table)


if __name__ == "__main__":
    main()
