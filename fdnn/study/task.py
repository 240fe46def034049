"""Some runs of one arm, from their keys to their results."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fdnn import random, train, tree
from fdnn.study.experiment import Experiment
from fdnn.train import TrainState
from fdnn.train import monitor as watch
from fdnn.train.batches import is_tensors, source

__all__ = ["Lanes", "Results", "advance", "begin", "combinations", "run_task", "seed_list"]


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
        state: the last of all runs, stacked; None where nobody wants it.
    """

    final: dict[str, Tensor]
    curves: dict[str, Tensor]
    steps: Tensor
    diverged: Tensor
    seconds: float
    state: TrainState | None


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """Return which seeds are meant: so many, or these."""
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"`seeds` must be at least one, and each once, got {seeds}")
    return chosen


def combinations(sweep: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Return every combination of the values of a sweep."""
    for name, values in sweep.items():
        if not len(values):
            raise ValueError(f"`sweep` must give {name!r} at least one value, got none")
    return [
        {name: float(value) for name, value in zip(sweep, combination, strict=True)}
        for combination in itertools.product(*sweep.values())
    ]


def begin(experiment: Experiment, lanes: Lanes) -> TrainState:
    """Return the stacked states before the first step, on the device of the data.

    They are drawn where keys are made, on the CPU, and so are the same whatever the device.
    """
    keys = torch.stack([random.key(seed) for seed in lanes.seeds])
    names = list(lanes.hyper[0])
    columns = [torch.tensor([cell[name] for cell in lanes.hyper]).double() for name in names]

    def init(key: Tensor, *values: Tensor) -> TrainState:
        return experiment.init(key, **dict(zip(names, values, strict=True)))

    states: TrainState = tree.map(torch.clone, torch.vmap(init)(keys, *columns))
    if is_tensors(experiment.data):
        states = tree.map(lambda leaf: leaf.to(experiment.data[0].device), states)
    return states


def run_task(
    experiment: Experiment,
    lanes: Lanes,
    *,
    chunk_size: int,
    steps_per_call: int = 1,
    jit: bool,
    folder: Path | None,
    progress: bool,
) -> Results:
    """Train the runs, and measure them.

    Args:
        experiment: the arm.
        lanes: which runs.
        chunk_size: how many at once.
        steps_per_call: steps in one compiled call.
        jit: whether to compile.
        folder: where to keep checkpoints; what is there already is gone on from.
        progress: whether to show a bar.

    Raises:
        KeyboardInterrupt: `fit` was interrupted, which it survives: these runs are not done.
    """
    kept = None if folder is None else train.Checkpoints(folder, keep_last=1, keep_best=0)
    _, results = advance(
        experiment,
        begin(experiment, lanes),
        experiment.epochs,
        chunk_size=chunk_size,
        steps_per_call=steps_per_call,
        jit=jit,
        checkpoints=kept,
        progress=progress,
    )
    return results


def advance(
    experiment: Experiment,
    state: TrainState,
    epochs: int,
    *,
    chunk_size: int,
    steps_per_call: int = 1,
    jit: bool,
    progress: bool,
    checkpoints: train.Checkpoints | None = None,
) -> tuple[TrainState, Results]:
    """Train until so many epochs are done, and measure.

    Args:
        experiment: the arm.
        state: of all runs, stacked.
        epochs: to train until, in all.
        chunk_size: how many at once.
        steps_per_call: steps in one compiled call.
        jit: whether to compile.
        progress: whether to show a bar.
        checkpoints: where to keep them; what is there already is gone on from.

    Returns:
        The state to go on from, and what came of the runs if they end here: monitors have the last
        word on a run that ends.

    Raises:
        KeyboardInterrupt: as `run_task`.
    """
    clock = time.perf_counter()
    evaluate = _by_chunks(experiment.evaluate, chunk_size)
    steps = epochs * source(experiment.data, experiment.batch_size).steps
    reached: list[TrainState] = []

    def is_over(state: TrainState) -> bool:
        stopped = watch.stopped(experiment.monitors, state)
        return not (state.count[~stopped] < steps).any()

    def until(state: TrainState, told: Mapping[str, Tensor]) -> bool:
        if int(told["epoch"]) == epochs:
            reached.append(state)
        return bool(reached)

    history: dict[str, Tensor] = {}
    state = watch.begin(experiment.monitors, state)
    if checkpoints is not None and checkpoints.latest() is not None:
        state = checkpoints.load(like=state)
    if checkpoints is not None and is_over(state):
        reached = [state]
        history = tree.stack(checkpoints.history(epochs))
    else:
        state, history = train.fit(
            experiment.step,
            state,
            experiment.data,
            epochs=experiment.epochs,
            batch_size=experiment.batch_size,
            evaluate=evaluate,
            monitors=experiment.monitors,
            callbacks=[until],
            checkpoints=checkpoints,
            nonfinite="report",
            chunk_size=chunk_size,
            steps_per_call=steps_per_call,
            compile=jit,
            progress=progress,
        )
    # Interrupted after the last epoch, `fit` has not let the monitors finish; twice is once.
    state = watch.finish(experiment.monitors, state)
    if not is_over(state):
        raise KeyboardInterrupt("a study with a `store` goes on when it is run again")
    results = Results(
        dict(evaluate(state)),
        history,
        state.count,
        ~torch.vmap(tree.all_finite)(state.params),
        time.perf_counter() - clock,
        state,
    )
    return (reached or [state])[0], results


def _by_chunks(
    evaluate: Callable[[TrainState], Mapping[str, Tensor]], chunk_size: int
) -> Callable[[TrainState], Mapping[str, Tensor]]:
    """Evaluate so many lanes at a time, and a state that comes again at once not again."""
    latest: tuple[TrainState | None, dict[str, Tensor]] = (None, {})

    def measure(state: TrainState) -> dict[str, Tensor]:
        nonlocal latest
        if state is not latest[0]:
            starts = range(0, len(state.count), chunk_size)
            parts = [
                dict(evaluate(tree.map(lambda leaf, i=i: leaf[i : i + chunk_size], state)))
                for i in starts
            ]
            latest = state, tree.map(lambda *values: torch.cat(values), *parts)
        return latest[1]

    return measure
