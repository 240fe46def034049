"""How runs become tasks: a partition, within bounds, and stable when a study is begun again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fdnn import random, study
from fdnn.study.store import Store, checkpoints_of
from fdnn.study.task import Lanes, Results

QUIET: dict[str, Any] = {"jit": False, "progress": False}


def runs(*parts: Lanes) -> list[tuple[int, float]]:
    return [
        (seed, hyper["lr"])
        for lanes in parts
        for seed, hyper in zip(lanes.seeds, lanes.hyper, strict=True)
    ]


def lanes_of(*seeds: int) -> Lanes:
    return Lanes(list(seeds), [{"lr": float(seed % 2)} for seed in seeds])


def nothing(lanes: Lanes) -> Results:
    count = len(lanes.seeds)
    zeros = torch.zeros(count)
    return Results({"x": zeros}, {}, torch.zeros(count, dtype=torch.int64), zeros > 0, 1.0, None)


@given(
    count=st.integers(1, 30),
    most=st.integers(1, 12),
    workers=st.integers(1, 6),
    done=st.sets(st.integers(0, 30)),
)
def test_tasks_are_a_partition_and_stay(
    count: int, most: int, workers: int, done: set[int]
) -> None:
    store = Store()
    lanes = lanes_of(*range(count))
    tasks = store.plan("a", lanes, most, workers)
    assert runs(*tasks) == runs(lanes)
    longest = min(most, -(-count // workers))
    assert len(tasks) == -(-count // longest)
    assert all(0 < len(task.seeds) <= longest for task in tasks)
    # In any order some are done; the others are the same when all begins again.
    left = [task for i, task in enumerate(tasks) if i not in done]
    for i, task in enumerate(tasks):
        if i in done:
            store.add("a", task, nothing(task))
    rest = Lanes([s for t in left for s in t.seeds], [h for t in left for h in t.hyper])
    assert store.plan("a", rest, most, workers) == left
    assert store.plan("b", lanes, most, workers) == tasks, "arms have their own"


def test_what_no_longer_fits_is_planned_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (old,) = store.plan("a", lanes_of(*range(8)), 8, 1)
    folder = checkpoints_of(tmp_path, "a", old)
    folder.mkdir(parents=True)
    # Others are asked for: it waits.
    (other,) = store.plan("a", lanes_of(20, 21), 8, 1)
    assert folder.exists()
    # More of them: it goes on, and others besides.
    assert store.plan("a", lanes_of(*range(12)), 8, 2) == [old, lanes_of(8, 9), lanes_of(10, 11)]
    # Less memory, and only some of them: it cannot go on.
    assert [len(t.seeds) for t in store.plan("a", lanes_of(*range(6)), 4, 1)] == [4, 2]
    assert not folder.exists()
    assert store.plan("a", lanes_of(20, 21), 8, 1) == [other]


class Died(Exception):
    pass


def walk() -> study.Experiment:
    def init(key: Tensor) -> dict[str, Tensor]:
        return {"key": key, "x": torch.zeros(())}

    def step(s: dict[str, Tensor]) -> Any:
        x = s["x"] + random.normal(s["key"])
        return {"key": random.fold_in(s["key"], 1), "x": x}, {}

    return study.from_functions(init, step, lambda s: {"x": s["x"]}, num_steps=6, evaluate_every=2)


class Executor:
    """Three workers, which finish in another order, and die after so many tasks."""

    num_workers = 3

    def __init__(self, lives: int = 100) -> None:
        self.lives, self.tasks = lives, 0

    def __call__(self, function: Any, tasks: Any) -> Any:
        self.tasks = len(tasks)
        for task in reversed(tasks):
            if not self.lives:
                raise Died
            self.lives -= 1
            yield function(task)


@pytest.mark.parametrize("lives", [0, 1, 2, 3])
def test_an_executor_splits_records_and_goes_on(lives: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"arms": {"a": {}}, "seeds": 10, **QUIET}
    wanted = study.run(walk, **options).values("x", "a")
    executor = Executor(lives)
    try:
        study.run(walk, executor=executor, store=tmp_path, **options)
    except Died:
        assert lives < 3
    assert executor.tasks == 3  # of 4, 4 and 2
    there = study.Study.read(Store(tmp_path))
    assert len(there.seeds) == [0, 2, 6, 10][lives]
    again = Executor()
    found = study.run(walk, executor=again, store=tmp_path, **options)
    assert again.tasks == 3 - lives
    np.testing.assert_allclose(found.values("x", "a"), wanted, rtol=1e-6)


def test_an_executor_that_loses_results_is_found_out() -> None:
    class Lossy(Executor):
        def __call__(self, function: Any, tasks: Any) -> Any:
            return super().__call__(function, tasks[1:])

    with pytest.raises(ValueError, match="`executor` must give 3 results, one a task, got 2"):
        study.run(walk, arms={"a": {}}, seeds=3, executor=Lossy(), **QUIET)
