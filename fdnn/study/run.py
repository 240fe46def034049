"""`run`: every arm over many seeds at once."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fdnn.study.experiment import Experiment
from fdnn.study.memory import sizes
from fdnn.study.store import Store, checkpoints_of, encode
from fdnn.study.study import Study
from fdnn.study.task import Lanes, Results, combinations, run_task, seed_list

__all__ = ["run"]

Done = tuple[Lanes, Results]
Executor = Callable[[Callable[[Lanes], Done], list[Lanes]], Iterable[Done]]


def run(
    experiment: Callable[..., Experiment],
    *,
    arms: Mapping[str, Mapping[str, Any]],
    seeds: int | Sequence[int],
    sweep: Mapping[str, Sequence[float]] | None = None,
    chunk_size: int | str = "auto",
    steps_per_call: int = 1,
    memory: int | None = None,
    jit: bool = True,
    keep_parameters: bool = False,
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
            run that is watched, and on a CPU no more than its caches hold. Results do not depend on
            it, but for rounding.
        steps_per_call: steps in one compiled call, as for `train.fit`.
        memory: the budget of a task in bytes; half of what is free here, shared by the workers of
            `executor`, if left out.
        jit: whether to compile.
        keep_parameters: whether to keep parameters and buffers of every run at its end, for
            `Study.parameters`.
        store: a folder that keeps every result, and the state of what is under way after each
            epoch. A study that was killed goes on when it is run again; more seeds, arms or values
            can be added to what is there.
        executor: `executor(function, tasks) -> results`, in any order: like `map`, which it is if
            left out. There are as many tasks as memory demands, and at least as many as its
            attribute `num_workers` says, if it has one. `RayExecutor` runs them on a cluster.
        progress: whether to show progress bars; an executor's tasks show none.

    Returns:
        The study: all arms asked for, with all seeds and cells asked for.

    Raises:
        ValueError: there is no arm or seed, a seed comes twice, `chunk_size` is not positive, one
            run does not fit into `memory`, `executor` loses results, or `store` holds an arm of the
            same name with other settings.
        KeyboardInterrupt: Ctrl-C; what is not done is not recorded as done.

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
    chosen = seed_list(seeds)
    if not arms:
        raise ValueError("`arms` must hold at least one arm, got none")
    cells = combinations(sweep or {})
    kept, bar = Store(store), progress and executor is None
    for name, settings in arms.items():
        kept.begin(name, repr(dict(settings)))
    workers = getattr(executor, "num_workers", 1)
    work = {}
    for name in arms:
        there = kept.finished(name, keep_parameters)
        missing = [
            (seed, cell) for cell in cells for seed in chosen if (encode(cell), seed) not in there
        ]
        if missing:
            work[name] = Lanes([seed for seed, _ in missing], [cell for _, cell in missing])
    with kept.call() if work else contextlib.nullcontext():
        for name, lanes in work.items():
            settings = dict(arms[name])
            chunk, most = sizes(experiment(**settings), lanes, chunk_size, memory, workers)
            function = functools.partial(
                _run,
                experiment,
                settings,
                name,
                kept.folder,
                keep_parameters,
                bar,
                chunk_size=chunk,
                steps_per_call=steps_per_call,
                jit=jit,
            )
            tasks = kept.plan(name, lanes, most, workers)
            done = map(function, tasks) if executor is None else executor(function, tasks)
            finished = 0
            for task, results in done:
                kept.add(name, task, results)
                finished += 1
            if finished != len(tasks):
                raise ValueError(
                    f"`executor` must give {len(tasks)} results, one a task, got {finished}"
                )
    return Study.read(kept, list(arms), chosen, cells)


def _run(
    experiment: Callable[..., Experiment],
    settings: dict[str, Any],
    arm: str,
    folder: Path | None,
    keep_parameters: bool,
    progress: bool,
    lanes: Lanes,
    **options: Any,
) -> Done:
    """Run a task, wherever it is: all that it needs comes with it."""
    results = run_task(
        experiment(**settings),
        lanes,
        folder=None if folder is None else checkpoints_of(folder, arm, lanes),
        progress=progress,
        **options,
    )
    return lanes, results if keep_parameters else results._replace(state=None)
