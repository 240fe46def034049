"""`Arm`: the runs of one arm, laid out by cell and seed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fdnn.study.store import Store, encode

__all__ = ["Arm", "read_arm"]

Floats = NDArray[np.float64]


class Arm(NamedTuple):
    """The runs of one arm.

    Attributes:
        results: what was measured in the end, by metric, each of shape `(cells, seeds)`; nan where
            there is no such run.
        curves: the history, by metric, each of shape `(epochs, cells, seeds)`; nan after a run has
            stopped.
        steps: steps taken, of shape `(cells, seeds)`.
        diverged: whether the parameters became nan or infinite, of shape `(cells, seeds)`.
        finished: whether there is such a run, of shape `(cells, seeds)`. In a store arms may have
            different seeds, and a study may be under way.
        seconds: what the runs took, together.
        settings: the keyword arguments of the experiment, as Python writes them.
    """

    results: dict[str, Floats]
    curves: dict[str, Floats]
    steps: NDArray[np.int64]
    diverged: NDArray[np.bool_]
    finished: NDArray[np.bool_]
    seconds: float
    settings: str


def read_arm(store: Store, name: str, seeds: list[int], cells: list[dict[str, float]]) -> Arm:
    """Read an arm, and lay its rows out by cell and seed."""
    column = {seed: j for j, seed in enumerate(seeds)}
    line = {encode(cell): i for i, cell in enumerate(cells)}
    shape = len(cells), len(seeds)
    steps = np.zeros(shape, np.int64)
    diverged, finished = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    seconds = 0.0
    for hyper, seed, taken, lost, share in store.rows("runs", name):
        if hyper in line and seed in column:
            at = line[hyper], column[seed]
            steps[at], diverged[at], finished[at] = taken, lost, True
            seconds += share
    results: dict[str, Floats] = {}
    for hyper, seed, metric, value in store.rows("results", name):
        if hyper in line and seed in column:
            values = results.setdefault(metric, np.full(shape, math.nan))
            values[line[hyper], column[seed]] = math.nan if value is None else value
    rows = [row for row in store.rows("curves", name) if row[0] in line and row[1] in column]
    epochs = max((row[2] for row in rows), default=0)
    curves: dict[str, Floats] = {}
    for hyper, seed, epoch, metric, value in rows:
        values = curves.setdefault(metric, np.full((epochs, *shape), math.nan))
        values[epoch - 1, line[hyper], column[seed]] = value
    return Arm(results, curves, steps, diverged, finished, seconds, store.settings(name))
