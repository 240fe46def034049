"""NaN and infinity in data, loss and gradient: stop, report, skip."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from torch import Tensor, nn

from fdnn import functionalize, optim, random, train, tree

QUIET: dict[str, Any] = {"batch_size": 8, "compile": False, "progress": False}


def spoiled(task: Any, row: int = 17, value: float = torch.nan) -> tuple[Tensor, Tensor]:
    inputs = task.inputs.clone()
    inputs[row, 2] = value
    return inputs, task.targets


def batch_of(key: Tensor, row: int, epoch: int = 0) -> int:
    """In which batch of an epoch a run comes to a row."""
    return int((train.epoch_order(key, epoch, 50) == row).nonzero()) // 8


@pytest.mark.parametrize("steps_per_call", [1, 3])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_stop_names_the_batch_and_the_place(task: Any, steps_per_call: int, value: float) -> None:
    state = task.begin()
    batch = batch_of(state.key, 17)
    expected = f"epoch 0, batch {batch}: `loss` is nan, and `data.0[17, 2]` is {value} "
    with pytest.raises(FloatingPointError, match=re.escape(expected)):
        train.fit(
            task.step,
            state,
            spoiled(task, value=value),
            epochs=1,
            steps_per_call=steps_per_call,
            **QUIET,
        )


def test_stop_names_the_lane(task: Any) -> None:
    """Of chunks, the first; of the lanes in it, the first of those that are first to fail."""
    states = task.begin_many(4)
    batches = [batch_of(key, 17) for key in states.key]
    first = min(range(2), key=lambda lane: batches[lane])
    with pytest.raises(
        FloatingPointError, match=rf"batch {batches[first]}: `loss` of lane {first}"
    ):
        train.fit(task.step, states, spoiled(task), epochs=1, chunk_size=2, **QUIET)
    states.params["0.weight"][3, 1, 1] = torch.inf
    expected = r"before the first batch: `params.0.weight` of lane 3 is inf"
    with pytest.raises(FloatingPointError, match=expected):
        train.fit(task.step, states, task.data, epochs=1, chunk_size=2, **QUIET)


def test_stop_sees_a_bad_gradient_in_the_last_step() -> None:
    """The loss is finite, its gradient is not: the square root at 0."""
    model = functionalize(nn.Linear(1, 1, bias=False))
    tx = optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(model, lambda out, y: (out * y).abs().sum().sqrt()), tx)
    state = train.init(model, tx, random.key(0))
    data = torch.tensor([[1.0], [0.0], [1.0]]), torch.ones(3, 1)
    batch = int((train.epoch_order(state.key, 0, 3) == 1).nonzero())
    expected = rf"epoch 0, batch {batch}: `params.weight` is nan, though the batch is finite"
    with pytest.raises(FloatingPointError, match=expected):
        train.fit(step, state, data, epochs=1, **QUIET | {"batch_size": 1})


def test_stop_keeps_what_there_was(task: Any) -> None:
    """The error has the state of the last whole epoch, and the history."""
    batches = list(zip(*(part.split(8) for part in task.data), strict=True))
    bad = [(inputs * torch.nan, targets) for inputs, targets in batches]

    class Loader:
        passes = 0

        def __len__(self) -> int:
            return 7

        def __iter__(self) -> Any:
            self.passes += 1
            return iter(bad if self.passes > 2 else batches)

    wanted, numbers = train.fit(task.step, task.begin(), batches, epochs=2, **QUIET)
    with pytest.raises(
        FloatingPointError, match=r"epoch 2, batch 0: .*`batch.0\[0, 0\]` is"
    ) as seen:
        train.fit(task.step, task.begin(), Loader(), epochs=4, **QUIET)
    assert_equal(seen.value.state, wanted)  # type: ignore[attr-defined]
    assert_equal(seen.value.history, numbers)  # type: ignore[attr-defined]


def test_stop_looks_while_the_epoch_runs(task: Any) -> None:
    """Not only at its end, which may be days away."""
    taken = 0

    class Loader:
        def __len__(self) -> int:
            return 10_000

        def __iter__(self) -> Any:
            nonlocal taken
            for _ in range(10_000):
                taken += 1
                yield task.inputs[:2] * torch.nan, task.targets[:2]

    with pytest.raises(FloatingPointError, match="epoch 0, batch 0"):
        train.fit(task.step, task.begin(), Loader(), epochs=1, **QUIET)
    assert taken < 200


def test_stop_minds_only_lanes_that_run(task: Any) -> None:
    """A lane that has stopped may do what it likes with its discarded steps."""

    def stop(memory: Tensor, state: Any, numbers: Any) -> Any:
        return state.key[1] == 1, state

    monitor = train.Monitor(lambda state: torch.tensor(False), stop, lambda memory: memory)

    def step(state: train.TrainState, batch: Any) -> Any:
        new, info = task.step(state, batch)
        bad = (state.key[1] == 1) & (state.count >= 7)
        return new, {"loss": torch.where(bad, torch.nan, info["loss"])}

    states = task.begin_many(3)._replace(key=torch.tensor([[0, 0], [0, 1], [0, 2]]))
    found, history = train.fit(step, states, task.data, epochs=3, monitors={"m": monitor}, **QUIET)
    assert found.count.tolist() == [21, 7, 21]
    assert history["loss"].isnan().tolist() == [[False] * 3] + [[False, True, False]] * 2


@pytest.mark.parametrize("lanes", [None, 3])
def test_skip_leaves_the_step_out(task: Any, lanes: int | None) -> None:
    state = task.begin_many(lanes) if lanes else task.begin()
    found, history = train.fit(task.step, state, spoiled(task), epochs=2, nonfinite="skip", **QUIET)
    assert (history["skipped"] == 1).all()
    assert history["loss"].isfinite().all()
    for lane in range(lanes or 1):
        wanted = begun = task.begin(lane)
        losses = []
        for epoch in range(2):
            bad = batch_of(begun.key, 17, epoch)
            for number, index in enumerate(train.epoch_order(begun.key, epoch, 50).split(8)):
                if number == bad:
                    wanted = wanted._replace(count=wanted.count + 1)
                    continue
                wanted, info = task.step(wanted, (task.inputs[index], task.targets[index]))
                losses.append(info["loss"])
        own = tree.map(lambda leaf, i=lane: leaf[i], found) if lanes else found
        assert_close(own, wanted, rtol=1e-4, atol=1e-5)
        mean = torch.stack(losses).reshape(2, 6).mean(1)
        own_loss = history["loss"][:, lane] if lanes else history["loss"]
        torch.testing.assert_close(own_loss, mean, rtol=1e-4, atol=1e-5)


def test_skip_changes_nothing_where_all_is_finite(task: Any) -> None:
    wanted, numbers = train.fit(task.step, task.begin_many(), task.data, epochs=2, **QUIET)
    found, history = train.fit(
        task.step, task.begin_many(), task.data, epochs=2, nonfinite="skip", **QUIET
    )
    assert_equal(found, wanted)
    assert (history.pop("skipped") == 0).all()
    assert_equal(history, numbers)


def test_skip_compiled(task: Any) -> None:
    options = {"epochs": 1, "nonfinite": "skip"} | QUIET
    wanted, _ = train.fit(task.step, task.begin_many(2), spoiled(task), **options)
    found, history = train.fit(
        task.step, task.begin_many(2), spoiled(task), **options | {"compile": True}
    )
    assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (history["skipped"] == 1).all()


def test_report_warns_once_and_goes_on(task: Any) -> None:
    states = task.begin_many(3)
    states.params["0.weight"][1, 0, 0] = torch.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, history = train.fit(
            task.step, states, task.data, epochs=3, nonfinite="report", **QUIET
        )
    assert [str(w.message) for w in caught] == [
        "epoch 0: parameters of lanes [1] are not finite any more"
    ]
    assert found.count.tolist() == [21] * 3
    assert history["loss"].isnan().tolist() == [[False, True, False]] * 3
    for lane in (0, 2):
        alone, _ = train.fit(task.step, task.begin(lane), task.data, epochs=3, **QUIET)
        own = tree.map(lambda leaf, i=lane: leaf[i], found)
        assert_close(own.params, alone.params, rtol=1e-4, atol=1e-5)


def test_infinite_buffers_are_fine() -> None:
    """Such as a causal mask."""

    model, tx = functionalize(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))), optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(model, F.mse_loss), tx)
    state = train.init(model, tx, random.key(0))
    state = state._replace(buffers={"mask": torch.tensor([0.0, -torch.inf])})

    def with_mask(state: train.TrainState, batch: Any) -> Any:
        new, info = step(state._replace(buffers={}), batch)
        return new._replace(buffers=state.buffers), info

    data = torch.ones(4, 3), torch.ones(4, 1)
    for nonfinite in ("stop", "skip"):
        found, _ = train.fit(with_mask, state, data, epochs=2, nonfinite=nonfinite, **QUIET)
        assert not torch.equal(found.params["0.weight"], state.params["0.weight"])


def test_an_unknown_policy(task: Any) -> None:
    with pytest.raises(ValueError, match=r"`nonfinite` must be one of .*'skip'\), got 'ignore'"):
        train.fit(task.step, task.begin(), task.data, epochs=1, nonfinite="ignore", **QUIET)
