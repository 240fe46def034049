"""Timing of contenders that take turns, and a table of the medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fdnn import tree

TURN = 0.01  # seconds: long against the clock's grain and a call's overhead
Contender = Callable[[], object]
Figure = dict[str, float | str]


def stepping(step: Callable[..., Any], state: Any, batch: Any) -> Contender:
    """Step on and on from a state, which the step may be given to overwrite."""
    held = [tree.map(torch.clone, state)]

    def call() -> None:
        held[0], _ = step(held[0], batch)

    return call


def measure(group: dict[str, Contender], rounds: int) -> list[Figure]:
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


def report(figures: list[Figure]) -> None:
    table = Table("", "µs", "ratio")
    for figure in figures:
        table.add_row(str(figure["name"]), f"{figure['us']:.1f}", f"{figure['ratio']:.2f}")
    Console().print(table)
