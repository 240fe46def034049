"""`Study`: the results of many runs, and what they say."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fdnn import tree
from fdnn.study import plotting, report, statistics
from fdnn.study.arm import Arm, Floats, read_arm
from fdnn.study.call import Call
from fdnn.study.columns import columns, named
from fdnn.study.comparisons import compared, say_left_out, summaries, together
from fdnn.study.store import Store, encode
from fdnn.study.table import rows_of, text_table
from fdnn.types import Buffers, Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Study"]


@dataclasses.dataclass(frozen=True)
class Study:
    """What `run` found.

    Attributes:
        arms: by name.
        seeds: of every arm.
        cells: the combinations of the sweep's values, `[{}]` without a sweep.
        calls: the calls of `run` that made the runs.
        store: where all of it comes from.
    """

    arms: dict[str, Arm]
    seeds: list[int]
    cells: list[dict[str, float]]
    calls: Sequence[Call] = ()
    store: Store | None = None

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
            found = {row[0] for rows in runs.values() for row in rows}
            cells = sorted(map(json.loads, found), key=lambda cell: list(cell.items()))
        by_name = {name: read_arm(store, name, seeds, cells) for name in names}
        return cls(by_name, seeds, cells, store.calls(), store)

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
        results = named("arm", arm, self.arms).results
        values: Floats = named("metric", metric, results)[self._cell(hyper)]
        return values

    def parameters(self, arm: str, **hyper: float) -> tuple[Params, Buffers]:
        """Return parameters and buffers of all seeds of one arm, as they were at the end.

        Args:
            arm: its name.
            **hyper: the cell, if there was a sweep.

        Returns:
            Stacked, each of shape `(seeds, ...)`, by the module's names: what `Model.apply` takes
            under `vmap`.

        Raises:
            KeyError: there is no such arm or cell.
            ValueError: they were not kept: `run` has to be told `keep_parameters=True`.
        """
        named("arm", arm, self.arms)
        cell = encode(self.cells[self._cell(hyper)])
        runs = [self.store.parameters(arm, cell, seed) if self.store else {} for seed in self.seeds]
        if not all(runs):
            lost = [seed for seed, run in zip(self.seeds, runs, strict=True) if not run]
            raise ValueError(
                f"`run` must be told `keep_parameters=True` to keep parameters, and of the arm "
                f"{arm!r} there are none of the seeds {lost}"
            )
        stacked = tree.stack(runs)
        params, buffers = (
            {name.removeprefix(part): x for name, x in stacked.items() if name.startswith(part)}
            for part in ("params.", "buffers.")
        )
        return params, buffers

    def summary(self, metric: str, *, confidence: float = 0.95) -> dict[str, statistics.Summary]:
        """Summarize a metric, by arm and cell; see `summarize`.

        What has fewer than 2 finite values is left out, with a warning.
        """
        found, left_out = summaries(columns(self, metric), confidence)
        say_left_out(left_out)
        return found

    def table(self, metric: str | None = None, *, confidence: float = 0.95) -> str:
        """Return a table of a metric (all of them, if left out) by arm and cell, as text."""
        names = self.metrics() if metric is None else [metric]
        head = ["", "metric", "n", "diverged", "mean", "interval", "sd", "min", "median", "max"]
        rows = [row for name in names for row in rows_of(name, columns(self, name), confidence)]
        return text_table([head, *rows])

    def compare(
        self, metric: str, a: str, b: str, *, paired: bool = True, **options: Any
    ) -> statistics.Comparison:
        """Compare two arms, or cells, seed by seed; see `statistics.compare`.

        Args:
            metric: its name.
            a: the name of an arm, or as `summary` names a cell: `"arm lr=0.1"`.
            b: likewise.
            paired: whether runs of the same seed are compared.
            **options: of `statistics.compare`.
        """
        return statistics.compare(*self._two(metric, a, b, paired), paired=paired, **options)

    def compare_all(
        self, metric: str, baseline: str | None = None, **options: Any
    ) -> dict[tuple[str, str], statistics.Comparison]:
        """Compare all arms and cells with a baseline, or each with each, with Holm's correction.

        What has fewer than 2 finite values is left out, with a warning.
        """
        found, left_out = compared(columns(self, metric), baseline, **options)
        say_left_out(left_out)
        return found

    def power(
        self, metric: str, a: str, b: str, delta: float | None = None, **options: Any
    ) -> statistics.Power:
        """Tell how many seeds would settle a difference; see `statistics.power`."""
        return statistics.power(*self._two(metric, a, b), delta, **options)

    def plot(self, metric: str, kind: str = "arms", ax: Axes | None = None, **options: Any) -> Axes:
        """Draw a metric.

        Needs matplotlib (of the extra `study`).

        Args:
            metric: its name; for curves a name of the history.
            kind: `"arms"`: every run a dot, the mean and its t interval (`confidence=`).
                `"curves"`: epoch by epoch the median of the runs that still go on, and a band
                (`quantiles=(0.1, 0.9)`). `"difference"`: of the arms `a=` and `b=`, seed by seed,
                with the mean and its interval (`confidence=`). `"response"`: against the swept
                `hyper=`, a line for each arm: the median and a band (`quantiles=`).
            ax: where to draw; a new figure, if left out.
            **options: of the kind; `labels=` says which arms and cells, all if left out.

        Returns:
            The axes drawn on.

        Raises:
            ImportError: matplotlib is not installed.
            KeyError: there is no such metric, arm or cell.
            ValueError: there is no such kind, or nothing was swept that a response could be to.
        """
        return plotting.plot(self, metric, kind, ax, **options)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str = "Study",
        baseline: str | None = None,
        confidence: float = 0.95,
    ) -> None:
        """Write all that the study says into one HTML page, which needs no other file.

        For each metric it has a table, the comparisons with Holm's correction, how many more seeds
        would settle what is not settled, and plots; and which commands made the runs, when and in
        what environment.

        Needs matplotlib (of the extra `study`).

        Args:
            path: the file; it is replaced at once, or not at all.
            title: the headline.
            baseline: the arm or cell that the others are compared with. If left out, each is
                compared with each, or, if that were more than 10 comparisons, with the first.
            confidence: of intervals, and 1 minus the level of the tests.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is no such baseline, or `confidence` is not between 0 and 1.
        """
        report.write(self, path, title, baseline, confidence)

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
                if arm.finished[i, j]
            ]
        )

    def _cell(self, hyper: Mapping[str, float]) -> int:
        wanted = {name: float(value) for name, value in hyper.items()}
        if wanted not in self.cells:
            raise KeyError(f"there is no cell {wanted}, but {self.cells}")
        return self.cells.index(wanted)

    def _two(self, metric: str, a: str, b: str, paired: bool = True) -> tuple[Floats, Floats]:
        """The values of two arms or cells."""
        found = columns(self, metric)
        return together(named("arm", a, found), named("arm", b, found), paired)
