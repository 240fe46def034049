"""`study.run`: lanes are `train.fit`'s runs; stores resume and grow; diverged runs are recorded."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from studies import Died, assert_same, counting, dying
from torch import Tensor, nn

from fdnn import functionalize, metrics, optim, random, study, train, tree
from fdnn.study.task import Lanes, begin

QUIET: dict[str, Any] = {"jit": False, "progress": False}
X = random.normal(random.key(1), (30, 4))
DATA = X, (X @ random.normal(random.key(2), (4, 3))).argmax(1)
MEASURES = {"loss": metrics.cross_entropy(), "accuracy": metrics.accuracy()}


def parts(width: int) -> tuple[Any, Any, Any]:
    net = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))
    model, tx = functionalize(net), optim.sgd(lr=0.1, momentum=0.9)
    return model, tx, train.evaluator(model, MEASURES, valid=DATA)


def experiment(width: int = 8, epochs: int = 3, patience: int | None = None) -> study.Experiment:
    model, tx, measure = parts(width)
    stop = {} if patience is None else {"s": train.early_stopping("valid_loss", patience=patience)}
    return study.training(
        model,
        train.supervised(model, F.cross_entropy),
        tx,
        DATA,
        epochs=epochs,
        batch_size=8,
        evaluate=measure,
        monitors=stop,
    )


ARMS = {"narrow": {"width": 2}, "wide": {"width": 8}}


def by_hand(width: int, seed: int, lr: float | None = None, epochs: int = 3) -> Any:
    """The run of one seed, by `train`."""
    model, tx, measure = parts(width)
    state = train.init(model, tx, random.key(seed))
    if lr is not None:
        state = state._replace(opt_state=optim.set_hyperparams(state.opt_state, lr=lr))
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    state, history = train.fit(
        step, state, DATA, epochs=epochs, batch_size=8, evaluate=measure,
        compile=False, progress=False,
    )  # fmt: skip
    return measure(state), history


def test_every_lane_is_the_run_of_its_seed() -> None:
    found = study.run(experiment, arms=ARMS, seeds=[3, 0, 7], sweep={"lr": [0.01, 0.3]}, **QUIET)
    assert found.cells == [{"lr": 0.01}, {"lr": 0.3}]
    for arm, settings in ARMS.items():
        for i, cell in enumerate(found.cells):
            for j, seed in enumerate([3, 0, 7]):
                final, history = by_hand(settings["width"], seed, **cell)
                for name, value in final.items():
                    lane = found.values(name, arm, **cell)[j]
                    assert lane == pytest.approx(value.item(), rel=1e-4, abs=1e-5)
                for name, curve in history.items():
                    lane = torch.from_numpy(found.arms[arm].curves[name][:, i, j])
                    torch.testing.assert_close(lane, curve.double(), rtol=1e-4, atol=1e-5)
        assert (found.arms[arm].steps == 12).all()
        assert not found.arms[arm].diverged.any()


def test_runs_begin_where_the_data_is() -> None:
    arm, lanes = experiment(), Lanes([0, 1], [{"lr": 0.1}] * 2)
    elsewhere = begin(arm._replace(data=tuple(part.to("meta") for part in DATA)), lanes)
    assert {leaf.device.type for leaf in tree.leaves(elsewhere)} == {"meta"}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*DATA))
    assert begin(arm._replace(data=loader), lanes).count.device.type == "cpu"


def test_arms_are_paired() -> None:
    """The same seed begins with the same values, as far as shapes agree."""
    same = {"a": {"epochs": 1}, "b": {"epochs": 1, "patience": 5}}
    found = study.run(experiment, arms=same, seeds=4, **QUIET)
    assert np.array_equal(found.values("valid_loss", "a"), found.values("valid_loss", "b"))
    assert len(set(found.values("valid_loss", "a"))) == 4


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
def test_chunks_change_nothing(chunk_size: int) -> None:
    arms = {"wide": {"width": 8}}
    wanted = study.run(experiment, arms=arms, seeds=5, **QUIET)
    found = study.run(experiment, arms=arms, seeds=5, chunk_size=chunk_size, **QUIET)
    assert found.values("valid_loss", "wide") == pytest.approx(
        wanted.values("valid_loss", "wide"), rel=1e-4
    )


def test_memory_bounds_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["fdnn.study.run"]
    sizes: list[tuple[int, int]] = []
    real = module.run_task

    def watched(experiment: Any, lanes: Any, **options: Any) -> Any:
        sizes.append((len(lanes.seeds), options["chunk_size"]))
        return real(experiment, lanes, **options)

    monkeypatch.setattr(module, "run_task", watched)
    with pytest.raises(ValueError, match=r"`memory` must be at least \d+ bytes") as seen:
        study.run(experiment, arms={"a": {}}, seeds=6, memory=10, **QUIET)
    least = int(str(seen.value).split("at least ")[1].split()[0])
    for memory in (least, 2 * least, 100 * least):
        study.run(experiment, arms={"a": {}}, seeds=6, memory=memory, **QUIET)
    assert sizes[:6] == [(1, 1)] * 6
    assert sizes[6][1] == 2
    assert sizes[-1] == (6, 6)


def test_early_stopping_by_run() -> None:
    arms = {"a": {"epochs": 40, "patience": 2}}
    found = study.run(experiment, arms=arms, seeds=4, sweep={"lr": [0.5]}, chunk_size=2, **QUIET)
    arm = found.arms["a"]
    assert len(np.unique(arm.steps)) > 1
    best = np.nanmin(arm.curves["valid_loss"], axis=0)
    assert arm.results["valid_loss"] == pytest.approx(best, rel=1e-4)
    ends = np.isfinite(arm.curves["valid_loss"]).sum(0)
    assert np.array_equal(ends * 4, arm.steps)


def test_a_diverged_run_is_recorded_and_disturbs_none() -> None:
    arms = {"a": {}}
    with pytest.warns(RuntimeWarning, match="not finite any more"):
        found = study.run(experiment, arms=arms, seeds=3, sweep={"lr": [0.1, 1e30]}, **QUIET)
    assert found.arms["a"].diverged.tolist() == [[False] * 3, [True] * 3]
    alone = study.run(experiment, arms=arms, seeds=3, sweep={"lr": [0.1]}, **QUIET)
    assert found.values("valid_loss", "a", lr=0.1) == pytest.approx(
        alone.values("valid_loss", "a", lr=0.1), rel=1e-4
    )
    summary = found.summary("valid_accuracy")["a lr=0.1"]
    assert (summary.n, summary.diverged) == (3, 0)


@pytest.mark.parametrize("after", [1, 2, 3, 6, 7, 11, 16])
def test_a_study_that_died_goes_on(after: int, tmp_path: Path) -> None:
    """At whatever evaluation: to the bit the study that never did."""
    options: dict[str, Any] = {"arms": ARMS, "seeds": 4, "chunk_size": 2} | QUIET
    wanted = study.run(experiment, store=tmp_path / "whole", **options)
    with pytest.raises(Died):
        study.run(dying(experiment, after), store=tmp_path / "cut", **options)
    found = study.run(experiment, store=tmp_path / "cut", **options)
    assert_same(found, wanted)
    assert not list((tmp_path / "cut" / "checkpoints").glob("*"))


def test_a_store_grows(tmp_path: Path) -> None:
    """More seeds, arms and values, and nothing is computed twice."""
    built: list[str] = []

    def counted(width: int) -> study.Experiment:
        inner = experiment(width)

        def init(key: Tensor, **hyper: Any) -> Any:
            built.append(f"{width} {hyper}")
            return inner.init(key, **hyper)

        return inner._replace(init=init)

    def run(arms: Iterable[str], seeds: Any, rates: list[float]) -> study.Study:
        built.clear()
        return study.run(
            counted,
            arms={arm: ARMS[arm] for arm in arms},
            seeds=seeds,
            sweep={"lr": rates},
            store=tmp_path,
            **QUIET,
        )

    first = run(["wide"], 2, [0.1])
    assert built
    again = run(["wide"], 2, [0.1])
    assert not built
    assert_same(again, first)
    more = run(["wide", "narrow"], 4, [0.1, 0.2])
    assert more.values("valid_loss", "wide", lr=0.1)[:2].tolist() == (
        first.values("valid_loss", "wide", lr=0.1).tolist()
    )
    assert np.isfinite(more.values("valid_loss", "narrow", lr=0.2)).all()
    less = run(["wide"], [1], [0.1])
    assert not built
    assert (
        less.values("valid_loss", "wide", lr=0.1) == first.values("valid_loss", "wide", lr=0.1)[1]
    )
    whole = study.Study.read(study.Store(tmp_path))
    assert whole.seeds == [0, 1, 2, 3]
    assert list(whole.arms) == ["wide", "narrow"]
    assert_same(study.Study(whole.arms, whole.seeds, whole.cells), study.Study(
        {name: more.arms[name] for name in whole.arms}, whole.seeds, whole.cells
    ))  # fmt: skip


def test_a_store_refuses_another_arm_of_the_same_name(tmp_path: Path) -> None:
    study.run(experiment, arms={"a": {"width": 2}}, seeds=2, store=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"`store` holds an arm 'a' with other settings: .*3"):
        study.run(experiment, arms={"a": {"width": 3}}, seeds=2, store=tmp_path, **QUIET)


def test_a_store_is_plain_sqlite(tmp_path: Path) -> None:
    found = study.run(experiment, arms={"a": {}}, seeds=2, store=tmp_path, **QUIET)
    database = sqlite3.connect(tmp_path / "results.sqlite")
    rows = database.execute(
        "SELECT value FROM results WHERE metric = 'valid_loss' ORDER BY seed"
    ).fetchall()
    assert [value for (value,) in rows] == found.values("valid_loss", "a").tolist()


def test_any_three_functions() -> None:
    """A random walk: steps need no batch, the state is any tree."""

    def init(key: Tensor, size: Any = 1.0) -> dict[str, Tensor]:
        return {"key": key, "x": torch.zeros(()), "size": torch.as_tensor(size)}

    def step(s: dict[str, Tensor]) -> Any:
        new = {**s, "key": random.fold_in(s["key"], 1), "x": s["x"] + s["size"]}
        return new, {"x": s["x"]}

    def evaluate(s: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"x": s["x"]}

    walk = study.from_functions(init, step, evaluate, num_steps=12, evaluate_every=4)
    found = study.run(lambda: walk, arms={"a": {}}, seeds=3, sweep={"size": [1, 2.5]}, **QUIET)
    assert found.arms["a"].results["x"].tolist() == [[12.0] * 3, [30.0] * 3]
    assert found.arms["a"].steps.tolist() == [[12] * 3] * 2
    assert found.arms["a"].curves["x"].shape == (3, 2, 3)
    with pytest.raises(ValueError, match="positive divisor of `num_steps`, got 5 and 12"):
        study.from_functions(
            lambda key: key, lambda s: (s, {}), dict, num_steps=12, evaluate_every=5
        )


def test_compiled_is_eager() -> None:
    arms = {"wide": {"width": 8}}
    wanted = study.run(experiment, arms=arms, seeds=3, **QUIET)
    found = study.run(experiment, arms=arms, seeds=3, **QUIET | {"jit": True})
    assert found.values("valid_loss", "wide") == pytest.approx(
        wanted.values("valid_loss", "wide"), rel=1e-4
    )


def test_what_a_study_says() -> None:
    found = study.run(experiment, arms=ARMS, seeds=6, sweep={"lr": [0.01, 0.3]}, **QUIET)
    wide = found.values("valid_loss", "wide", lr=0.3)
    slow = found.values("valid_loss", "wide", lr=0.01)
    compared = found.compare("valid_loss", "wide lr=0.3", "wide lr=0.01")
    assert compared.difference == pytest.approx((wide - slow).mean())
    assert compared.t_test_p < 0.01
    assert found.power("valid_loss", "wide lr=0.3", "wide lr=0.01").n == 6
    pairs = found.compare_all("valid_loss", baseline="wide lr=0.3")
    assert len(pairs) == 3
    summary = found.summary("valid_accuracy")
    assert summary["narrow lr=0.3"].mean == pytest.approx(
        found.values("valid_accuracy", "narrow", lr=0.3).mean()
    )
    lines = found.table("valid_loss").splitlines()
    assert len(lines) == 5
    assert f"{wide.mean():.4g}" in lines[4]
    assert len(found.table().splitlines()) == 9
    frame = found.to_pandas()
    assert len(frame) == 24
    mean = frame.groupby(["arm", "lr"]).valid_loss.mean()
    assert mean["wide", 0.3] == pytest.approx(wide.mean())
    with pytest.raises(KeyError, match="there is no arm 'wider'"):
        found.values("valid_loss", "wider", lr=0.3)
    with pytest.raises(KeyError, match="there is no cell"):
        found.values("valid_loss", "wide", lr=0.4)
    with pytest.raises(KeyError, match="there is no metric 'loss'"):
        found.summary("loss")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "`seeds` must be at least one"),
        ({"seeds": [1, 1]}, "each once"),
        ({"arms": {}}, "`arms` must hold at least one"),
        ({"sweep": {"lr": []}}, "`sweep` must give 'lr' at least one value"),
        ({"chunk_size": 0}, "`chunk_size` must be positive or 'auto', got 0"),
        ({"chunk_size": "all"}, "`chunk_size` must be positive or 'auto', got 'all'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        study.run(experiment, **{"arms": ARMS, "seeds": 2, **QUIET, **options})


def test_an_executor_is_a_map() -> None:
    """Tasks are done in any order, and are as many as memory demands."""
    seen: list[int] = []

    def backwards(function: Any, tasks: Any) -> Any:
        results = {i: function(task) for i, task in reversed(list(enumerate(tasks)))}
        seen.append(len(tasks))
        return [results[i] for i in range(len(tasks))]

    options: dict[str, Any] = {"arms": {"wide": {"width": 8}}, "seeds": 4} | QUIET
    with pytest.raises(ValueError, match="`memory`") as refused:
        study.run(experiment, memory=1, **options)
    options["memory"] = int(str(refused.value).split("at least ")[1].split()[0])
    assert_same(
        study.run(experiment, executor=backwards, **options),
        study.run(experiment, **options),
    )
    assert seen == [4]


@pytest.mark.parametrize("stored", [False, True])
def test_parameters_are_kept(tmp_path: Path, stored: bool) -> None:
    """What was measured in the end was measured of them, seed by seed."""
    options: dict[str, Any] = {"arms": ARMS, "sweep": {"lr": [0.01, 0.3]}} | QUIET
    if stored:  # Runs without parameters are made again, once.
        options["store"] = tmp_path
        study.run(experiment, seeds=[5, 1], **options)
    found = study.run(experiment, seeds=[5, 1, 3], chunk_size=2, keep_parameters=True, **options)
    for arm, settings in ARMS.items():
        model, tx, measure = parts(settings["width"])
        for lr in (0.01, 0.3):
            params, buffers = found.parameters(arm, lr=lr)
            assert params["0.weight"].shape == (3, settings["width"], 4)
            state = torch.vmap(lambda key, tx=tx, model=model: train.init(model, tx, key))(
                torch.stack([random.key(seed) for seed in found.seeds])
            )
            measured = measure(state._replace(params=params, buffers=buffers))
            for name, values in measured.items():
                assert values.numpy() == pytest.approx(found.values(name, arm, lr=lr), rel=1e-5)
    if stored:
        again = study.run(experiment, seeds=3, **options)
        with pytest.raises(ValueError, match=r"`keep_parameters=True`.*'wide'.* seeds \[0, 2\]"):
            again.parameters("wide", lr=0.3)
        with pytest.raises(KeyError, match="there is no cell"):
            again.parameters("wide", lr=0.4)


def test_steps_per_call_change_nothing() -> None:
    options: dict[str, Any] = {"arms": {"wide": {"width": 8}}, "seeds": 3} | QUIET
    wanted = study.run(experiment, **options)
    assert_same(study.run(experiment, steps_per_call=3, **options), wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="`steps_per_call` must be at least 1, got 0"):
        study.run(experiment, steps_per_call=0, **options)


@pytest.mark.parametrize(("patience", "count"), [(None, 5), (9, 6)])
def test_the_last_state_is_measured_once(patience: int | None, count: int) -> None:
    """Two evaluations watch memory and three follow an epoch; monitors may change what ends."""
    build, calls = counting(experiment)
    study.run(build, arms={"a": {"patience": patience}}, seeds=2, **QUIET)
    assert calls == [count]
