"""What `fit` calls between epochs: monitors, checkpoints, callbacks; and what an error leaves."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_equal
from torch import Tensor, nn

from fdnn import functionalize, metrics, optim, random, train
from fdnn.train import checkpoint_file

QUIET: dict[str, Any] = {"batch_size": 8, "compile": False, "progress": False}


def test_callbacks_see_state_and_numbers(task: Any) -> None:
    seen: list[tuple[int, dict[str, Tensor]]] = []
    callbacks = [lambda state, info: seen.append((int(state.count), info))] * 2
    _, history = train.fit(
        task.step, task.begin(), task.data, epochs=3, callbacks=callbacks, **QUIET
    )
    assert [count for count, _ in seen] == [7, 7, 14, 14, 21, 21]
    assert [int(info["epoch"]) for _, info in seen] == [1, 1, 2, 2, 3, 3]
    for name, column in history.items():
        assert torch.equal(torch.stack([info[name] for _, info in seen[::2]]), column)
    assert "epoch" not in history


def test_a_callback_ends_training_by_true_alone(task: Any) -> None:
    for answer, epochs in ((True, 2), (1, 4), (None, 4)):
        state, history = train.fit(
            task.step,
            task.begin(),
            task.data,
            epochs=4,
            callbacks=[lambda state, info, a=answer: a if info["epoch"] == 2 else None],
            **QUIET,
        )
        assert len(history["loss"]) == epochs
        assert state.count == 7 * epochs


def test_a_monitor_may_change_the_state(task: Any) -> None:
    """One that halves the rate each epoch, and remembers how often."""

    def halve(memory: Tensor, state: train.TrainState, numbers: Any) -> Any:
        lr = state.opt_state.hyperparams["lr"] / 2
        changed = optim.set_hyperparams(state.opt_state, lr=lr)
        return memory + 1, state._replace(opt_state=changed)

    monitor = train.Monitor(lambda state: torch.zeros_like(state.count), halve)
    for begun in (task.begin(), task.begin_many(2)):
        state, history = train.fit(
            task.step, begun, task.data, epochs=3, monitors={"halve": monitor}, **QUIET
        )
        lr = history["lr"].reshape(3, -1)[:, 0]
        torch.testing.assert_close(lr, 0.05 / 2 ** torch.arange(3, dtype=lr.dtype))
        assert (state.monitors["halve"] == 3).all()


@pytest.mark.parametrize("lanes", [None, 3])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_checkpoints_resume(
    task: Any, lanes: int | None, asynchronous: bool, tmp_path: Path
) -> None:
    """The same call again, after a death in epoch 4: monitors and all."""
    measure = train.evaluator(task.model, {"loss": metrics.cross_entropy()}, valid=task.data)
    begun = task.begin_many(lanes) if lanes else task.begin()

    def fit(step: Any, folder: Path) -> Any:
        checkpoints = train.Checkpoints(folder, metric="valid_loss", asynchronous=asynchronous)
        return train.fit(
            step,
            begun,
            task.data,
            epochs=6,
            evaluate=measure,
            monitors={"stop": train.early_stopping("valid_loss", patience=5)},
            checkpoints=checkpoints,
            **QUIET,
        )

    calls = 0

    def dying(state: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 24:
            raise ZeroDivisionError
        return task.step(state, batch)

    whole, history = fit(task.step, tmp_path / "whole")
    with pytest.raises(ZeroDivisionError):
        fit(dying, tmp_path / "cut")
    resumed, rest = fit(task.step, tmp_path / "cut")
    assert_equal(resumed, whole)
    assert_equal(rest, history)
    kept = train.Checkpoints(tmp_path / "cut")
    best = int(history["valid_loss"].reshape(6, -1).mean(1).argmin())
    assert kept.best() == kept.path(7 * (best + 1))


def test_the_history_begins_where_its_numbers_do(task: Any, tmp_path: Path) -> None:
    """After a change of what is measured, older epochs and newer do not fit in one table."""
    options = {"checkpoints": train.Checkpoints(tmp_path)} | QUIET
    train.fit(task.step, task.begin(), task.data, epochs=2, **options)
    _, history = train.fit(
        task.step,
        task.begin(),
        task.data,
        epochs=5,
        evaluate=lambda state: {"new": state.count},
        **options,
    )
    assert history["new"].tolist() == [21, 28, 35]
    _, history = train.fit(task.step, task.begin(), task.data, epochs=5, **options)
    assert len(history["loss"]) == 3


def test_checkpoints_of_other_runs_are_refused(task: Any, tmp_path: Path) -> None:
    options = {"epochs": 1, "checkpoints": train.Checkpoints(tmp_path)} | QUIET
    train.fit(task.step, task.begin(0), task.data, **options)
    with pytest.raises(ValueError, match="must be empty or hold the runs of `state`"):
        train.fit(task.step, task.begin(1), task.data, **options)


def test_a_full_disk_loses_nothing(
    task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, history = train.fit(task.step, task.begin(), task.data, epochs=2, **QUIET)
    checkpoints = train.Checkpoints(tmp_path)
    real = checkpoint_file.os.fsync

    def fsync(file: int) -> None:
        if list(tmp_path.glob("*7.safetensors")) and list(tmp_path.glob(".*.tmp")):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(checkpoint_file.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left") as seen:
        train.fit(task.step, task.begin(), task.data, epochs=5, checkpoints=checkpoints, **QUIET)
    monkeypatch.undo()
    assert_equal(seen.value.state, wanted)  # type: ignore[attr-defined]
    assert_equal(seen.value.history, history)  # type: ignore[attr-defined]
    assert checkpoints.steps() == [7]
    whole, _ = train.fit(task.step, task.begin(), task.data, epochs=5, **QUIET)
    resumed, _ = train.fit(
        task.step, task.begin(), task.data, epochs=5, checkpoints=checkpoints, **QUIET
    )
    assert_equal(resumed, whole)


def test_a_loader_that_raises_loses_nothing(task: Any) -> None:
    batches = list(zip(*(part.split(8) for part in task.data), strict=True))
    wanted, history = train.fit(task.step, task.begin(), batches, epochs=2, **QUIET)

    class Loader:
        passes = 0

        def __len__(self) -> int:
            return 7

        def __iter__(self) -> Any:
            self.passes += 1
            for number, batch in enumerate(batches):
                if self.passes == 3 and number == 4:
                    raise OSError("the file is gone")
                yield batch

    with pytest.raises(OSError, match="the file is gone") as seen:
        train.fit(task.step, task.begin(), Loader(), epochs=5, **QUIET)
    assert_equal(seen.value.state, wanted)  # type: ignore[attr-defined]
    assert_equal(seen.value.history, history)  # type: ignore[attr-defined]
    notes = "\n".join(seen.value.__notes__)
    assert "epoch 2, batch 4 (counted from 0)" in notes
    assert "`state` is that after 14 steps" in notes
    resumed, _ = train.fit(task.step, seen.value.state, batches, epochs=5, **QUIET)  # type: ignore[attr-defined]
    whole, _ = train.fit(task.step, task.begin(), batches, epochs=5, **QUIET)
    assert_equal(resumed, whole)


@pytest.mark.parametrize(("lanes", "compile"), [(None, False), (2, False), (2, True)])
def test_labels_out_of_range_are_told(task: Any, lanes: int | None, compile: bool) -> None:
    model, tx = functionalize(nn.Linear(5, 3)), optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    keys = random.split(random.key(0), 2)
    begin = torch.vmap(lambda key: train.init(model, tx, key))
    state = begin(keys) if lanes else train.init(model, tx, keys[0])
    data = task.inputs, torch.full_like(task.targets, 7)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds") as seen:
        train.fit(step, state, data, epochs=1, **QUIET | {"compile": compile})
    assert "from 7 to 7" in "\n".join(seen.value.__notes__)


def test_wrong_dtypes_are_told(task: Any) -> None:
    with pytest.raises(RuntimeError) as seen:
        train.fit(task.step, task.begin(), (task.inputs.double(), task.targets), epochs=1, **QUIET)
    notes = "\n".join(seen.value.__notes__)
    assert "Batch: float64 (8, 5), int64 (8,) from 0 to 2. Parameters: float32" in notes


@pytest.mark.parametrize("lanes", [None, 2])
def test_one_row_and_batch_norm(lanes: int | None) -> None:
    model, tx = functionalize(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))), optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(model, F.mse_loss), tx)
    keys = random.split(random.key(0), 2)
    begin = torch.vmap(lambda key: train.init(model, tx, key))
    state = begin(keys) if lanes else train.init(model, tx, keys[0])
    data = torch.ones(9, 3), torch.ones(9, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel") as seen:
        train.fit(step, state, data, epochs=1, **QUIET)
    assert "epoch 0, batch 1" in "\n".join(seen.value.__notes__)
    assert ("float32 (2, 1, 3)" if lanes else "float32 (1, 3)") in "\n".join(seen.value.__notes__)
