"""Early stopping: Keras' rule, the best parameters, lane by lane, across interruptions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fdnn import metrics, random, train, tree

QUIET: dict[str, Any] = {"batch_size": 8, "compile": False, "progress": False}

values = st.one_of(st.integers(-3, 3).map(float), st.just(math.nan), st.floats(-2, 2))


def epoch_state(epoch: int) -> train.TrainState:
    """A state that tells which epoch it is of."""
    mark = torch.tensor(float(epoch))
    return train.TrainState({"w": mark}, {"b": mark}, {}, random.key(0), torch.tensor(epoch))


def run(monitor: train.Monitor, numbers: list[float]) -> tuple[Any, int]:
    """Show a monitor numbers until it stops; return its memory and how many it has seen."""
    memory = monitor.init(epoch_state(0))
    for epoch, value in enumerate(numbers, start=1):
        memory, _ = monitor.update(memory, epoch_state(epoch), {"loss": torch.tensor(value)})
        if memory.stopped:
            return memory, epoch
    return memory, len(numbers)


def by_the_book(
    numbers: list[float], patience: int, mode: str, min_delta: float
) -> tuple[int, int]:
    """Keras' EarlyStopping, in plain Python: the epochs seen, and the best among them."""
    best, best_epoch, wait = (math.inf if mode == "min" else -math.inf), 0, 0
    for epoch, value in enumerate(numbers, start=1):
        value = torch.tensor(value).item()  # as float32
        if value < best - min_delta if mode == "min" else value > best + min_delta:
            best, best_epoch, wait = value, epoch, 0
        else:
            wait += 1
        if wait >= patience:
            return epoch, best_epoch
    return len(numbers), best_epoch


@given(
    st.lists(values, min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from(["min", "max"]),
    st.sampled_from([0.0, 0.5]),
)
def test_is_keras_rule(numbers: list[float], patience: int, mode: str, min_delta: float) -> None:
    monitor = train.early_stopping("loss", patience=patience, mode=mode, min_delta=min_delta)
    memory, seen = run(monitor, numbers)
    wanted, best = by_the_book(numbers, patience, mode, min_delta)
    assert (seen, memory.best_count.item()) == (wanted, best)
    restored = monitor.finish(memory, epoch_state(99))
    assert restored.params["w"] == restored.buffers["b"] == best


@given(st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=8))
def test_vmap_is_a_loop(numbers: list[list[float]]) -> None:
    monitor = train.early_stopping("loss", patience=2)
    states = tree.stack([epoch_state(0)] * 3)
    memory = torch.vmap(monitor.init)(states)
    for epoch, row in enumerate(numbers, start=1):
        stacked = tree.stack([epoch_state(epoch)] * 3)
        memory, _ = torch.vmap(monitor.update)(memory, stacked, {"loss": torch.tensor(row)})
    for lane in range(3):
        alone = monitor.init(epoch_state(0))
        for epoch, row in enumerate(numbers, start=1):
            number = {"loss": torch.tensor(row)[lane]}
            alone, _ = monitor.update(alone, epoch_state(epoch), number)
        assert_equal(tree.map(lambda leaf, i=lane: leaf[i], memory), alone)


@pytest.fixture
def fit(task: Any) -> Any:
    """Train with a validation loss that gets worse, for each run at its own time."""
    wrong = torch.arange(50) % 4 == 0
    noisy = task.inputs, torch.where(wrong, (task.targets + 1) % 3, task.targets)
    measure = train.evaluator(task.model, {"loss": metrics.cross_entropy()}, valid=noisy)

    def fit(state: train.TrainState, patience: int = 3, **options: Any) -> Any:
        monitors = {"stop": train.early_stopping("valid_loss", patience=patience)}
        options = {"epochs": 25, "evaluate": measure, "monitors": monitors, **QUIET, **options}
        return train.fit(task.step, state, task.data, **options)

    return fit


def test_stops_with_the_best(task: Any, fit: Any) -> None:
    state, history = fit(task.begin())
    loss = history["valid_loss"]
    best = int(loss.argmin())
    assert len(loss) == best + 4 < 25
    wanted, _ = train.fit(task.step, task.begin(), task.data, epochs=best + 1, **QUIET)
    assert_equal((state.params, state.buffers), (wanted.params, wanted.buffers))
    assert state.monitors["stop"].best_count == wanted.count
    assert state.count == 7 * len(loss)


def test_ends_with_the_best_though_it_never_stops(task: Any, fit: Any) -> None:
    state, history = fit(task.begin(), patience=100, epochs=6)
    assert len(history["loss"]) == 6
    best = int(history["valid_loss"].argmin())
    wanted, _ = train.fit(task.step, task.begin(), task.data, epochs=best + 1, **QUIET)
    assert_equal(state.params, wanted.params)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_lanes_stop_by_themselves(task: Any, fit: Any, chunk_size: int | None) -> None:
    state, history = fit(task.begin_many(5), chunk_size=chunk_size)
    assert len(set(state.count.tolist())) > 1  # or this tests nothing
    for lane in range(5):
        alone, numbers = fit(task.begin(lane))
        epochs = len(numbers["loss"])
        assert state.count[lane] == alone.count
        assert_close(tree.map(lambda leaf, i=lane: leaf[i], state), alone, rtol=1e-3, atol=1e-3)
        for name, column in history.items():
            torch.testing.assert_close(column[:epochs, lane], numbers[name], rtol=1e-3, atol=1e-3)
            assert column[epochs:, lane].isnan().all()


def test_stopped_lanes_cost_nothing_by_whole_chunks(task: Any) -> None:
    """Of five lanes in chunks of two, three stop after the first epoch."""
    sizes: list[int] = []

    def stop(memory: Tensor, state: train.TrainState, numbers: Any) -> Any:
        return state.key[1] < 3, state

    monitor = train.Monitor(lambda state: torch.tensor(False), stop, lambda memory: memory)
    states = task.begin_many(5)
    states = states._replace(key=torch.tensor([[0, lane] for lane in range(5)]))
    real = torch.vmap

    def counted(fn: Any, *args: Any, **options: Any) -> Any:
        lanewise = real(fn, *args, **options)

        def call(*inputs: Any) -> Any:
            if fn.__name__ == "one":  # the step's
                sizes.append(len(inputs[0].count))
            return lanewise(*inputs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "vmap", counted)
        train.fit(
            task.step, states, task.data, epochs=2, monitors={"m": monitor}, chunk_size=2, **QUIET
        )
    assert sizes == [2] * 14 + [1] * 7 + [2] * 7


def test_a_frozen_lane_is_frozen_to_the_bit(task: Any, fit: Any) -> None:
    states: list[train.TrainState] = []
    fit(task.begin_many(5), callbacks=[lambda state, info: states.append(state)])
    stopped = [state.monitors["stop"].stopped for state in states]
    for before, after, frozen in zip(states, states[1:], stopped, strict=False):
        lanes = frozen.nonzero().flatten()
        picked = [tree.map(lambda leaf, at=lanes: leaf[at], s) for s in (before, after)]
        assert_equal(*picked)
    assert 0 < stopped[-2].sum() < 5


@pytest.mark.parametrize("lanes", [None, 3])
def test_resumed_is_uninterrupted(task: Any, fit: Any, lanes: int | None, tmp_path: Path) -> None:
    """Also through a file, and also when some lanes have already stopped."""
    begun = task.begin_many(lanes) if lanes else task.begin()
    whole, history = fit(begun)
    for cut in range(1, len(history["loss"])):

        def interrupt(state: train.TrainState, info: dict[str, Tensor], cut: int = cut) -> None:
            if info["epoch"] == cut:
                raise KeyboardInterrupt

        with pytest.warns(RuntimeWarning, match="interrupted"):
            part, first = fit(begun, callbacks=[interrupt])
        assert len(first["loss"]) == cut
        train.save(tmp_path / "part", part)
        resumed, rest = fit(train.load(tmp_path / "part", like=part))
        assert_equal(resumed, whole)
        torch.testing.assert_close(
            torch.cat([first["valid_loss"], rest["valid_loss"]]),
            history["valid_loss"],
            rtol=0,
            atol=0,
            equal_nan=True,
        )


def test_a_stopped_run_stays_stopped_until_the_monitor_goes(task: Any, fit: Any) -> None:
    state, _ = fit(task.begin())
    again, history = fit(state, epochs=100)
    assert_equal(again, state)
    assert history == {}
    further, history = train.fit(task.step, state, task.data, epochs=25, **QUIET)
    assert further.monitors == {}
    assert further.count == 25 * 7


def test_nan_does_not_count_as_better(task: Any) -> None:
    monitor = train.early_stopping("loss", patience=2, mode="max")
    memory, seen = run(monitor, [math.nan, 1.0, math.nan, math.nan])
    assert (seen, memory.best_count.item()) == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "`patience` must be at least 1, got 0"),
        ({"mode": "best"}, '`mode` must be "min" or "max", got \'best\''),
        ({"min_delta": -1.0}, "`min_delta` must be at least 0, got -1.0"),
        ({"min_delta": math.nan}, "`min_delta` must be at least 0, got nan"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train.early_stopping("loss", **options)


def test_an_unknown_number_is_named(task: Any) -> None:
    monitors = {"stop": train.early_stopping("val_loss")}
    with pytest.raises(ValueError, match=r"`metric` must be one of \[.*'loss'.*\], got 'val_loss'"):
        train.fit(task.step, task.begin(), task.data, epochs=2, monitors=monitors, **QUIET)
