"""`evaluate`: metrics of one state or of many, over tensors or loaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchmetrics
from torch.utils.data import DataLoader, TensorDataset

from fdnn import metrics, train, tree

MEASURES = {"accuracy": metrics.accuracy(), "log_loss": metrics.cross_entropy()}


def test_is_the_model_in_eval_mode(task: Any) -> None:
    state = task.begin()
    output, _ = task.model.apply(state.params, state.buffers, task.inputs)
    found = train.evaluate(task.model, state, task.data, MEASURES, batch_size=7)
    torch.testing.assert_close(found["accuracy"], (output.argmax(1) == task.targets).float().mean())
    torch.testing.assert_close(
        found["log_loss"], torch.nn.functional.cross_entropy(output, task.targets)
    )


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_lanes_are_solo(task: Any, batch_size: int) -> None:
    many = train.evaluate(
        task.model, task.begin_many(3), task.data, MEASURES, batch_size=batch_size
    )
    solo = [train.evaluate(task.model, task.begin(i), task.data, MEASURES) for i in range(3)]
    for name, values in many.items():
        torch.testing.assert_close(values, tree.stack(solo)[name], rtol=1e-5, atol=1e-6)


def test_loader_and_tensors_agree(task: Any) -> None:
    loader = DataLoader(TensorDataset(*task.data), batch_size=9)
    for state in (task.begin(), task.begin_many(2)):
        found = train.evaluate(task.model, state, loader, MEASURES)
        wanted = train.evaluate(task.model, state, task.data, MEASURES)
        torch.testing.assert_close(found, wanted)


def test_torchmetrics_measure_a_single_run(task: Any) -> None:
    confusion = torchmetrics.ConfusionMatrix(task="multiclass", num_classes=3)
    measured = {"confusion": metrics.from_torchmetrics(confusion)} | MEASURES
    found = train.evaluate(task.model, task.begin(), task.data, measured, batch_size=8)
    assert found["confusion"].sum() == 50
    right = found["confusion"].diagonal().sum() / 50
    torch.testing.assert_close(found["accuracy"], right)


def test_torchmetrics_measure_each_lane(task: Any) -> None:
    measured = {
        "confusion": torchmetrics.ConfusionMatrix(task="multiclass", num_classes=3),
        "auroc": torchmetrics.AUROC(task="multiclass", num_classes=3),
    }
    measured = {name: metrics.from_torchmetrics(metric) for name, metric in measured.items()}
    many = train.evaluate(task.model, task.begin_many(3), task.data, measured, batch_size=8)
    assert many["confusion"].shape == (3, 3, 3)
    for lane in range(3):
        alone = train.evaluate(task.model, task.begin(lane), task.data, measured, batch_size=8)
        assert torch.equal(many["confusion"][lane], alone["confusion"])
        torch.testing.assert_close(many["auroc"][lane], alone["auroc"], rtol=1e-5, atol=1e-6)


def test_nothing_to_measure(task: Any) -> None:
    with pytest.raises(ValueError, match="`metrics` must hold at least one"):
        train.evaluate(task.model, task.begin(), task.data, {})
    with pytest.raises(ValueError, match="`data` must hold at least one batch"):
        train.evaluate(task.model, task.begin(), [], MEASURES)
    none = tuple(part[:0] for part in task.data)
    with pytest.raises(ValueError, match="`data` must hold at least one example, got none"):
        train.evaluate(task.model, task.begin(), none, MEASURES)
