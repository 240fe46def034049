"""A folder of checkpoints: what is kept, what is best, and writing in the background."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from asserts import assert_equal
from hypothesis import given
from hypothesis import strategies as st

from fdnn import metrics, train, tree
from fdnn.train import checkpoint_file, checkpoints

LIKE = {"n": torch.tensor(0)}


def state(n: int) -> dict[str, torch.Tensor]:
    return {"n": torch.tensor(n)}


METRICS = st.none() | st.sampled_from([float("nan"), float("inf"), -1.0, 0.0, 0.5, 2.0])


@given(
    found=st.lists(METRICS, min_size=1, max_size=7),
    keep_last=st.none() | st.integers(1, 3),
    keep_best=st.integers(0, 2),
    mode=st.sampled_from(["min", "max"]),
    asynchronous=st.booleans(),
)
def test_the_last_and_the_best_stay(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[float | None],
    keep_last: int | None,
    keep_best: int,
    mode: str,
    asynchronous: bool,
) -> None:
    folder = tmp_path_factory.mktemp("run") / "made" / "when needed"
    options: Any = {"keep_last": keep_last, "keep_best": keep_best, "mode": mode}
    kept = train.Checkpoints(folder, asynchronous=asynchronous, **options)
    assert kept.steps() == [] and kept.latest() is None and kept.best() is None
    wanted: list[int] = []
    for n, metric in enumerate(found):
        kept.save(state(n), n, metric)
        ranked = [i for i in [*wanted, n] if found[i] is not None and found[i] == found[i]]
        ranked.sort(key=lambda i: (found[i] if mode == "min" else -found[i], i))  # type: ignore
        last = [*wanted, n] if keep_last is None else [*wanted, n][-keep_last:]
        wanted = [i for i in [*wanted, n] if i in last or i in ranked[:keep_best]]
        assert kept.steps() == wanted
        best = next((kept.path(i) for i in ranked if i in wanted), None)
        assert kept.best() == best
    assert kept.load(LIKE) == state(len(found) - 1)
    again = train.Checkpoints(folder)  # the folder is all there is
    assert again.steps() == wanted
    assert again.latest() == kept.latest() == folder / f"{len(found) - 1:012}.safetensors"
    assert sorted(os.listdir(folder)) == [kept.path(i).name for i in wanted]


def test_no_step_back(tmp_path: Path) -> None:
    kept = train.Checkpoints(tmp_path)
    with pytest.raises(ValueError, match=r"`step` must be at least 0, .*, got -1"):
        kept.save(state(0), -1)
    kept.save(state(1), 7, torch.tensor(0.5))
    kept.save(state(2), 7)  # a step done once more
    assert kept.load(LIKE) == state(2)
    with pytest.raises(ValueError, match=r"must be at least 7, that of the latest .*, got 6"):
        kept.save(state(3), 6)


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no checkpoint in: '{tmp_path}'"):
        train.Checkpoints(tmp_path).load(LIKE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep_last": 0}, "`keep_last` must be at least 1 or None, got 0"),
        ({"keep_best": -1}, "`keep_best` must be at least 0, got -1"),
        ({"mode": "auto"}, '`mode` must be "min" or "max", got \'auto\''),
    ],
)
def test_options(tmp_path: Path, options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train.Checkpoints(tmp_path, **options)


def test_damaged_files_are_not_thrown_away(tmp_path: Path) -> None:
    kept = train.Checkpoints(tmp_path, keep_last=1)
    kept.save(state(0), 0, 0.1)
    kept.path(0).write_bytes(b"damaged")
    for n in (1, 2, 3):
        kept.save(state(n), n, 1.0)
    assert kept.steps() == [0, 1, 3]
    with pytest.raises(ValueError, match=r"000000000000\.safetensors' is no safetensors file"):
        kept.best()


def test_leftovers_and_strangers(tmp_path: Path) -> None:
    left, other = ".000000000004.safetensors.99-abc.tmp", "notes.safetensors"
    (tmp_path / left).write_bytes(b"half")
    (tmp_path / other).write_bytes(b"mine")
    kept = train.Checkpoints(tmp_path)
    assert kept.steps() == []
    kept.save(state(5), 5)
    assert sorted(os.listdir(tmp_path)) == ["000000000005.safetensors", other]


class Gate:
    """Holds every write up until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.event = threading.Event()
        monkeypatch.setattr(checkpoints, "write", self.write)

    def write(self, *args: Any) -> None:
        assert self.event.wait(10)
        checkpoint_file.write(*args)


def test_asynchronous_sees_the_state_as_it_was(
    tmp_path: Path, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    kept = train.Checkpoints(tmp_path, asynchronous=True)
    given = task.begin_many()
    before = tree.map(torch.clone, given)
    kept.save(given, 0)
    tree.map(lambda leaf: leaf.zero_(), given)  # as a step does to which it is donated
    assert os.listdir(tmp_path) == []
    gate.event.set()
    kept.wait()
    assert_equal(kept.load(given), before)


def test_asynchronous_error_is_raised_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = train.Checkpoints(tmp_path, asynchronous=True)
    kept.save(state(1), 1)
    kept.wait()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for later in (kept.wait, lambda: kept.save(state(3), 3), kept.latest, kept.steps, kept.best):
        monkeypatch.setattr(os, "replace", full)
        kept.save(state(2), 2)
        with pytest.raises(OSError, match="No space left on device; nothing was written"):
            later()
        monkeypatch.undo()
        assert kept.steps() == [1]  # told once, and nothing lost
    kept.save(state(2), 2)
    assert kept.load(LIKE) == state(2)


def test_from_within_fit(tmp_path: Path, task: Any) -> None:
    """As docs/checkpoints.md has it: `evaluate` sees every epoch's state."""
    kept = train.Checkpoints(tmp_path, mode="max", asynchronous=True)

    def evaluate(state: Any) -> Any:
        found = train.evaluate(task.model, state, task.data, {"accuracy": metrics.accuracy()})
        kept.save(state, int(state.count.max()), found["accuracy"].mean())
        return found

    def fit(begun: Any, epochs: int) -> Any:
        options: Any = {"batch_size": 8, "compile": False, "progress": False}
        return train.fit(task.step, begun, task.data, epochs=epochs, evaluate=evaluate, **options)[
            0
        ]

    whole = fit(task.begin_many(), 4)
    assert kept.steps()[-1] == 28
    assert_equal(kept.load(whole), whole)
    middle = train.load(kept.path(14), like=whole)
    kept = train.Checkpoints(tmp_path / "again")
    assert_equal(fit(middle, 4), whole)
    assert kept.steps() == [21, 28]
