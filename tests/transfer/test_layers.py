"""Which parameters: by type and by depth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fdnn import functionalize, transfer
from fdnn.nn import MLP


def chosen(model: Any, where: Any) -> set[str]:
    return {name for name in {**model.params, **model.buffers} if where(name, torch.zeros(()))}


def test_layers_in_order_of_definition(task: Any) -> None:
    groups = transfer.layers(task.model)
    assert list(groups) == ["0", "1", "3", "4", "6"]
    assert groups["1"] == (
        "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
    )  # fmt: skip
    assert groups == transfer.layers(transfer.freeze(task.model, "[013].*"))
    assert list(transfer.layers(functionalize(MLP(4, 5, 2, depth=2)))) == [
        "hidden.0.linear", "hidden.1.linear", "output",
    ]  # fmt: skip


def test_parametrized_and_adapted_weights_belong_to_their_layer() -> None:
    net = nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3, bias=False)), nn.Linear(3, 2)
    )
    model = transfer.lora(functionalize(net), 1, 1.0, "1.weight")
    assert transfer.layers(model) == {
        "0": ("0.parametrizations.weight.original0", "0.parametrizations.weight.original1"),
        "1": ("1.weight", "1.bias", "1.weight.lora_A", "1.weight.lora_B"),
    }


def test_a_model_of_one_layer() -> None:
    assert transfer.layers(functionalize(nn.Linear(2, 1))) == {"": ("weight", "bias")}


@pytest.mark.parametrize(("stop", "first"), [(1, "0"), (3, "013"), (5, "01346"), (-2, "013")])
def test_by_depth(task: Any, stop: int, first: str) -> None:
    everything = {**task.model.params, **task.model.buffers}
    where = transfer.by_depth(task.model, stop)
    assert chosen(task.model, where) == {name for name in everything if name[0] in first}


@pytest.mark.parametrize("stop", [0, 6, -5])
def test_depth_must_be_there(task: Any, stop: int) -> None:
    with pytest.raises(ValueError, match=rf"`stop` must be in 1 ... 5.*got {stop}"):
        transfer.by_depth(task.model, stop)


def test_by_type(task: Any) -> None:
    where = transfer.by_type(task.model, nn.BatchNorm1d)
    everything = {**task.model.params, **task.model.buffers}
    assert chosen(task.model, where) == {name for name in everything if name[0] in "14"}
    with pytest.raises(ValueError, match=r"`types`: the model has no tensor in a \['Conv2d'\]"):
        transfer.by_type(task.model, nn.Conv2d)


def test_by_type_sees_tied_parameters() -> None:
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    net[1].weight = net[0].weight
    model = functionalize(net)
    assert chosen(model, transfer.by_type(model, nn.Linear)) == {"0.weight"}
