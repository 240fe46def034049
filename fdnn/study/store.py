"""Where results are kept: an SQLite file, and a folder of checkpoints of what is under way."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
from pathlib import Path
from typing import Any

from torch import Tensor

from fdnn.study.task import Lanes, Results

__all__ = ["Store", "checkpoints_of", "encode"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS arms (arm TEXT PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    arm TEXT, hyper TEXT, seed INTEGER, steps INTEGER, diverged INTEGER, seconds REAL,
    PRIMARY KEY (arm, hyper, seed)
);
CREATE TABLE IF NOT EXISTS results (
    arm TEXT, hyper TEXT, seed INTEGER, metric TEXT, value REAL,
    PRIMARY KEY (arm, hyper, seed, metric)
);
CREATE TABLE IF NOT EXISTS curves (
    arm TEXT, hyper TEXT, seed INTEGER, epoch INTEGER, metric TEXT, value REAL,
    PRIMARY KEY (arm, hyper, seed, epoch, metric)
);
"""


class Store:
    """The results of a study, run by run.

    Args:
        folder: made if need be; None keeps everything in memory.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None):
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        path = ":memory:" if self.folder is None else self.folder / "results.sqlite"
        self._database = sqlite3.connect(path)
        self._database.executescript(_SCHEMA)

    def arms(self) -> list[str]:
        """Return the names of all arms, in the order in which they were begun."""
        return [name for (name,) in self._database.execute("SELECT arm FROM arms ORDER BY rowid")]

    def begin(self, arm: str, settings: str) -> None:
        """Note an arm, and what it is.

        Raises:
            ValueError: there is one of that name with other settings.
        """
        with self._database as database:
            database.execute("INSERT OR IGNORE INTO arms VALUES (?, ?)", (arm, settings))
        rows = self._database.execute("SELECT settings FROM arms WHERE arm = ?", (arm,))
        (found,) = rows.fetchone()
        if found != settings:
            raise ValueError(
                f"`store` holds an arm {arm!r} with other settings: expected {settings}, found "
                f"{found}. Give the arm another name, or the study another store"
            )

    def finished(self, arm: str) -> set[tuple[str, int]]:
        """Return which runs of an arm are there, as `(hyper, seed)`."""
        rows = self._database.execute("SELECT hyper, seed FROM runs WHERE arm = ?", (arm,))
        return set(rows.fetchall())

    def add(self, arm: str, lanes: Lanes, results: Results) -> None:
        """Add runs: all of them, or after an error or a death none."""
        names = [encode(hyper) for hyper in lanes.hyper]
        share = results.seconds / len(names)
        runs = zip(lanes.seeds, names, strict=True)
        keys = [(arm, hyper, seed) for seed, hyper in runs]
        with self._database as database:
            database.executemany(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (*key, steps, diverged, share)
                    for key, steps, diverged in zip(
                        keys, results.steps.tolist(), results.diverged.tolist(), strict=True
                    )
                ],
            )
            database.executemany(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)",
                [
                    (*key, metric, value)
                    for metric, values in results.final.items()
                    for key, value in zip(keys, _numbers(metric, values), strict=True)
                ],
            )
            database.executemany(
                "INSERT OR REPLACE INTO curves VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (*key, epoch, metric, value)
                    for metric, rows in results.curves.items()
                    for epoch, values in enumerate(rows, start=1)
                    for key, value in zip(keys, _numbers(metric, values), strict=True)
                    if not math.isnan(value)
                ],
            )

    def rows(self, table: str, arm: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table that belong to an arm, without its name."""
        columns = {
            "runs": "hyper, seed, steps, diverged, seconds",
            "results": "hyper, seed, metric, value",
            "curves": "hyper, seed, epoch, metric, value",
        }[table]
        rows = self._database.execute(f"SELECT {columns} FROM {table} WHERE arm = ?", (arm,))
        return rows.fetchall()


def checkpoints_of(folder: Path, arm: str, lanes: Lanes) -> Path:
    """Return where in a store the checkpoints of some runs are while they are under way."""
    text = json.dumps([arm, lanes.seeds, [encode(hyper) for hyper in lanes.hyper]])
    return folder / "checkpoints" / hashlib.sha256(text.encode()).hexdigest()[:16]


def encode(hyper: dict[str, float]) -> str:
    """Name a cell of a sweep."""
    return json.dumps(hyper, sort_keys=True)


def _numbers(metric: str, values: Tensor) -> list[float]:
    if values.ndim != 1:
        raise ValueError(
            f"`evaluate` must give one number for each run, got {metric!r} of shape "
            f"{tuple(values.shape)} for all"
        )
    return values.double().tolist()
