"""`Checkpoints`: a folder that keeps the last and the best of a run."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from fdnn import tree
from fdnn.train.checkpoint import load, save
from fdnn.train.checkpoint_file import manifest_of, opened, snapshot, write
from fdnn.types import Tree

__all__ = ["Checkpoints"]

_HISTORY = "history.safetensors"


class Checkpoints:
    """A folder of checkpoints, one file a step, of which the last and the best are kept.

    Beside them it has the history of the run, if `fit` writes it.

    The folder is all there is: a new object on it goes on where the old one was. It has one writer
    at a time, and any number of readers.

    Args:
        folder: made at the first save, if need be.
        keep_last: how many of the latest are kept, at least 1; None keeps all.
        keep_best: how many of the best by `metric` are kept besides.
        metric: the name of the number in the history by which `fit` ranks them, of many runs their
            mean.
        mode: "min" if a low metric is good, "max" if a high one is.
        asynchronous: write in the background. `save` then copies the state to the CPU and returns,
            after waiting for the write before it, if that is not done. An error of a write is
            raised by the next call of any method; end with `wait()` to hear of the last one.

    Example:
        >>> import tempfile, torch
        >>> checkpoints = Checkpoints(tempfile.mkdtemp(), keep_last=1, mode="max")
        >>> for step, accuracy in enumerate([0.3, 0.9, 0.7, 0.8]):
        ...     checkpoints.save({"w": torch.full((2,), step)}, step, metric=accuracy)
        >>> checkpoints.steps()
        [1, 3]
        >>> checkpoints.load(like={"w": torch.empty(2, dtype=torch.int64)})
        {'w': tensor([3, 3])}
        >>> load(checkpoints.best())
        {'w': tensor([1, 1])}
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep_last: int | None = 3,
        keep_best: int = 1,
        metric: str | None = None,
        mode: str = "min",
        asynchronous: bool = False,
    ):
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"`keep_last` must be at least 1 or None, got {keep_last}")
        if keep_best < 0:
            raise ValueError(f"`keep_best` must be at least 0, got {keep_best}")
        if mode not in ("min", "max"):
            raise ValueError(f'`mode` must be "min" or "max", got {mode!r}')
        self.folder, self.metric = Path(folder), metric
        self._keep_last, self._keep_best = keep_last, keep_best
        self._sign = 1 if mode == "min" else -1
        self._writer = ThreadPoolExecutor(1, "checkpoints") if asynchronous else None
        self._writing: Future[None] | None = None

    def save(self, state: Tree, step: int, metric: float | Tensor | None = None) -> None:
        """Save a state, then delete what is neither among the last nor among the best.

        Args:
            state: as for `train.save`; what happens to its tensors afterwards changes nothing.
            step: its number, as `int(state.count.max())`; not below the latest there is.
            metric: how good it is, a number; without one, or with nan, it is never among the best.

        Raises:
            ValueError: `step` is negative or below the latest, for example after going back to an
                earlier checkpoint. Go on in another folder, or delete the later ones.
            OSError: the file cannot be written; the checkpoints before it are as they were.
        """
        lowest = max(self.steps(), default=0)  # waits
        if step < lowest:
            raise ValueError(
                f"`step` must be at least {lowest}, that of the latest checkpoint or 0, got {step}"
            )
        score = None if metric is None else float(metric)
        tensors = snapshot(state)
        if self._writer is None:
            self._write(tensors, step, score)
        else:
            self._writing = self._writer.submit(self._write, tensors, step, score)

    def load(self, like: Tree | None = None) -> Tree:
        """Load the latest; `train.load` says how, and loads any other.

        Raises:
            FileNotFoundError: there is none.
            ValueError: as of `train.load`.
        """
        latest = self.latest()
        if latest is None:
            raise FileNotFoundError(errno.ENOENT, "there is no checkpoint in", str(self.folder))
        return load(latest, like)

    def save_history(self, history: dict[str, Tensor], epoch: int) -> None:
        """Save the numbers of the epochs up to one, over those there were.

        Args:
            history: as `fit` returns it, one row for an epoch.
            epoch: how many epochs are done after the last of them.

        Raises:
            OSError: the file cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        save(self.folder / _HISTORY, {"history": history, "epoch": torch.tensor(epoch)})
        self._tidy("history")

    def history(self, epoch: int) -> list[dict[str, Tensor]]:
        """Return the rows of the history that `save_history` saved, up to an epoch."""
        if not (self.folder / _HISTORY).exists():
            return []
        found = load(self.folder / _HISTORY)
        surplus = max(int(found.pop("epoch")) - epoch, 0)
        columns = {name.removeprefix("history."): value for name, value in found.items()}
        rows: list[dict[str, Tensor]] = tree.unstack(columns) if columns else []
        return rows[: len(rows) - surplus]

    def steps(self) -> list[int]:
        """The steps that there are, ascending."""
        self.wait()
        return self._steps()

    def path(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"{step:012}.safetensors"

    def latest(self) -> Path | None:
        """The file of the latest step, None if there is none."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def best(self) -> Path | None:
        """The file with the best metric (the earliest, of equals), None if none has one.

        Raises:
            ValueError: a file is damaged.
        """
        ranked = self._ranked({step: self._metric(step) for step in self.steps()})
        return self.path(ranked[0]) if ranked else None

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: the last asynchronous `save` failed.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, tensors: dict[str, Tensor], step: int, metric: float | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.path(step), tensors, metric)
        self._tidy("[0-9]*")
        if self._keep_last is not None:
            self._prune(self._steps()[: -self._keep_last])

    def _tidy(self, name: str) -> None:
        """Delete what killed processes left of the files of that name."""
        for leftover in self.folder.glob(f".{name}.safetensors.*.tmp"):
            leftover.unlink(missing_ok=True)

    def _prune(self, older: list[int]) -> None:
        """Delete checkpoints that are not among the best."""
        metrics: dict[int, float | None] = {}
        for step in self._steps():
            with contextlib.suppress(ValueError):  # damaged: not ours to throw away
                metrics[step] = self._metric(step)
        best = self._ranked(metrics)[: self._keep_best]
        for step in older:
            if step in metrics and step not in best:
                self.path(step).unlink()

    def _steps(self) -> list[int]:
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        found = [re.fullmatch(r"(\d{12,})\.safetensors", name) for name in names]
        return sorted(int(match[1]) for match in found if match)

    def _metric(self, step: int) -> float | None:
        with opened(self.path(step)) as file:
            return manifest_of(self.path(step), file).metric

    def _ranked(self, metrics: dict[int, float | None]) -> list[int]:
        """The steps with a metric, the best first."""
        known = {step: m for step, m in metrics.items() if m is not None and not math.isnan(m)}
        return sorted(known, key=lambda step: (self._sign * known[step], step))
