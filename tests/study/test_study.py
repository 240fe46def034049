"""A study with runs that diverged, or that are not there, still says what can be said."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from studies import made
from torch import Tensor

from fdnn import random, study

QUIET: dict[str, Any] = {"jit": False, "progress": False}


def draws(arm: int) -> study.Experiment:
    def init(key: Tensor, **hyper: Any) -> dict[str, Any]:
        return {"x": arm + random.uniform(key), **hyper}

    return study.from_functions(init, lambda s: (s, {}), lambda s: {"x": s["x"]}, num_steps=1)


def test_an_arm_that_diverged_is_left_out() -> None:
    found = made({"a": 1.0, "b": math.nan, "c": 1.2})
    found.arms["b"].results["loss"][0, 3] = 7.0
    said = r"left out: 'b' has 1 finite values of 6 runs"
    with pytest.warns(RuntimeWarning, match=said):
        pairs = found.compare_all("loss")
    assert list(pairs) == [("a", "c")]
    assert pairs["a", "c"] == found.compare("loss", "a", "c")._replace(
        p_holm=pairs["a", "c"].t_test_p
    )
    with pytest.warns(RuntimeWarning, match=said):
        assert list(found.summary("loss")) == ["a", "c"]
    with pytest.warns(RuntimeWarning, match=said):
        assert found.compare_all("loss", baseline="b") == {}
    line = found.table("loss").splitlines()[2].split()
    assert line == ["b", "loss", "1", "5", "7"]


def test_arms_without_common_seeds_are_left_out() -> None:
    found = made({"a": 1.0, "b": 1.1, "c": 1.2})
    for arm, there in (("a", slice(0, 3)), ("b", slice(2, 6))):
        found.arms[arm].finished[:] = False
        found.arms[arm].finished[0, there] = True
        found.arms[arm].results["loss"][~found.arms[arm].finished] = math.nan
    with pytest.warns(RuntimeWarning, match="'a' and 'b' share 1 seeds with finite values"):
        pairs = found.compare_all("loss")
    assert [(pair, one.n_a) for pair, one in pairs.items()] == [(("a", "c"), 3), (("b", "c"), 4)]
    assert [one.left_out for one in pairs.values()] == [0, 0]  # nothing diverged
    alone = found.compare_all("loss", paired=False)
    assert [(one.n_a, one.n_b, one.left_out) for one in alone.values()] == [
        (3, 4, 0), (3, 6, 0), (4, 6, 0),
    ]  # fmt: skip


def test_compare_all_is_that_of_the_statistics() -> None:
    found = made({"a": 1.0, "b": 1.1, "c": 1.2})
    columns = {name: found.values("loss", name) for name in "abc"}
    assert found.compare_all("loss") == study.compare_all(columns)
    assert found.compare_all("loss", "b", confidence=0.9) == study.compare_all(
        columns, "b", confidence=0.9
    )
    with pytest.raises(ValueError, match="`baseline` must be one of the arms"):
        found.compare_all("loss", "z")
    with pytest.raises(ValueError, match=r"at least 2 arms or cells to compare, got .*'a'"):
        made({"a": 1.0}).compare_all("loss")


def test_runs_that_are_not_there_have_not_diverged(tmp_path: Path) -> None:
    """In a store arms may have other seeds and cells."""
    study.run(draws, arms={"a": {"arm": 1}}, seeds=3, store=tmp_path, **QUIET)
    sweep = {"size": [10.0, 2.0, 1e-5]}
    study.run(draws, arms={"b": {"arm": 2}}, seeds=[2, 5], sweep=sweep, store=tmp_path, **QUIET)
    found = study.Study.read(study.Store(tmp_path))
    assert found.seeds == [0, 1, 2, 5]
    assert found.cells == [{}, {"size": 1e-5}, {"size": 2.0}, {"size": 10.0}]
    assert found.arms["a"].finished.tolist() == [[True] * 3 + [False]] + [[False] * 4] * 3
    summary = found.summary("x")
    assert {name: (s.n, s.diverged) for name, s in summary.items()} == {
        "a": (3, 0), "b size=1e-05": (2, 0), "b size=2": (2, 0), "b size=10": (2, 0),
    }  # fmt: skip
    assert len(found.to_pandas()) == 9
    with pytest.raises(ValueError, match="at least 2 pairs"):
        found.compare("x", "a", "b size=2")  # they share one seed
    assert found.compare("x", "a", "b size=2", paired=False).left_out == 0


def test_an_arm_may_lack_a_metric() -> None:
    found = made({"a": 1.0, "b": 1.2, "c": 1.4})
    del found.arms["b"].results["accuracy"]
    assert list(found.summary("accuracy")) == ["a", "c"]
    assert list(found.compare_all("accuracy")) == [("a", "c")]
    assert len(found.table().splitlines()) == 1 + 3 + 2
    with pytest.raises(KeyError, match="there is no metric 'accuracy', but"):
        found.values("accuracy", "b")


def test_labels_tell_cells_apart() -> None:
    cells: tuple[dict[str, float], ...] = (
        {"w": 0.1, "lr": 0.12345678},
        {"w": 0.1, "lr": 0.12345679},
    )
    found = made({"a": 1.0}, cells=cells)
    assert list(found.summary("loss")) == ["a lr=0.12345678 w=0.1", "a lr=0.12345679 w=0.1"]


def test_calls_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "my study.py", "--fast"])
    found = study.run(draws, arms={"a": {"arm": 1}}, seeds=3, store=tmp_path, **QUIET)
    (call,) = found.calls
    assert call.command == "python 'my study.py' --fast"
    assert call.environment["torch"] == torch.__version__
    assert call.environment["threads of torch"] == str(torch.get_num_threads())
    assert call.seconds is not None and 0 < call.seconds < 60
    assert found.arms["a"].settings == "{'arm': 1}"
    again = study.run(draws, arms={"a": {"arm": 1}}, seeds=3, store=tmp_path, **QUIET)
    assert again.calls == found.calls  # there was nothing to do
    study.run(draws, arms={"a": {"arm": 1}}, seeds=4, store=tmp_path, **QUIET)
    assert len(study.Study.read(study.Store(tmp_path)).calls) == 2
    assert len(study.run(draws, arms={"a": {"arm": 1}}, seeds=4, **QUIET).calls) == 1


def test_a_call_that_failed_has_its_length(tmp_path: Path) -> None:
    def fails(arm: int) -> study.Experiment:
        raise RuntimeError("no experiment")

    with pytest.raises(RuntimeError, match="no experiment"):
        study.run(fails, arms={"a": {"arm": 1}}, seeds=3, store=tmp_path, **QUIET)
    (call,) = study.Store(tmp_path).calls()
    assert call.seconds is not None


def test_numbers_may_begin_a_state() -> None:
    found = study.run(
        lambda: study.from_functions(
            lambda key, size=0.5: {"x": size},
            lambda s: ({"x": 2 * s["x"]}, {}),
            lambda s: {"x": s["x"]},
            num_steps=3,
        ),
        arms={"a": {}},
        seeds=2,
        **QUIET,
    )
    np.testing.assert_array_equal(found.values("x", "a"), [4.0, 4.0])
