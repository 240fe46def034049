"""`successive_halving` against the algorithm in plain Python, and its runs against `study.run`."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from studies import Died, assert_same, dying
from torch import Tensor, nn

from fdnn import functionalize, metrics, optim, random, schedules, study, train

QUIET: dict[str, Any] = {"jit": False, "progress": False}
X = random.normal(random.key(1), (30, 4))
DATA = X, (X @ random.normal(random.key(2), (4, 3))).argmax(1)


def given_curves(curves: Tensor) -> Any:
    """Runs whose number after t epochs is `curves[arm, cell, seed, t - 1]`; by nan they diverge."""

    def build(arm: int) -> study.Experiment:
        def init(key: Tensor, cell: Any) -> dict[str, Tensor]:
            cell = torch.as_tensor(cell).long()
            return {"cell": cell, "seed": key[1], "t": key[1] * 0, "x": torch.zeros(())}

        def step(s: dict[str, Tensor]) -> Any:
            x = curves[arm][s["cell"], s["seed"], s["t"]]
            return {**s, "t": s["t"] + 1, "x": x}, {"x": x}

        return study.from_functions(
            init, step, lambda s: {"x": s["x"]}, num_steps=curves.shape[-1], evaluate_every=1
        )

    return build


def reference(curves: Any, eta: int, least: int, sign: int) -> tuple[list[Any], list[Any], int]:
    """The algorithm on given curves: survivors by rung, their epochs, passes of single runs."""
    arms, cells, seeds, last = curves.shape
    left = [(a, c) for a in range(arms) for c in range(cells)]
    survivors, at, spent, before, epochs = [], [], 0, 0, least
    while True:
        epochs = min(epochs, last)
        if len(left) == 1:
            epochs = last
        spent += len(left) * seeds * (epochs - before)
        values = [curves[a, c, :, epochs - 1].mean() for a, c in left]
        loss = [math.inf if math.isnan(v) else sign * v for v in values]
        ranks = sorted(range(len(left)), key=lambda i: loss[i])
        number = 1 if epochs == last else max(1, len(left) // eta)
        survivors.append([left[i] for i in ranks[:number]])
        at.append(epochs)
        if epochs == last:
            return survivors, at, spent
        left = sorted(survivors[-1])
        before, epochs = epochs, epochs * eta


@given(
    seed=st.integers(0, 10**6),
    arms=st.integers(1, 2),
    cells=st.integers(1, 7),
    seeds=st.integers(1, 3),
    last=st.integers(1, 10),
    eta=st.integers(2, 4),
    least=st.integers(1, 4),
    mode=st.sampled_from(["min", "max"]),
    holes=st.booleans(),
)
def test_it_is_the_algorithm(
    seed: int, arms: int, cells: int, seeds: int, last: int, eta: int, least: int, mode: str,
    holes: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    curves = rng.integers(0, 5, (arms, cells, seeds, last)).astype(np.float32)  # with ties
    if holes:
        curves[rng.random(curves.shape) < 0.05] = np.nan
    build = given_curves(torch.from_numpy(curves))
    options: dict[str, Any] = {
        "arms": {str(a): {"arm": a} for a in range(arms)},
        "sweep": {"cell": range(cells)},
        "seeds": seeds,
        "metric": "x",
        "mode": mode,
        "eta": eta,
        "min_epochs": least,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "epoch .* are not finite")
        found = study.successive_halving(build, **options, **QUIET)
    survivors, at, spent = reference(curves, eta, least, 1 if mode == "min" else -1)
    assert [rung.epochs for rung in found.rungs] == at
    assert [rung.survivors for rung in found.rungs] == [
        [f"{a} cell={c}" for a, c in some] for some in survivors
    ]
    (winner,) = survivors[-1]
    assert (found.arm, found.cell) == (str(winner[0]), {"cell": float(winner[1])})
    assert found.lane_epochs == spent
    # What was run is on the curves, what was dropped is nan from there on.
    reached = np.zeros((arms, cells), int)
    left = {(a, c) for a in range(arms) for c in range(cells)}
    for epochs, some in zip(at, survivors, strict=True):
        for place in left:
            reached[place] = epochs
        left = set(some)
    for a in range(arms):
        arm = found.study.arms[str(a)]
        expected = np.moveaxis(curves[a], -1, 0).copy()
        for c in range(cells):
            expected[reached[a, c] :, c] = np.nan
        np.testing.assert_array_equal(arm.curves["x"], expected)
        np.testing.assert_array_equal(
            arm.finished, np.repeat(reached[a] == last, seeds).reshape(cells, seeds)
        )
        np.testing.assert_array_equal(arm.steps, np.repeat(reached[a], seeds).reshape(cells, seeds))


def experiment(
    width: int = 8, epochs: int = 9, patience: int | None = None, plateau: bool = False
) -> study.Experiment:
    model = functionalize(
        nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))
    )
    watched: dict[str, Any] = {}
    if patience is not None:
        watched["stop"] = train.early_stopping("valid_loss", patience=patience)
    if plateau:
        rule = schedules.reduce_on_plateau(patience=0, factor=0.5)
        watched["plateau"] = train.plateau("valid_loss", rule)
    measures = {"loss": metrics.cross_entropy(), "accuracy": metrics.accuracy()}
    return study.training(
        model,
        train.supervised(model, F.cross_entropy),
        optim.chain(optim.adam(lr=0.1), optim.scale(1.0)),
        DATA,
        epochs=epochs,
        batch_size=8,
        evaluate=train.evaluator(model, measures, valid=DATA),
        monitors=watched,
    )


SEARCH: dict[str, Any] = {"seeds": [4, 0, 2], "sweep": {"lr": [1e-4, 0.01, 0.1, 3.0, 0.03]}}


@pytest.mark.parametrize("chunk_size", ["auto", 4])
@pytest.mark.parametrize("more", [{}, {"plateau": True}, {"patience": 1}])
def test_runs_that_went_through_are_those_made_alone(
    more: dict[str, Any], chunk_size: int | str
) -> None:
    """Monitors too: memories go on, and have the last word only in the end."""
    arms = {"narrow": {"width": 3, **more}, "wide": {"width": 8, **more}}
    found = study.successive_halving(
        experiment, arms=arms, metric="valid_loss", chunk_size=chunk_size, **SEARCH, **QUIET
    )
    assert [len(rung.scores) for rung in found.rungs] == [10, 3, 1]
    assert [rung.epochs for rung in found.rungs] == [1, 3, 9]
    alone = study.run(experiment, arms=arms, **SEARCH, **QUIET)
    for name, arm in found.study.arms.items():
        other = alone.arms[name]
        for metric, curve in arm.curves.items():
            there = np.isfinite(curve)
            assert there[0].all()
            np.testing.assert_allclose(
                curve[there], other.curves[metric][there], rtol=1e-4, atol=1e-5
            )
        for metric, values in arm.results.items():
            np.testing.assert_allclose(
                values[arm.finished], other.results[metric][arm.finished], rtol=1e-4, atol=1e-5
            )
        np.testing.assert_array_equal(arm.steps[arm.finished], other.steps[arm.finished])
        assert np.isnan(arm.results["valid_loss"][~arm.finished]).all()
    assert sum(arm.finished.sum() for arm in found.study.arms.values()) == 3
    assert found.study.arms[found.arm].finished[found.study.cells.index(found.cell)].all()
    whole = sum(int(arm.steps.sum()) for arm in found.study.arms.values())
    assert found.lane_epochs == whole // 4
    if "patience" not in more:
        assert found.lane_epochs == 3 * (10 * 1 + 3 * 2 + 1 * 6)
    assert list(found.study.summary("valid_loss")) == found.rungs[-1].survivors


def test_compiled_it_finds_the_same() -> None:
    options: dict[str, Any] = {
        "arms": {"net": {"epochs": 2}},
        "seeds": 2,
        "sweep": {"lr": [1e-4, 0.1]},
        "metric": "valid_loss",
        "eta": 2,
        "progress": False,
    }
    eager = study.successive_halving(experiment, jit=False, **options)
    found = study.successive_halving(experiment, jit=True, **options)
    assert found.rungs[0].survivors == eager.rungs[0].survivors == ["net lr=0.1"]
    for epoch, rung in zip(eager.rungs, found.rungs, strict=True):
        assert rung.scores == pytest.approx(epoch.scores, rel=1e-4)
    assert (found.cell, found.lane_epochs) == (eager.cell, eager.lane_epochs) == ({"lr": 0.1}, 6)


def test_a_rung_is_no_end_for_early_stopping() -> None:
    """Ranks are by the best state until there, but the run goes on from its last."""
    curves = torch.tensor([[[[1.0, 3.0, 0.5, 0.7]], [[2.0, 2.0, 2.0, 2.0]]]])
    build = given_curves(curves)

    def stopping(arm: int) -> study.Experiment:
        return build(arm)._replace(monitors={"stop": train.early_stopping("x", patience=3)})

    found = study.successive_halving(
        stopping, arms={"a": {"arm": 0}}, sweep={"cell": [0, 1]}, seeds=1, metric="x", eta=2,
        min_epochs=2, **QUIET,
    )  # fmt: skip
    assert found.rungs[0].scores == {"a cell=0": 1.0, "a cell=1": 2.0}
    assert found.study.arms["a"].curves["x"][:, 0, 0].tolist() == curves[0, 0, 0].tolist()
    assert found.study.values("x", "a", cell=0).tolist() == [0.5]


def test_schedules_are_those_of_the_whole_run() -> None:
    """One whose length is fixed is not cut short by a rung."""
    model = functionalize(nn.Linear(4, 3))

    def build(max_lr: float) -> study.Experiment:
        tx = optim.sgd(lr=schedules.one_cycle(max_lr, total_steps=16))
        return study.training(
            model, train.supervised(model, F.cross_entropy), tx, DATA, epochs=4, batch_size=8,
            evaluate=train.evaluator(model, {"loss": metrics.cross_entropy()}, valid=DATA),
        )  # fmt: skip

    arms = {"slow": {"max_lr": 1e-3}, "fast": {"max_lr": 0.5}}
    found = study.successive_halving(build, arms=arms, seeds=2, metric="valid_loss", eta=2, **QUIET)
    assert (found.arm, found.cell, found.lane_epochs) == ("fast", {}, 10)
    alone = study.run(build, arms=arms, seeds=2, **QUIET)
    np.testing.assert_allclose(
        found.study.values("valid_loss", "fast"), alone.values("valid_loss", "fast"), rtol=1e-5
    )


@pytest.mark.parametrize("after", [3, 4, 6, 9, 16])
def test_a_search_that_died_goes_on(after: int, tmp_path: Path) -> None:
    arms = {"narrow": {"width": 3, "patience": 2}, "wide": {"plateau": True}}
    options: dict[str, Any] = {"arms": arms, "metric": "valid_loss", **SEARCH, **QUIET}
    wanted = study.successive_halving(experiment, **options)
    with pytest.raises(Died):
        study.successive_halving(dying(experiment, after), store=tmp_path, **options)
    found = study.successive_halving(experiment, store=tmp_path, **options)
    assert found.rungs == wanted.rungs
    assert (found.arm, found.cell, found.lane_epochs) == (
        wanted.arm, wanted.cell, wanted.lane_epochs
    )  # fmt: skip
    assert_same(found.study, wanted.study)
    if after > 9:
        found = study.successive_halving(dying(experiment, after), store=tmp_path, **options)
    assert found.rungs == wanted.rungs, "nothing is trained twice: fewer evaluations than deaths"
    with pytest.raises(ValueError, match="`store` holds an arm 'wide' with other settings"):
        study.successive_halving(
            experiment, store=tmp_path, **{**options, "arms": {"wide": {"width": 7}}}
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, '`mode` must be "min" or "max", got \'best\''),
        ({"eta": 1}, "`eta` must be at least 2, got 1"),
        ({"min_epochs": 0}, "`min_epochs` must be at least 1, got 0"),
        ({"arms": {}}, "`arms` must hold at least one arm"),
        ({"seeds": [1, 1]}, "each once"),
        ({"arms": {"a": {}, "b": {"epochs": 2}}}, r"the same epochs, got \{'a': 9, 'b': 2\}"),
        ({"memory": 100}, r"`memory` must be at least \d+ bytes for one run, got 100"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study.successive_halving(
            experiment, **{"arms": {"a": {}}, "metric": "valid_loss", **SEARCH, **QUIET, **options}
        )


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(KeyError, match=r"there is no metric 'loss', but .*valid_loss"):
        study.successive_halving(experiment, arms={"a": {}}, metric="loss", **SEARCH, **QUIET)
    with pytest.raises(ValueError, match="`memory` must be at least") as seen:
        study.successive_halving(
            experiment, arms={"a": {}}, metric="valid_loss", memory=1, **SEARCH, **QUIET
        )
    memory = int(str(seen.value).split("at least ")[1].split()[0])
    with pytest.raises(ValueError, match="`memory` must hold the states of all 15 runs of an arm"):
        study.successive_halving(
            experiment, arms={"a": {}}, metric="valid_loss", memory=memory, **SEARCH, **QUIET
        )
