"""`RayExecutor`: a study on a local cluster of processes is that of one, whoever dies."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from studies import assert_same
from torch import nn

from fdnn import functionalize, metrics, optim, random, study, train
from fdnn.study.__main__ import main

ray = pytest.importorskip("ray")
# Of JAX, if its tests ran in this process before: Ray forks to start programs, which is safe.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
QUIET: dict[str, Any] = {"jit": False, "progress": False}
WIDE: dict[str, Any] = {"arms": {"wide": {"width": 8}}, "seeds": 5, "sweep": {"lr": [0.1, 0.2]}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # What this module defines goes along by value: workers cannot import tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def experiment(width: int) -> study.Experiment:
    x = random.normal(random.key(1), (30, 4))
    data = x, (x @ random.normal(random.key(2), (4, 3))).argmax(1)
    model = functionalize(nn.Sequential(nn.Linear(4, width), nn.Dropout(0.1), nn.Linear(width, 3)))
    return study.training(
        model,
        train.supervised(model, F.cross_entropy),
        optim.sgd(lr=0.1, momentum=0.9),
        data,
        epochs=3,
        batch_size=8,
        evaluate=train.evaluator(model, {"loss": metrics.cross_entropy()}, valid=data),
    )


def killing(folder: Path, at: int) -> Any:
    """The experiment, of which one process is killed at that evaluation; it notes all of them."""
    driver = os.getpid()

    def build(width: int) -> study.Experiment:
        inner, calls = experiment(width), 0

        def evaluate(state: Any) -> Any:
            nonlocal calls
            if os.getpid() != driver:
                calls += 1
                (folder / str(uuid.uuid4())).touch()
                if calls == at:
                    with contextlib.suppress(FileExistsError):
                        (folder / "killed").touch(exist_ok=False)
                        os.kill(os.getpid(), signal.SIGKILL)
            return inner.evaluate(state)

        return inner._replace(evaluate=evaluate)

    return build


same = functools.partial(assert_same, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def wanted() -> study.Study:
    return study.run(experiment, **WIDE, **QUIET)


def test_as_many_tasks_as_workers(cluster: None) -> None:
    assert study.RayExecutor().num_workers == 2
    assert study.RayExecutor(num_cpus=2).num_workers == 1
    assert study.RayExecutor(num_cpus=0.5).num_workers == 4
    assert study.RayExecutor(num_cpus=0, num_gpus=1).num_workers == 1
    assert study.RayExecutor(5).num_workers == 5
    with pytest.raises(ValueError, match="`num_tasks` must be at least 1, got 0"):
        study.RayExecutor(0)


def test_results_come_as_they_finish(cluster: None, tmp_path: Path) -> None:
    """The first task ends only when it is told that the second has."""
    gate = tmp_path / "gate"

    def wait(task: int) -> int:
        import time

        while task == 0 and not gate.exists():
            time.sleep(0.01)
        return task

    results = study.RayExecutor()(wait, [0, 1])
    assert next(results) == 1
    gate.touch()
    assert list(results) == [0]


@pytest.mark.parametrize("num_tasks", [1, 3, 40])
def test_a_cluster_equals_one_machine(cluster: None, wanted: study.Study, num_tasks: int) -> None:
    same(study.run(experiment, executor=study.RayExecutor(num_tasks), **WIDE, **QUIET), wanted)


@pytest.mark.parametrize("stored", [False, True])
def test_a_worker_that_is_killed_costs_time_only(
    cluster: None, wanted: study.Study, tmp_path: Path, stored: bool
) -> None:
    """Without a store all of its work, with one that of an epoch."""
    (tmp_path / "notes").mkdir()
    found = study.run(
        killing(tmp_path / "notes", at=3),
        store=tmp_path / "store" if stored else None,
        executor=study.RayExecutor(2),
        **WIDE,
        **QUIET,
    )
    same(found, wanted)
    notes = {path.name for path in (tmp_path / "notes").iterdir()}
    assert "killed" in notes
    # Each of the two tasks evaluates after 3 epochs. One was killed after the third.
    assert len(notes - {"killed"}) == 2 * 3 + (1 if stored else 3)
    if stored:
        assert not list((tmp_path / "store" / "checkpoints").glob("*"))


def test_after_too_many_deaths_the_study_fails_and_goes_on_later(
    cluster: None, wanted: study.Study, tmp_path: Path
) -> None:
    """On one machine even: tasks stay as they were planned for the cluster."""
    (tmp_path / "notes").mkdir()
    store = tmp_path / "store"
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        study.run(
            killing(tmp_path / "notes", at=3),
            executor=study.RayExecutor(2, max_retries=0),
            store=store,
            **WIDE,
            **QUIET,
        )
    assert list((store / "checkpoints").glob("*"))
    seen: list[int] = []

    def watched(function: Any, tasks: Any) -> Any:
        seen.extend(len(task.seeds) for task in tasks)
        return map(function, tasks)

    same(study.run(experiment, store=store, executor=watched, **WIDE, **QUIET), wanted)
    assert seen in ([5], [5, 5])  # the other was done, or cancelled
    assert not list((store / "checkpoints").glob("*"))


def test_errors_of_the_experiment_are_the_users(cluster: None) -> None:
    driver = os.getpid()

    def build(width: int) -> study.Experiment:
        inner = experiment(width)

        def evaluate(state: Any) -> Any:
            if os.getpid() != driver:
                raise ZeroDivisionError("of the user")
            return inner.evaluate(state)

        return inner._replace(evaluate=evaluate)

    with pytest.raises(ZeroDivisionError, match="of the user"):
        study.run(build, executor=study.RayExecutor(1), **WIDE, **QUIET)


def test_the_command_line_takes_its_file_along(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("walk.py").write_text(
        "from fdnn import random, study\n"
        "def init(key):\n    return {'x': random.uniform(key)}\n"
        "def experiment(by):\n    return study.from_functions(\n"
        "        init, lambda s: ({'x': s['x'] + by}, {}), lambda s: s, num_steps=2)\n"
        "arms = {'up': {'by': 1.0}, 'down': {'by': -1.0}}\n"
    )
    options = ["run", "walk.py", "--seeds", "5", "--no-jit", "--store"]
    assert main([*options, "here"]) == main([*options, "there", "--ray"]) == 0
    here, there = (study.Study.read(study.Store(name)) for name in ("here", "there"))
    assert_same(here, there, rtol=1e-6)
    assert here.values("x", "up").min() > 2
    assert (tmp_path / "there" / "checkpoints").is_dir()  # where the workers wrote them
