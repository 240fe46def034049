"""`Study`: the results of many runs, and what they say."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fdnn.study import statistics
from fdnn.study.store import Store, encode

__all__ = ["Arm", "Study"]

Floats = NDArray[np.float64]


class Arm(NamedTuple):
    """The runs of one arm.

    Attributes:
        results: what was measured in the end, by metric, each of shape `(cells, seeds)`.
        curves: the history, by metric, each of shape `(epochs, cells, seeds)`; nan after a run has
            stopped.
        steps: steps taken, of shape `(cells, seeds)`.
        diverged: whether the parameters became nan or infinite, of shape `(cells, seeds)`.
        seconds: what the runs took, together.
    """

    results: dict[str, Floats]
    curves: dict[str, Floats]
    steps: NDArray[np.int64]
    diverged: NDArray[np.bool_]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Study:
    """What `run` found.

    Attributes:
        arms: by name.
        seeds: of every arm.
        cells: the combinations of the sweep's values, `[{}]` without a sweep.
    """

    arms: dict[str, Arm]
    seeds: list[int]
    cells: list[dict[str, float]]

    @classmethod
    def read(
        cls,
        store: Store,
        arms: list[str] | None = None,
        seeds: list[int] | None = None,
        cells: list[dict[str, float]] | None = None,
    ) -> Study:
        """Read a study from its store: all that is there, or what is asked for."""
        names = store.arms() if arms is None else arms
        runs = {name: store.rows("runs", name) for name in names}
        if seeds is None:
            seeds = sorted({row[1] for rows in runs.values() for row in rows})
        if cells is None:
            found = sorted({row[0] for rows in runs.values() for row in rows})
            cells = [json.loads(cell) for cell in found]
        return cls({name: _arm(store, name, seeds, cells) for name in names}, seeds, cells)

    def metrics(self) -> list[str]:
        """Return the names of what was measured in the end, in any arm."""
        return list(dict.fromkeys(name for arm in self.arms.values() for name in arm.results))

    def values(self, metric: str, arm: str, **hyper: float) -> Floats:
        """Return a metric of all seeds of one arm.

        Args:
            metric: its name, as `evaluate` gives it.
            arm: its name.
            **hyper: the cell, if there was a sweep.

        Raises:
            KeyError: there is no such metric, arm or cell; the message lists those there are.
        """
        results = _named("arm", arm, self.arms).results
        values: Floats = _named("metric", metric, results)[self._cell(hyper)]
        return values

    def summary(self, metric: str, *, confidence: float = 0.95) -> dict[str, statistics.Summary]:
        """Summarize a metric, by arm and cell; see `summarize`."""
        return {
            label: statistics.summarize(values, confidence)
            for label, values in self._columns(metric).items()
        }

    def table(self, metric: str | None = None, *, confidence: float = 0.95) -> str:
        """Return a table of a metric (all of them, if left out) by arm and cell, as text."""
        head = ["", "metric", "n", "diverged", "mean", "interval", "sd", "min", "median", "max"]
        rows = [head]
        for name in self.metrics() if metric is None else [metric]:
            for label, values in self._columns(name).items():
                rows.append([label, name, *_line(values, confidence)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    def compare(self, metric: str, a: str, b: str, **options: Any) -> statistics.Comparison:
        """Compare two arms, or cells, seed by seed; see `statistics.compare`.

        Args:
            metric: its name.
            a: the name of an arm, or as `summary` names a cell: `"arm lr=0.1"`.
            b: likewise.
            **options: of `statistics.compare`.
        """
        columns = self._columns(metric)
        return statistics.compare(_named("arm", a, columns), _named("arm", b, columns), **options)

    def compare_all(
        self, metric: str, baseline: str | None = None, **options: Any
    ) -> dict[tuple[str, str], statistics.Comparison]:
        """Compare all arms and cells with a baseline, or each with each, with Holm's correction."""
        return statistics.compare_all(self._columns(metric), baseline, **options)

    def power(
        self, metric: str, a: str, b: str, delta: float | None = None, **options: Any
    ) -> statistics.Power:
        """Tell how many seeds would settle a difference; see `statistics.power`."""
        columns = self._columns(metric)
        return statistics.power(
            _named("arm", a, columns), _named("arm", b, columns), delta, **options
        )

    def to_pandas(self) -> Any:
        """Return one row for each run: arm, seed, hyperparameters, steps, diverged, results."""
        import pandas

        return pandas.DataFrame(
            [
                {
                    "arm": name,
                    "seed": seed,
                    **cell,
                    "steps": arm.steps[i, j],
                    "diverged": arm.diverged[i, j],
                    **{metric: values[i, j] for metric, values in arm.results.items()},
                }
                for name, arm in self.arms.items()
                for i, cell in enumerate(self.cells)
                for j, seed in enumerate(self.seeds)
            ]
        )

    def _cell(self, hyper: Mapping[str, float]) -> int:
        wanted = {name: float(value) for name, value in hyper.items()}
        if wanted not in self.cells:
            raise KeyError(f"there is no cell {wanted}, but {self.cells}")
        return self.cells.index(wanted)

    def _columns(self, metric: str) -> dict[str, Floats]:
        """The values of all seeds, by arm and cell."""
        return {
            " ".join([name, *(f"{key}={value:g}" for key, value in cell.items())]): values[i]
            for name, arm in self.arms.items()
            for values in [_named("metric", metric, arm.results)]
            for i, cell in enumerate(self.cells)
        }


def _line(values: Floats, confidence: float) -> list[str]:
    """Write the summary of one column, as far as it has one."""
    there = values[np.isfinite(values)]
    n, diverged = str(len(there)), str(len(values) - len(there))
    if len(there) < 2:
        return [n, diverged, f"{there.mean():.4g}" if len(there) else "", "", "", "", "", ""]
    s = statistics.summarize(values, confidence)
    interval = f"{s.t_interval.low:.4g} to {s.t_interval.high:.4g}"
    spread = (f"{value:.4g}" for value in (s.sd, s.min, s.median, s.max))
    return [n, diverged, f"{s.mean:.4g}", interval, *spread]


def _named(what: str, name: str, among: Mapping[str, Any]) -> Any:
    if name not in among:
        raise KeyError(f"there is no {what} {name!r}, but {list(among)}")
    return among[name]


def _arm(store: Store, name: str, seeds: list[int], cells: list[dict[str, float]]) -> Arm:
    """Lay the rows of an arm out by cell and seed."""
    column = {seed: j for j, seed in enumerate(seeds)}
    line = {encode(cell): i for i, cell in enumerate(cells)}
    shape = len(cells), len(seeds)
    steps, diverged = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    seconds = 0.0
    for hyper, seed, taken, lost, share in store.rows("runs", name):
        if hyper in line and seed in column:
            at = line[hyper], column[seed]
            steps[at], diverged[at], seconds = taken, lost, seconds + share
    results: dict[str, Floats] = {}
    for hyper, seed, metric, value in store.rows("results", name):
        if hyper in line and seed in column:
            values = results.setdefault(metric, np.full(shape, math.nan))
            values[line[hyper], column[seed]] = math.nan if value is None else value
    rows = store.rows("curves", name)
    epochs = max((row[2] for row in rows), default=0)
    curves: dict[str, Floats] = {}
    for hyper, seed, epoch, metric, value in rows:
        if hyper in line and seed in column:
            values = curves.setdefault(metric, np.full((epochs, *shape), math.nan))
            values[epoch - 1, line[hyper], column[seed]] = value
    return Arm(results, curves, steps, diverged, seconds)
