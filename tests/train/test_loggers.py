"""The callbacks that write: CSV lines and TensorBoard curves equal the history."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from fdnn import metrics, train

QUIET: dict[str, Any] = {"batch_size": 8, "compile": False, "progress": False}


def fit(task: Any, state: Any, log: Any, epochs: int = 3) -> Any:
    measures = {"accuracy": metrics.accuracy()}
    return train.fit(
        task.step,
        state,
        task.data,
        epochs=epochs,
        evaluate=train.evaluator(task.model, measures, valid=task.data),
        callbacks=[log],
        **QUIET,
    )


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_of_one_run(task: Any, tmp_path: Path) -> None:
    path = tmp_path / "made" / "history.csv"
    _, history = fit(task, task.begin(), train.csv_logger(path))
    lines = read(path)
    assert next(iter(lines[0])) == "epoch"
    assert [line.pop("epoch") for line in lines] == ["1", "2", "3"]
    assert {name: [float(line[name]) for line in lines] for name in lines[0]} == {
        name: column.tolist() for name, column in history.items()
    }


def test_csv_of_many_runs(task: Any, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    _, history = fit(task, task.begin_many(2), train.csv_logger(path))
    lines = read(path)
    assert [(line["epoch"], line["lane"]) for line in lines] == [
        (epoch, lane) for epoch in "123" for lane in "01"
    ]
    found = torch.tensor([float(line["valid_accuracy"]) for line in lines])
    torch.testing.assert_close(found.reshape(3, 2), history["valid_accuracy"])


def test_csv_goes_on_with_each_epoch_once(task: Any, tmp_path: Path) -> None:
    """The second process resumes after epoch 1, the first had written two."""
    once, twice = tmp_path / "once.csv", tmp_path / "twice.csv"
    fit(task, task.begin(), train.csv_logger(once), epochs=4)
    middle, _ = fit(task, task.begin(), lambda state, info: None, epochs=1)
    fit(task, task.begin(), train.csv_logger(twice), epochs=2)
    fit(task, middle, train.csv_logger(twice), epochs=4)
    assert once.read_text() == twice.read_text()


def test_csv_does_not_touch_another_file(task: Any, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("name,value\na,1\n")
    with pytest.raises(ValueError, match=r"history.csv must have the columns \['epoch', .* got"):
        fit(task, task.begin(), train.csv_logger(path))
    assert path.read_text() == "name,value\na,1\n"


def test_csv_wants_numbers(tmp_path: Path) -> None:
    log = train.csv_logger(tmp_path / "history.csv")
    with pytest.raises(ValueError, match=r"one number for each lane, got shapes \{.*\(2, 2\)"):
        log(None, {"epoch": torch.tensor(1), "a": torch.ones(2), "b": torch.ones(2, 2)})  # type: ignore[arg-type]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_of_one_run(task: Any, tmp_path: Path) -> None:
    _, history = fit(task, task.begin(), train.tensorboard_logger(tmp_path))
    found = curves(tmp_path)
    assert found.keys() == history.keys()
    for name, column in history.items():
        assert [step for step, _ in found[name]] == [1, 2, 3]
        torch.testing.assert_close(
            torch.tensor([value for _, value in found[name]]), column.float()
        )


def test_tensorboard_of_many_runs(task: Any, tmp_path: Path) -> None:
    _, history = fit(task, task.begin_many(3), train.tensorboard_logger(tmp_path))
    found = curves(tmp_path)
    for name, over_lanes in {"mean": torch.mean, "min": torch.amin, "max": torch.amax}.items():
        values = torch.tensor([value for _, value in found[f"loss/{name}"]])
        torch.testing.assert_close(values, over_lanes(history["loss"], dim=1))
