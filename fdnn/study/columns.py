"""Columns: a metric of all seeds, of one arm and cell; what tables, tests and plots are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fdnn.study.arm import Floats

if TYPE_CHECKING:
    from fdnn.study.study import Study

__all__ = ["Column", "columns", "label", "labels", "named"]


class Column(NamedTuple):
    """A metric of all seeds, of one arm and cell.

    Attributes:
        arm: its name.
        cell: the swept hyperparameters.
        values: by seed; nan where there is no such run.
        finished: by seed, whether there is one.
    """

    arm: str
    cell: dict[str, float]
    values: Floats
    finished: NDArray[np.bool_]

    @property
    def runs(self) -> Floats:
        """The values of the runs that there are."""
        return self.values[self.finished]

    @property
    def finite(self) -> Floats:
        """Those that are numbers."""
        return self.values[np.isfinite(self.values)]


def named(what: str, name: str, among: Mapping[str, Any]) -> Any:
    """Look a name up, or say which there are."""
    if name not in among:
        raise KeyError(f"there is no {what} {name!r}, but {list(among)}")
    return among[name]


def label(arm: str, cell: Mapping[str, float]) -> str:
    """Name an arm and cell: `"arm lr=0.1"`."""
    return " ".join([arm, *(f"{name}={_short(cell[name])}" for name in sorted(cell))])


def labels(study: Study) -> dict[str, tuple[str, int]]:
    """Name every arm and cell that has runs: its arm, and the number of its cell."""
    return {
        label(name, cell): (name, i)
        for name, arm in study.arms.items()
        for i, cell in enumerate(study.cells)
        if arm.finished[i].any()
    }


def columns(study: Study, metric: str) -> dict[str, Column]:
    """Return a metric of every arm and cell that has it.

    Raises:
        KeyError: none has.
    """
    found = {
        text: Column(name, study.cells[i], arm.results[metric][i], arm.finished[i])
        for text, (name, i) in labels(study).items()
        for arm in [study.arms[name]]
        if metric in arm.results
    }
    if not found:
        raise KeyError(f"there is no metric {metric!r}, but {study.metrics()}")
    return found


def _short(value: float) -> str:
    """Write a number as short as it can be read again."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)
