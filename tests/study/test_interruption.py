"""Ctrl-C: nothing half done is recorded as done, and the study goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from studies import counting
from torch import Tensor

from fdnn import random, study, train

QUIET: dict[str, Any] = {"jit": False, "progress": False}
ARMS: dict[str, dict[str, Any]] = {"slow": {"rate": 0.1}, "fast": {"rate": 0.5}}


def descent(rate: float) -> study.Experiment:
    def init(key: Tensor) -> dict[str, Tensor]:
        return {"x": 1 + random.uniform(key)}

    def step(s: dict[str, Tensor]) -> Any:
        return {"x": s["x"] - rate * s["x"]}, {}

    found = study.from_functions(
        init, step, lambda s: {"loss": s["x"] ** 2}, num_steps=4, evaluate_every=1
    )
    return found._replace(monitors={"best": train.early_stopping("loss", patience=9)})


def interrupted(after: int, where: str = "evaluate") -> Any:
    """The experiment, in which Ctrl-C comes at a call of a function."""
    calls = 0

    def build(**arm: Any) -> study.Experiment:
        inner = descent(**arm)
        whole = inner if where == "evaluate" else inner.monitors["best"]

        def function(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == after:
                raise KeyboardInterrupt
            return getattr(whole, where)(*args)

        mine = whole._replace(**{where: function})
        return mine if where == "evaluate" else inner._replace(monitors={"best": mine})

    return build


def count_evaluations() -> int:
    """Those of the whole study."""
    build, calls = counting(descent)
    study.run(build, arms=ARMS, seeds=3, **QUIET)
    return calls[0]


# Of the 14 evaluations 2 of each arm watch memory, 4 follow an epoch, 1 comes in the end.
@pytest.mark.filterwarnings("ignore:interrupted:RuntimeWarning")  # of `fit`
@pytest.mark.parametrize("after", range(1, 15))
def test_no_run_is_half_done(after: int, tmp_path: Path) -> None:
    if after == 1:
        assert count_evaluations() == 14
    wanted = study.run(descent, arms=ARMS, seeds=3, **QUIET)
    with pytest.raises(KeyboardInterrupt):
        study.run(interrupted(after), arms=ARMS, seeds=3, store=tmp_path, **QUIET)
    between = study.Study.read(study.Store(tmp_path))
    for name, arm in between.arms.items():
        assert arm.finished.any() == (name == "slow" and after > 7)
    found = study.run(descent, arms=ARMS, seeds=3, store=tmp_path, **QUIET)
    for name in ARMS:
        np.testing.assert_array_equal(found.values("loss", name), wanted.values("loss", name))
        np.testing.assert_array_equal(
            found.arms[name].curves["loss"], wanted.arms[name].curves["loss"]
        )
    assert len(found.calls) == 2


def test_without_a_store_it_ends() -> None:
    with (
        pytest.warns(RuntimeWarning, match="interrupted"),
        pytest.raises(KeyboardInterrupt, match="a study with a `store` goes on"),
    ):
        study.run(interrupted(4), arms=ARMS, seeds=3, **QUIET)


@pytest.mark.filterwarnings("ignore:interrupted:RuntimeWarning")
def test_after_the_last_epoch_monitors_still_finish(tmp_path: Path) -> None:
    """Ctrl-C as they do, after a look at each epoch: `fit` returns what they have not finished."""
    arms = {"away": {"rate": -0.5}}  # its best parameters are those of the first epoch
    wanted = study.run(descent, arms=arms, seeds=3, **QUIET)
    assert wanted.values("loss", "away") == pytest.approx(wanted.arms["away"].curves["loss"][0, 0])
    found = study.run(interrupted(5, "finish"), arms=arms, seeds=3, store=tmp_path, **QUIET)
    np.testing.assert_array_equal(found.values("loss", "away"), wanted.values("loss", "away"))


def test_a_run_that_a_monitor_stopped_is_done(tmp_path: Path) -> None:
    def build(rate: float) -> study.Experiment:
        stop = train.Monitor(
            init=lambda state: torch.tensor(False),
            update=lambda memory, state, numbers: (numbers["loss"] < 0.3, state),
            stopped=lambda memory: memory,
        )
        return descent(rate)._replace(monitors={"stop": stop})

    found = study.run(build, arms={"fast": ARMS["fast"]}, seeds=5, store=tmp_path, **QUIET)
    assert found.arms["fast"].finished.all()
    assert (found.arms["fast"].steps < 4).all()
