"""`fit`: many ways to the same result; interruption, resumption, history."""

from __future__ import annotations

import functools
from typing import Any

import asserts
import pytest
import torch
import torch.nn.functional as F
from asserts import assert_equal
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fdnn import functionalize, metrics, optim, random, train, tree

QUIET: dict[str, Any] = {"batch_size": 8, "compile": False, "progress": False}


assert_close = functools.partial(asserts.assert_close, rtol=1e-4, atol=1e-5)


def test_is_the_loop_one_would_write(task: Any) -> None:
    state = wanted = task.begin()
    losses = []
    for epoch in range(2):
        for index in train.epoch_order(state.key, epoch, 50).split(8):
            wanted, info = task.step(wanted, (task.inputs[index], task.targets[index]))
            losses.append(info["loss"])
    before, generator = tree.map(torch.clone, state), torch.get_rng_state()
    found, history = train.fit(task.step, state, task.data, epochs=2, **QUIET)
    assert_equal(found, wanted)
    assert_equal(state, before)
    assert torch.equal(torch.get_rng_state(), generator)
    torch.testing.assert_close(history["loss"], torch.stack(losses).reshape(2, 7).mean(1))


def test_fewer_examples_than_a_batch_are_one_step_an_epoch(task: Any) -> None:
    """20 images in batches of 32: the chapter's 20 epochs are 20 steps, each on all images."""
    few = tuple(part[:20] for part in task.data)
    alone = functionalize(nn.Linear(5, 3))
    tx = optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(alone, F.cross_entropy), tx)
    state = wanted = train.init(alone, tx, random.key(0))
    found, _ = train.fit(step, state, few, epochs=20, **QUIET | {"batch_size": 32})
    for _ in range(20):
        wanted, _ = step(wanted, few)
    assert found.count == 20
    assert_close(found.params, wanted.params)


def test_learns(task: Any) -> None:
    state, history = train.fit(task.step, task.begin(), task.data, epochs=30, **QUIET)
    accuracy = train.evaluate(task.model, state, task.data, {"a": metrics.accuracy()})["a"]
    assert accuracy > 0.8  # a third by chance
    assert history["loss"][-1] < 0.8 * history["loss"][0]


def test_lanes_are_solo_fits(task: Any) -> None:
    many, history = train.fit(task.step, task.begin_many(3), task.data, epochs=2, **QUIET)
    solo = [train.fit(task.step, task.begin(i), task.data, epochs=2, **QUIET) for i in range(3)]
    assert_close(many, tree.stack([state for state, _ in solo]))
    assert_close(history, tree.stack([history for _, history in solo], dim=1))


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 8])
@pytest.mark.parametrize("steps_per_call", [1, 3, 100])
def test_chunks_and_calls_change_nothing(task: Any, chunk_size: int, steps_per_call: int) -> None:
    wanted = train.fit(task.step, task.begin_many(), task.data, epochs=2, **QUIET)
    found = train.fit(
        task.step,
        task.begin_many(),
        task.data,
        epochs=2,
        chunk_size=chunk_size,
        steps_per_call=steps_per_call,
        **QUIET,
    )
    assert_close(found, wanted)


def test_compiled_is_eager(task: Any) -> None:
    wanted = train.fit(task.step, task.begin_many(4), task.data, epochs=3, **QUIET)
    found = train.fit(
        task.step,
        task.begin_many(4),
        task.data,
        epochs=3,
        chunk_size=2,
        steps_per_call=2,
        **QUIET | {"compile": True},
    )
    assert_close(found, wanted)


@pytest.mark.parametrize("lanes", [None, 2])
@pytest.mark.parametrize("steps", [3, 7, 9])
def test_goes_on_from_any_step(task: Any, lanes: int | None, steps: int) -> None:
    """Seven steps make an epoch: before, at and after its end."""
    begun = task.begin_many(lanes) if lanes else task.begin()
    whole, history = train.fit(task.step, begun, task.data, epochs=3, **QUIET)
    part, taken = begun, 0
    step = torch.vmap(task.step) if lanes else task.step
    for epoch in range(3):
        order = (
            torch.vmap(train.epoch_order, in_dims=(0, None, None)) if lanes else train.epoch_order
        )
        for index in order(begun.key, epoch, 50).split(8, dim=-1):
            if taken < steps:
                part, _ = step(part, (task.inputs[index], task.targets[index]))
                taken += 1
    resumed, rest = train.fit(task.step, part, task.data, epochs=3, **QUIET)
    assert_equal(resumed, whole)
    assert torch.equal(rest["loss"][-1], history["loss"][-1])
    assert len(rest["loss"]) == 3 - steps // 7


def test_nothing_to_do(task: Any) -> None:
    state, _ = train.fit(task.step, task.begin(), task.data, epochs=1, **QUIET)
    again, history = train.fit(task.step, state, task.data, epochs=1, **QUIET)
    assert_equal(again, state)
    assert history == {}


def test_interruption_returns_the_last_whole_epoch(task: Any) -> None:
    wanted, _ = train.fit(task.step, task.begin(), task.data, epochs=2, **QUIET)
    calls = 0

    def step(state: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 18:  # in the third epoch
            raise KeyboardInterrupt
        return task.step(state, batch)

    with pytest.warns(RuntimeWarning, match="interrupted: returning the state after 14 steps"):
        state, history = train.fit(step, task.begin(), task.data, epochs=5, **QUIET)
    assert_equal(state, wanted)
    assert history["loss"].shape == (2,)
    whole, _ = train.fit(task.step, task.begin(), task.data, epochs=5, **QUIET)
    assert_equal(train.fit(task.step, state, task.data, epochs=5, **QUIET)[0], whole)


def test_evaluation_enters_the_history(task: Any) -> None:
    seen = []

    def evaluate(state: Any) -> dict[str, Tensor]:
        seen.append(state.count.tolist())
        return train.evaluate(task.model, state, task.data, {"accuracy": metrics.accuracy()})

    state, history = train.fit(
        task.step, task.begin_many(3), task.data, epochs=2, evaluate=evaluate, **QUIET
    )
    assert seen == [[7] * 3, [14] * 3]
    assert history["accuracy"].shape == history["loss"].shape == history["lr"].shape == (2, 3)
    assert torch.equal(history["accuracy"][-1], evaluate(state)["accuracy"])


@pytest.mark.parametrize("lanes", [None, 2])
def test_data_loader(task: Any, lanes: int | None) -> None:
    loader = DataLoader(TensorDataset(*task.data), batch_size=8)
    begun = task.begin_many(lanes) if lanes else task.begin()
    found, history = train.fit(task.step, begun, loader, epochs=2, **QUIET)
    step = torch.vmap(task.step, in_dims=(0, None)) if lanes else task.step
    wanted = begun
    for _ in range(2):
        for batch in zip(*(part.split(8) for part in task.data), strict=True):
            wanted, _ = step(wanted, batch)
    assert_equal(found, wanted)
    assert len(history["loss"]) == 2


def test_mapping_batches() -> None:
    """Keyword inputs by a loader of dicts, as text pipelines give."""
    model = functionalize(nn.Linear(2, 1))
    tx = optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(model, F.mse_loss), tx)
    batches = [({"input": torch.ones(3, 2)}, torch.zeros(3, 1))] * 4
    state, history = train.fit(
        step, train.init(model, tx, random.key(0)), batches, epochs=3, **QUIET
    )
    assert state.count == 12
    assert history["loss"][-1] < history["loss"][0]


def test_progress_bar_shows_and_goes(task: Any, capsys: pytest.CaptureFixture[str]) -> None:
    train.fit(task.step, task.begin(), task.data, epochs=1, **QUIET | {"progress": True})
    train.fit(task.step, task.begin(), task.data, epochs=1, **QUIET)
    assert "error" not in capsys.readouterr().err.lower()


@pytest.mark.parametrize("name", ["epochs", "batch_size", "chunk_size", "steps_per_call"])
def test_sizes_must_be_positive(task: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        train.fit(task.step, task.begin(), task.data, **{"epochs": 1, **QUIET, name: 0})


def test_data_must_be_data(task: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`data` must hold tensors of one length above 0, got \[4, 50\]"
    ):
        train.fit(task.step, task.begin(), (task.inputs, task.targets[:4]), epochs=1, **QUIET)
    with pytest.raises(ValueError, match=r"above 0, got \[0\]"):
        train.fit(task.step, task.begin(), (task.inputs[:0], task.targets[:0]), epochs=1, **QUIET)
    with pytest.raises(TypeError, match=r"sized iterable of batches .*got generator"):
        train.fit(task.step, task.begin(), (b for b in [task.data]), epochs=1, **QUIET)


def test_lanes_must_be_equally_far(task: Any) -> None:
    state = task.begin_many(2)._replace(count=torch.tensor([0, 7]))
    with pytest.raises(ValueError, match="`state` must have one count of steps in all lanes"):
        train.fit(task.step, state, task.data, epochs=1, **QUIET)
