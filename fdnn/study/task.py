"""Some runs of one arm, from their keys to their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fdnn import random, train, tree
from fdnn.study.experiment import Experiment
from fdnn.train import TrainState
from fdnn.train.nonfinite import is_finite

__all__ = ["Lanes", "Results", "begin", "run_task"]


class Lanes(NamedTuple):
    """Which runs: seed and hyperparameters of each.

    Attributes:
        seeds: by lane.
        hyper: by lane, the swept hyperparameters by name.
    """

    seeds: list[int]
    hyper: list[dict[str, float]]


class Results(NamedTuple):
    """What came of them.

    Attributes:
        final: what `evaluate` gave of the last state, each of shape `(lanes,)`.
        curves: the history, each of shape `(epochs, lanes)`; nan after a run has stopped.
        steps: steps taken, of shape `(lanes,)`.
        diverged: whether a number of the last parameters is not finite, of shape `(lanes,)`.
        seconds: how long it took.
    """

    final: dict[str, Tensor]
    curves: dict[str, Tensor]
    steps: Tensor
    diverged: Tensor
    seconds: float


def begin(experiment: Experiment, lanes: Lanes) -> TrainState:
    """Return the stacked states before the first step."""
    keys = torch.stack([random.key(seed) for seed in lanes.seeds])
    names = list(lanes.hyper[0])
    columns = [torch.tensor([cell[name] for cell in lanes.hyper]).double() for name in names]

    def init(key: Tensor, *values: Tensor) -> TrainState:
        return experiment.init(key, **dict(zip(names, values, strict=True)))

    return tree.map(torch.clone, torch.vmap(init)(keys, *columns))  # type: ignore[no-any-return]


def run_task(
    experiment: Experiment,
    lanes: Lanes,
    *,
    chunk_size: int,
    jit: bool,
    folder: Path | None,
    progress: bool,
) -> Results:
    """Train the runs, and measure them.

    Args:
        experiment: the arm.
        lanes: which runs.
        chunk_size: how many at once.
        jit: whether to compile.
        folder: where to keep checkpoints; what is there already is gone on from.
        progress: whether to show a bar.
    """
    clock = time.perf_counter()
    evaluate = _by_chunks(experiment.evaluate, chunk_size)
    state, history = train.fit(
        experiment.step,
        begin(experiment, lanes),
        experiment.data,
        epochs=experiment.epochs,
        batch_size=experiment.batch_size,
        evaluate=evaluate,
        monitors=experiment.monitors,
        checkpoints=None if folder is None else train.Checkpoints(folder, keep_last=1, keep_best=0),
        nonfinite="report",
        chunk_size=chunk_size,
        compile=jit,
        progress=progress,
    )
    return Results(
        dict(evaluate(state)),
        history,
        state.count,
        ~torch.vmap(is_finite)(state.params),
        time.perf_counter() - clock,
    )


def _by_chunks(
    evaluate: Callable[[TrainState], Mapping[str, Tensor]], chunk_size: int
) -> Callable[[TrainState], Mapping[str, Tensor]]:
    """Evaluate so many lanes at a time."""

    def measure(state: TrainState) -> dict[str, Tensor]:
        starts = range(0, len(state.count), chunk_size)
        parts = [
            dict(evaluate(tree.map(lambda leaf, i=i: leaf[i : i + chunk_size], state)))
            for i in starts
        ]
        joined: dict[str, Tensor] = tree.map(lambda *values: torch.cat(values), *parts)
        return joined

    return measure
