"""`load_params`: weights from torch and from hubs, and what is said of those that do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from asserts import assert_equal
from torch import Tensor, nn

from fdnn import functionalize, random, train


class Net(nn.Module):
    """Tied weights, running statistics, a buffer that no `state_dict` has."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(x))) * self.scale


@pytest.fixture
def trained() -> Net:
    net = Net()
    net(torch.arange(7))
    return net


@pytest.mark.parametrize("way", ["state_dict", "save_model", "save_file", "train.save"])
def test_weights_arrive(tmp_path: Path, trained: Net, way: str) -> None:
    model, path = functionalize(Net()), tmp_path / "x.safetensors"
    source: Any = str(path)
    if way == "state_dict":
        source = trained.state_dict()
    elif way == "save_model":  # as hubs do: one name of the tied, and it chooses which
        safetensors.torch.save_model(trained, source)
    elif way == "save_file":
        safetensors.torch.save_file({k: v.clone() for k, v in trained.state_dict().items()}, source)
    else:
        theirs = functionalize(trained)
        train.save(path, {**theirs.params, **theirs.buffers})
    found = train.load_params(source, model)
    assert (found.missing, found.unexpected, found.mismatched) == ([], [], {})
    assert_equal(found.params, {n: p.detach() for n, p in trained.named_parameters()})
    assert_equal(found.buffers, dict(trained.named_buffers()))
    x = torch.arange(7)
    expected = trained.eval()(x)
    torch.testing.assert_close(model.apply(found.params, found.buffers, x)[0], expected)
    found.params["embedding.weight"].zero_()  # memory of its own
    assert trained.embedding.weight.any()
    assert model.params["embedding.weight"].any()


def test_either_name_of_a_tied_tensor(trained: Net) -> None:
    for left_out in ("head.weight", "embedding.weight"):
        source = {k: v for k, v in trained.state_dict().items() if k != left_out}
        found = train.load_params(source, functionalize(Net()))
        assert torch.equal(found.params["embedding.weight"], trained.embedding.weight)


def test_tied_tensors_that_differ(trained: Net) -> None:
    source = trained.state_dict() | {"head.weight": torch.zeros(7, 4)}
    said = "expected the value of 'embedding.weight', to which the model ties it, found another"
    with pytest.raises(ValueError, match=said):
        train.load_params(source, functionalize(Net()))


def test_the_models_dtype(trained: Net) -> None:
    source = {k: v.to(torch.float16) for k, v in trained.state_dict().items() if v.ndim}
    source["norm.num_batches_tracked"] = torch.tensor(3)
    found = train.load_params(source, functionalize(Net().double()))
    assert found.params["head.bias"].dtype == torch.float64
    assert torch.equal(found.params["head.bias"], source["head.bias"].double())
    assert found.buffers["norm.num_batches_tracked"] == 3


def test_what_does_not_fit(trained: Net, tmp_path: Path) -> None:
    source: dict[str, Any] = dict(trained.state_dict())
    del source["norm.bias"]
    source |= {"head.bias": torch.ones(9), "classifier.bias": torch.ones(2), "norm.weight": 3.0}
    model = functionalize(Net())
    wrong = {
        "norm.weight": "expected a tensor, found a float",
        "head.bias": "expected shape (7,), found (9,)",
    }
    said = f"missing ['norm.bias'], unexpected ['classifier.bias'], mismatched {wrong}"
    with pytest.raises(ValueError, match=re.escape(f"`source` does not fit the model: {said}")):
        train.load_params(source, model)
    found = train.load_params(source, model, strict=False)
    assert (found.missing, found.unexpected) == (["norm.bias"], ["classifier.bias"])
    assert found.mismatched == wrong
    for name in ("norm.bias", "norm.weight", "head.bias"):
        assert torch.equal(found.params[name], model.params[name])
    assert torch.equal(found.params["embedding.weight"], trained.embedding.weight)
    del source["norm.weight"]
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({k: v.clone() for k, v in source.items()}, path)
    with pytest.raises(ValueError, match=re.escape(f"{str(path)!r} does not fit the model: ")):
        train.load_params(path, model)


def test_files_that_are_none(tmp_path: Path, trained: Net) -> None:
    torch.save(trained.state_dict(), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"one of torch\.save: torch\.load"):
        train.load_params(tmp_path / "x.pt", functionalize(Net()))
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        train.load_params(tmp_path / "y", functionalize(Net()))


def test_damaged_checkpoint_is_seen(tmp_path: Path) -> None:
    model = functionalize(nn.Linear(2, 2))
    train.save(tmp_path / "x", model.params)
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged at path 'weight': expected sha256"):
        train.load_params(tmp_path / "x", model)


def test_complex_parameters_of_a_checkpoint(tmp_path: Path) -> None:
    model = functionalize(nn.Linear(2, 2, dtype=torch.complex64))
    train.save(tmp_path / "x", model.params)
    assert_equal(train.load_params(tmp_path / "x", model).params, model.params)


def test_there_and_back(tmp_path: Path, trained: Net) -> None:
    """torch, fdnn, torch: the same `state_dict`."""
    model = functionalize(Net())
    found = train.load_params(trained.state_dict(), model)
    module = model.to_module(found.params, found.buffers)
    assert_equal(dict(module.state_dict()), dict(trained.state_dict()))
    fresh = Net()
    fresh.load_state_dict(module.state_dict())
    x = random.randint(random.key(0), (5,), 0, 7, torch.int64)
    assert torch.equal(fresh.eval()(x), trained.eval()(x))
