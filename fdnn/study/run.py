"""`run`: every arm over many seeds at once."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fdnn import tree
from fdnn.study.experiment import Experiment
from fdnn.study.memory import available_memory, peak_bytes, tree_bytes
from fdnn.study.store import Store, checkpoints_of, encode
from fdnn.study.study import Study
from fdnn.study.task import Lanes, Results, begin, run_task
from fdnn.train.batches import source

__all__ = ["run"]

Executor = Callable[[Callable[[Lanes], Results], list[Lanes]], Iterable[Results]]

_MOST = 64  # lanes at once, however small: progress and checkpoints come by the epoch


def run(
    experiment: Callable[..., Experiment],
    *,
    arms: Mapping[str, Mapping[str, Any]],
    seeds: int | Sequence[int],
    sweep: Mapping[str, Sequence[float]] | None = None,
    chunk_size: int | str = "auto",
    memory: int | None = None,
    jit: bool = True,
    store: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Study:
    """Run every arm of an experiment over many seeds, and over the values of a sweep.

    Seed s of every arm has the key `random.key(s)`: arms share, seed by seed, first values and the
    order of the data as far as they can, so differences are paired. All seeds and all cells of the
    sweep are lanes of one vmapped, compiled step. A run whose numbers become nan is recorded as
    diverged and disturbs no other.

    Args:
        experiment: `experiment(**arm) -> Experiment`, such as a function that calls `training`.
        arms: by name, the keyword arguments of `experiment`.
        seeds: how many (0, 1, ...), or which.
        sweep: values by the name of a hyperparameter, which goes into `Experiment.init`; every
            combination is a cell.
        chunk_size: how many runs at once. "auto": as many as fit into `memory`, by a step of one
            run that is watched, at most 64. Results do not depend on it, but for rounding.
        memory: the budget in bytes; half of what is free if left out.
        jit: whether to compile.
        store: a folder that keeps every result, and the state of what is under way after each
            epoch. A study that was killed goes on when it is run again; more seeds, arms or values
            can be added to what is there.
        executor: `executor(function, tasks) -> results`, in the order of the tasks: like `map`,
            which it is if left out. `RayExecutor` runs them on a cluster.
        progress: whether to show progress bars.

    Returns:
        The study: all arms asked for, with all seeds and cells asked for.

    Raises:
        ValueError: there is no arm or seed, a seed comes twice, `chunk_size` is not positive, one
            run does not fit into `memory`, or `store` holds an arm of the same name with other
            settings.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, metrics, optim, random, study, train
        >>> x = random.normal(random.key(1), (64, 4))
        >>> data = x, x.sum(1, keepdim=True)
        >>> def experiment(width):
        ...     model = functionalize(nn.Sequential(nn.Linear(4, width), nn.Linear(width, 1)))
        ...     return study.training(
        ...         model,
        ...         train.supervised(model, F.mse_loss),
        ...         optim.sgd(lr=0.1),
        ...         data,
        ...         epochs=2,
        ...         evaluate=train.evaluator(
        ...             model, {"loss": metrics.mean_squared_error()}, valid=data
        ...         ),
        ...     )
        >>> found = run(
        ...     experiment,
        ...     arms={"narrow": {"width": 1}, "wide": {"width": 8}},
        ...     seeds=5,
        ...     sweep={"lr": [0.01, 0.1]},
        ...     jit=False,
        ...     progress=False,
        ... )
        >>> found.values("valid_loss", "wide", lr=0.1).shape
        (5,)
    """
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"`seeds` must be at least one, and each once, got {seeds}")
    if not arms:
        raise ValueError("`arms` must hold at least one arm, got none")
    cells = _cells(sweep or {})
    kept = Store(store)
    for name, settings in arms.items():
        kept.begin(name, repr(dict(settings)))
    for name, settings in arms.items():
        there = kept.finished(name)
        missing = [
            (seed, cell) for cell in cells for seed in chosen if (encode(cell), seed) not in there
        ]
        if not missing:
            continue
        built = experiment(**settings)
        lanes = Lanes([seed for seed, _ in missing], [cell for _, cell in missing])
        chunk, together = _sizes(built, lanes, chunk_size, memory)
        tasks = [
            Lanes(lanes.seeds[i : i + together], lanes.hyper[i : i + together])
            for i in range(0, len(missing), together)
        ]
        function = functools.partial(
            _run, experiment, dict(settings), name, kept.folder, chunk, jit, progress
        )
        results = map(function, tasks) if executor is None else executor(function, tasks)
        for task, result in zip(tasks, results, strict=True):
            kept.add(name, task, result)
            if kept.folder is not None:
                shutil.rmtree(checkpoints_of(kept.folder, name, task), ignore_errors=True)
    return Study.read(kept, list(arms), chosen, cells)


def _run(
    experiment: Callable[..., Experiment],
    settings: dict[str, Any],
    arm: str,
    folder: Path | None,
    chunk_size: int,
    jit: bool,
    progress: bool,
    lanes: Lanes,
) -> Results:
    """Run a task, wherever it is: all that it needs comes with it."""
    return run_task(
        experiment(**settings),
        lanes,
        chunk_size=chunk_size,
        jit=jit,
        folder=None if folder is None else checkpoints_of(folder, arm, lanes),
        progress=progress,
    )


def _cells(sweep: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Return every combination of the values."""
    for name, values in sweep.items():
        if not len(values):
            raise ValueError(f"`sweep` must give {name!r} at least one value, got none")
    return [
        {name: float(value) for name, value in zip(sweep, combination, strict=True)}
        for combination in itertools.product(*sweep.values())
    ]


def _sizes(
    experiment: Experiment, lanes: Lanes, chunk_size: int | str, memory: int | None
) -> tuple[int, int]:
    """Return how many runs go through a step at once, and how many through a task."""
    if chunk_size != "auto" and (isinstance(chunk_size, str) or chunk_size < 1):
        raise ValueError(f"`chunk_size` must be positive or 'auto', got {chunk_size!r}")
    budget = available_memory() // 2 if memory is None else memory
    one = Lanes(lanes.seeds[:1], lanes.hyper[:1])
    state = begin(experiment, one)
    batches = source(experiment.data, experiment.batch_size)
    pick = next(iter(batches.picks(state, 0)))
    step = torch.vmap(
        lambda state, pick: experiment.step(state, batches.look_up(pick)),
        in_dims=(0, batches.in_dim),
    )
    # A task holds the states before and after an epoch, and those of monitors; a step, besides its
    # own copy of the state, all that it makes.
    held = 4 * tree_bytes(state)
    worked = 2 * tree_bytes(state) + peak_bytes(step, tree.map(torch.clone, state), pick)
    if held + worked > budget:
        raise ValueError(
            f"`memory` must be at least {held + worked} bytes for one run, got {budget}"
        )
    most = min(len(lanes.seeds), _MOST, budget // (held + worked))
    chunk = most if isinstance(chunk_size, str) else min(chunk_size, len(lanes.seeds))
    together = max(chunk, (budget - chunk * worked) // held)
    return chunk, min(together, len(lanes.seeds))
