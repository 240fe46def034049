"""Where results are kept: an SQLite file, and a folder of checkpoints of what is under way."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.study.call import Call, command, environment, now
from fdnn.study.task import Lanes, Results
from fdnn.train import TrainState

__all__ = ["DATABASE", "Store", "checkpoints_of", "encode"]

DATABASE = "results.sqlite"

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
CREATE TABLE IF NOT EXISTS parameters (
    arm TEXT, hyper TEXT, seed INTEGER, file BLOB, PRIMARY KEY (arm, hyper, seed)
);
CREATE TABLE IF NOT EXISTS calls (
    started TEXT NOT NULL, command TEXT NOT NULL, environment TEXT NOT NULL, seconds REAL
);
CREATE TABLE IF NOT EXISTS tasks (arm TEXT, lanes TEXT, PRIMARY KEY (arm, lanes));
"""


class Store:
    """The results of a study, run by run.

    Args:
        folder: made if need be; None keeps everything in memory.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None):
        # Absolute, since workers of an executor have another working directory.
        self.folder = None if folder is None else Path(folder).absolute()
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        path = ":memory:" if self.folder is None else self.folder / DATABASE
        self._database = sqlite3.connect(path)
        self._database.executescript(_SCHEMA)

    def arms(self) -> list[str]:
        """Return the names of all arms, in the order in which they were begun."""
        return [name for (name,) in self._database.execute("SELECT arm FROM arms ORDER BY rowid")]

    def settings(self, arm: str) -> str:
        """Return what an arm is, as it was noted."""
        rows = self._database.execute("SELECT settings FROM arms WHERE arm = ?", (arm,))
        (found,) = rows.fetchone()
        return str(found)

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Note the command that runs, and around what it does how long that took.

        Of a process that was killed there is no length.
        """
        clock = time.perf_counter()
        with self._database as database:
            row = database.execute(
                "INSERT INTO calls VALUES (?, ?, ?, NULL)",
                (now(), command(), json.dumps(environment())),
            ).lastrowid
        try:
            yield
        finally:
            with self._database as database:
                database.execute(
                    "UPDATE calls SET seconds = ? WHERE rowid = ?",
                    (time.perf_counter() - clock, row),
                )

    def calls(self) -> list[Call]:
        """Return what was run, the first first."""
        rows = self._database.execute("SELECT * FROM calls ORDER BY rowid")
        return [
            Call(started, text, json.loads(around), seconds)
            for started, text, around, seconds in rows
        ]

    def begin(self, arm: str, settings: str) -> None:
        """Note an arm, and what it is.

        Raises:
            ValueError: there is one of that name with other settings.
        """
        with self._database as database:
            database.execute("INSERT OR IGNORE INTO arms VALUES (?, ?)", (arm, settings))
        found = self.settings(arm)
        if found != settings:
            raise ValueError(
                f"`store` holds an arm {arm!r} with other settings: expected {settings}, found "
                f"{found}. Give the arm another name, or the study another store"
            )

    def finished(self, arm: str, with_parameters: bool = False) -> set[tuple[str, int]]:
        """Return which runs of an arm are there, as `(hyper, seed)`."""
        table = "parameters" if with_parameters else "runs"
        rows = self._database.execute(f"SELECT hyper, seed FROM {table} WHERE arm = ?", (arm,))
        return set(rows.fetchall())

    def parameters(self, arm: str, hyper: str, seed: int) -> dict[str, Tensor]:
        """Return what was kept of the last state of a run, by path; nothing if nothing was."""
        rows = self._database.execute(
            "SELECT file FROM parameters WHERE arm = ? AND hyper = ? AND seed = ?",
            (arm, hyper, seed),
        )
        return next((torch.load(io.BytesIO(file), weights_only=True) for (file,) in rows), {})

    def plan(self, arm: str, lanes: Lanes, most: int, num_workers: int) -> list[Lanes]:
        """Split runs into tasks.

        Tasks of a study that was killed stay as they were, and so find their checkpoints.

        Args:
            arm: its name.
            lanes: the runs to be made.
            most: how many a task may hold.
            num_workers: how many tasks new runs are to be split into at least.
        """
        rows = self._database.execute(
            "SELECT lanes FROM tasks WHERE arm = ? ORDER BY rowid", (arm,)
        )
        before = [Lanes(*json.loads(text)) for (text,) in rows]
        missing = _runs(lanes)
        kept = [t for t in before if len(t.seeds) <= most and set(_runs(t)) <= set(missing)]
        planned = {run for task in kept for run in _runs(task)}
        rest = [i for i, run in enumerate(missing) if run not in planned]
        size = min(most, -(-len(rest) // num_workers))
        parts = [rest[i : i + size] for i in range(0, len(rest), size or 1)]
        new = [Lanes([lanes.seeds[i] for i in p], [lanes.hyper[i] for i in p]) for p in parts]
        for task in before:
            if task not in kept and set(_runs(task)) & set(missing):
                self._close(arm, task)
        with self._database as database:
            values = [(arm, json.dumps(task)) for task in new]
            database.executemany("INSERT INTO tasks VALUES (?, ?)", values)
        return kept + new

    def _close(self, arm: str, task: Lanes) -> None:
        with self._database as database:
            database.execute(
                "DELETE FROM tasks WHERE arm = ? AND lanes = ?", (arm, json.dumps(task))
            )
        if self.folder is not None:
            shutil.rmtree(checkpoints_of(self.folder, arm, task), ignore_errors=True)

    def add(self, arm: str, lanes: Lanes, results: Results) -> None:
        """Add the runs of a task: all of them, or after an error or a death none."""
        keys = [(arm, *run) for run in _runs(lanes)]
        share = results.seconds / len(keys)
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
            if results.state is not None:
                database.executemany(
                    "INSERT OR REPLACE INTO parameters VALUES (?, ?, ?, ?)",
                    zip(*zip(*keys, strict=True), _files(results.state), strict=True),
                )
        self._close(arm, lanes)

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


def _runs(lanes: Lanes) -> list[tuple[str, int]]:
    return list(zip(map(encode, lanes.hyper), lanes.seeds, strict=True))


def _files(state: TrainState) -> Iterator[bytes]:
    """Yield parameters and buffers of each run as the bytes of a file of torch's."""
    kept = {"params": state.params, "buffers": state.buffers}
    by_path = dict(zip(tree.paths(kept), tree.leaves(kept), strict=True))
    for lane in range(len(state.count)):
        file = io.BytesIO()
        torch.save({path: leaf[lane].clone().cpu() for path, leaf in by_path.items()}, file)
        yield file.getvalue()


def _numbers(metric: str, values: Tensor) -> list[float]:
    if values.ndim != 1:
        raise ValueError(
            f"`evaluate` must give one number for each run, got {metric!r} of shape "
            f"{tuple(values.shape)} for all"
        )
    return values.double().tolist()
