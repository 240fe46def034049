"""`successive_halving`: all begin, after each rung the worst are dropped."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fdnn import tree
from fdnn.study.columns import label
from fdnn.study.experiment import Experiment
from fdnn.study.memory import sizes
from fdnn.study.record import Record
from fdnn.study.store import Store, checkpoints_of
from fdnn.study.study import Study
from fdnn.study.task import Lanes, advance, begin, combinations, seed_list
from fdnn.train import Checkpoints, TrainState
from fdnn.train.batches import source

__all__ = ["Halving", "Rung", "successive_halving"]

Place = tuple[str, int]  # an arm, and the number of a cell


class Rung(NamedTuple):
    """A point at which the worst were dropped.

    Attributes:
        epochs: after how many epochs.
        scores: of all that were left, by their names as in `Study.summary`: the mean of the metric
            over the seeds, nan if one diverged. The best first.
        survivors: which of them went on; of the last rung, which one won.
    """

    epochs: int
    scores: dict[str, float]
    survivors: list[str]


class Halving(NamedTuple):
    """What `successive_halving` found.

    Attributes:
        study: the runs. Those that were dropped count as not finished; their curves end there.
        rungs: in their order.
        arm: the winner's.
        cell: the winner's swept hyperparameters.
        lane_epochs: passes over the data of all runs together, which is what it cost.
    """

    study: Study
    rungs: list[Rung]
    arm: str
    cell: dict[str, float]
    lane_epochs: int


def successive_halving(
    experiment: Callable[..., Experiment],
    *,
    arms: Mapping[str, Mapping[str, Any]],
    seeds: int | Sequence[int],
    metric: str,
    sweep: Mapping[str, Sequence[float]] | None = None,
    mode: str = "min",
    eta: int = 3,
    min_epochs: int = 1,
    chunk_size: int | str = "auto",
    memory: int | None = None,
    jit: bool = True,
    store: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Halving:
    r"""Search arms and cells of a sweep for the best, and spend little on the others.

    Of $n$ candidates (every arm with every cell), each with all its seeds, rung $k = 0, 1, \dots$
    trains those that are left to $\min(r \eta^k, R)$ epochs and lets the best
    $\max(1, \lfloor n_k / \eta \rfloor)$ of its $n_k$ go on, with $r$ = `min_epochs`, $\eta$ =
    `eta` and $R$ the epochs of the experiment. Those that go on do so from where they are, packed
    together: what is dropped costs nothing from then on, and the winner's runs are those that
    `run` makes. At $R$ epochs, the best that is left wins.

    Ranks are by the mean over the seeds of what the runs would have as results if they ended at
    the rung; a candidate with a run that diverged comes last, the earlier one first if equal.

    Args:
        experiment: as for `run`; all arms with the same number of epochs.
        arms: as for `run`.
        seeds: as for `run`.
        metric: the name of a number that `evaluate` gives.
        sweep: as for `run`.
        mode: "min" or "max": what is best.
        eta: of so many candidates one goes on.
        min_epochs: epochs to the first rung. Few save much, and favour what begins fast: a
            learning-rate schedule is still high there.
        chunk_size: as for `run`.
        memory: the budget in bytes for the states of all runs together; as for `run` if left out.
        jit: whether to compile; each rung of each arm does so anew.
        store: a folder for the states of all runs after each epoch, and for good at each rung. A
            search that was killed goes on from there when it is run again.
        progress: whether to show progress bars.

    Returns:
        The runs, the rungs and the winner.

    Raises:
        ValueError: an argument is out of range, the arms differ in their epochs, the runs do not
            fit into `memory`, `store` holds an arm of the same name with other settings, or `run`
            would raise it.
        KeyError: `evaluate` gives no such `metric`.
        KeyboardInterrupt: Ctrl-C.

    Example:
        >>> import torch
        >>> from fdnn import study
        >>> def descent(steps):
        ...     return study.from_functions(
        ...         init=lambda key, lr: {"x": torch.ones(()), "lr": lr},
        ...         step=lambda s: ({**s, "x": s["x"] - s["lr"] * s["x"]}, {}),
        ...         evaluate=lambda s: {"loss": s["x"].square()},
        ...         num_steps=steps,
        ...         evaluate_every=1,
        ...     )
        >>> found = successive_halving(
        ...     descent,
        ...     arms={"gd": {"steps": 9}},
        ...     seeds=2,
        ...     sweep={"lr": [0.001, 0.01, 0.1, 0.5, 0.9, 1.5, 1.9, 2.1, 3.0]},
        ...     metric="loss",
        ...     jit=False,
        ...     progress=False,
        ... )
        >>> found.cell, [rung.epochs for rung in found.rungs], found.lane_epochs
        ({'lr': 0.9}, [1, 3, 9], 42)

    References:
        Jamieson & Talwalkar (2016), "Non-stochastic best arm identification and hyperparameter
        optimization"; Karnin et al. (2013), "Almost optimal exploration in multi-armed bandits".
        The rungs are those of a bracket in Li et al. (2018), "Hyperband", for the given n, r and
        R; a candidate has several seeds here.
    """
    if mode not in ("min", "max"):
        raise ValueError(f'`mode` must be "min" or "max", got {mode!r}')
    if eta < 2:
        raise ValueError(f"`eta` must be at least 2, got {eta}")
    if min_epochs < 1:
        raise ValueError(f"`min_epochs` must be at least 1, got {min_epochs}")
    if not arms:
        raise ValueError("`arms` must hold at least one arm, got none")
    chosen, cells = seed_list(seeds), combinations(sweep or {})
    built = {name: experiment(**settings) for name, settings in arms.items()}
    lengths = {name: one.epochs for name, one in built.items()}
    last = max(lengths.values())
    if min(lengths.values()) < last:
        raise ValueError(f"`experiment` must give all arms the same epochs, got {lengths}")

    lanes = _lanes(chosen, cells, list(range(len(cells))))
    budget = None if memory is None else memory // len(arms)
    chunks = {
        name: _chunk(one, lanes, chunk_size, budget, len(arms)) for name, one in built.items()
    }
    kept = None if store is None else Store(Path(store) / "halving")
    if kept is not None:
        for name, settings in arms.items():
            kept.begin(name, repr(dict(settings)))
    states = {name: begin(one, lanes) for name, one in built.items()}
    records = {
        name: Record(last, len(cells), len(chosen), repr(dict(settings)))
        for name, settings in arms.items()
    }
    left: list[Place] = [(name, i) for name in arms for i in range(len(cells))]
    rungs: list[Rung] = []
    begun = 0
    while begun < last:
        epochs = last if len(left) == 1 else min(min_epochs * eta ** len(rungs), last)
        for name in dict.fromkeys(name for name, _ in left):
            here = [i for other, i in left if other == name]
            states[name], results = advance(
                built[name],
                states[name],
                epochs,
                chunk_size=chunks[name],
                jit=jit,
                progress=progress,
                checkpoints=_checkpoints(kept, name, _lanes(chosen, cells, here), begun, epochs),
            )
            records[name].add(results, here, begun, epochs == last)
        scores = {place: records[place[0]].score(metric, place[1]) for place in left}
        ranked = _ranked(scores, mode)
        best = ranked[: 1 if epochs == last else max(1, len(left) // eta)]
        names = {(name, i): label(name, cells[i]) for name, i in left}
        rungs.append(Rung(epochs, {names[p]: scores[p] for p in ranked}, [names[p] for p in best]))
        if epochs < last:
            states = {
                name: _gathered(state, [p for p in left if p[0] == name], best, len(chosen))
                for name, state in states.items()
                if any(other == name for other, _ in best)
            }
            left = [place for place in left if place in best]
        begun = epochs
    steps = {name: source(one.data, one.batch_size).steps for name, one in built.items()}
    spent = sum(int(records[name].steps.sum()) // steps[name] for name in arms)
    found = Study({name: record.arm() for name, record in records.items()}, chosen, cells)
    (winner,) = best
    return Halving(found, rungs, winner[0], cells[winner[1]], spent)


def _lanes(seeds: list[int], cells: list[dict[str, float]], here: list[int]) -> Lanes:
    return Lanes(seeds * len(here), [cells[i] for i in here for _ in seeds])


def _checkpoints(
    store: Store | None, arm: str, lanes: Lanes, begun: int, epochs: int
) -> Checkpoints | None:
    if store is None or store.folder is None:
        return None
    folder = checkpoints_of(store.folder, arm, lanes) / f"{begun}-{epochs}"
    return Checkpoints(folder, keep_last=1, keep_best=0)


def _chunk(
    experiment: Experiment, lanes: Lanes, chunk_size: int | str, memory: int | None, arms: int
) -> int:
    chunk, most = sizes(experiment, lanes, chunk_size, memory, arms)
    if most < len(lanes.seeds):
        raise ValueError(
            f"`memory` must hold the states of all {len(lanes.seeds)} runs of an arm, but they "
            f"would be {most}"
        )
    return chunk


def _ranked(scores: Mapping[Place, float], mode: str) -> list[Place]:
    """Return the candidates, the best first, nan last."""
    sign = 1 if mode == "min" else -1
    return sorted(scores, key=lambda p: (math.isnan(scores[p]), sign * scores[p]))


def _gathered(state: TrainState, places: list[Place], best: list[Place], seeds: int) -> TrainState:
    """Pack the lanes of the candidates that go on."""
    kept = torch.tensor([place in best for place in places]).repeat_interleave(seeds)
    lanes = kept.nonzero().flatten().to(state.count.device)
    packed: TrainState = tree.map(lambda leaf: leaf[lanes], state)
    return packed
