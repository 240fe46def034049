"""`Record`: the runs of an arm as they go on, some of them longer than others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fdnn.study.arm import Arm
from fdnn.study.task import Results

__all__ = ["Record"]


class Record:
    """What is known of an arm, by cell and seed."""

    def __init__(self, epochs: int, cells: int, seeds: int, settings: str):
        self._shape, self._epochs, self._settings = (cells, seeds), epochs, settings
        self._latest: dict[str, Any] = {}
        self._curves: dict[str, Any] = {}
        self._diverged = np.zeros(self._shape, np.bool_)
        self._finished = np.zeros(self._shape, np.bool_)
        self._seconds = 0.0
        self.steps = np.zeros(self._shape, np.int64)

    def add(self, results: Results, here: list[int], begun: int, finished: bool) -> None:
        """Add what the cells `here` did since an epoch."""
        alive = len(here), self._shape[1]
        for name, values in results.final.items():
            whole = self._latest.setdefault(name, np.full(self._shape, math.nan))
            whole[here] = values.double().reshape(alive).cpu()
        for name, rows in results.curves.items():
            blank = np.full((self._epochs, *self._shape), math.nan)
            whole = self._curves.setdefault(name, blank)
            whole[begun : begun + len(rows), here] = rows.double().reshape(-1, *alive).cpu()
        self.steps[here] = results.steps.reshape(alive).cpu()
        self._diverged[here] = results.diverged.reshape(alive).cpu()
        self._finished[here] = finished
        self._seconds += results.seconds

    def score(self, metric: str, cell: int) -> float:
        """Return the mean of a cell over its seeds, nan if one diverged."""
        if metric not in self._latest:
            raise KeyError(f"there is no metric {metric!r}, but {list(self._latest)}")
        mean = float(self._latest[metric][cell].mean())
        lost = self._diverged[cell].any() or not math.isfinite(mean)
        return math.nan if lost else mean

    def arm(self) -> Arm:
        """Return all of it; results only of the runs that were finished."""
        results = {
            name: np.where(self._finished, values, math.nan)
            for name, values in self._latest.items()
        }
        return Arm(
            results,
            self._curves,
            self.steps,
            self._diverged,
            self._finished,
            self._seconds,
            self._settings,
        )
