"""Low-rank adapters: the closed form, the start, merging, convolutions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, vmap

from fdnn import functionalize, initializers, optim, random, train, transfer


class Adapted(nn.Module):
    """The textbook form: the layer, and two small ones beside it."""

    def __init__(self, layer: nn.Linear, a: Any, b: Any, scale: float):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a, self.b, self.scale = nn.Parameter(a.clone()), nn.Parameter(b.clone()), scale

    def forward(self, x: Any) -> Any:
        return self.layer(x) + self.scale * F.linear(F.linear(x, self.a), self.b)


def test_the_start_is_the_model(task: Any) -> None:
    model = transfer.lora(task.model, rank=2, alpha=4.0)
    params, buffers = model.init(random.key(3))
    assert_equal(
        model.apply(params, buffers, task.inputs)[0],
        task.model.apply(task.model.params, task.model.buffers, task.inputs)[0],
    )
    assert list(params) == [f"{i}.weight.lora_{x}" for i in (0, 3, 6) for x in "AB"]
    skeleton = model.skeleton(train=True)
    assert [m for m in skeleton.modules() if not m.training] == [skeleton[1], skeleton[4]]


def test_trajectory_is_the_textbooks(task: Any) -> None:
    tx = optim.adam(lr=0.05, weight_decay=0.1)
    model = transfer.lora(task.model, rank=2, alpha=3.0, where=["0.weight", "6.weight"])
    state = train.init(model, tx, random.key(0))
    module = task.module.requires_grad_(False).train()
    module[1].eval(), module[4].eval()
    for i in (0, 6):
        a, b = (state.params[f"{i}.weight.lora_{x}"] for x in "AB")
        module[i] = Adapted(module[i], a, b, 1.5)
    optimizer = torch.optim.Adam(
        [p for p in module.parameters() if p.requires_grad], lr=0.05, weight_decay=0.1
    )
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    before = dict(state.buffers)
    for _ in range(20):
        state, _ = step(state, task.batch)
        optimizer.zero_grad()
        F.cross_entropy(module(task.inputs), task.targets).backward()
        optimizer.step()
    for i in (0, 6):
        for x in "AB":
            torch.testing.assert_close(
                state.params[f"{i}.weight.lora_{x}"],
                getattr(module[i], x.lower()).detach(),
                rtol=1e-10,
                atol=1e-12,
            )
    assert_equal(state.buffers, before)


def test_merged_weights_are_plain(task: Any) -> None:
    model = transfer.lora(task.model, rank=2, alpha=3.0)
    params, buffers = model.init(random.key(0), rules=[("*lora_B", initializers.normal())])
    merged = transfer.merge(model, params, buffers)
    assert_close(merged[1], task.model.buffers, 0, 0)
    assert list(merged[0]) == list(task.model.params)
    change = merged[0]["0.weight"] - task.model.params["0.weight"]
    assert torch.linalg.matrix_rank(change) == 2
    assert_equal(
        task.model.apply(*merged, task.inputs)[0], model.apply(params, buffers, task.inputs)[0]
    )
    module = model.to_module(params, buffers)
    assert torch.equal(module(task.inputs), task.model.apply(*merged, task.inputs)[0])


@given(
    st.sampled_from([nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_convolutions(kind: Any, size: int, rank: int, dtype: torch.dtype) -> None:
    net = functionalize(kind(4, 6, size).to(dtype))
    model = transfer.lora(net, rank, alpha=2.0)
    params, buffers = model.init(random.key(0), rules=[("*lora_B", initializers.normal())])
    a, b = params["weight.lora_A"], params["weight.lora_B"]
    weight = net.params["weight"]
    assert a.shape == (rank, weight[0].numel()) and b.shape == (weight.shape[0], rank)
    assert a.dtype == b.dtype == dtype
    expected = weight + 2.0 / rank * torch.einsum("or,ri->oi", b, a).reshape(weight.shape)
    merged = transfer.merge(model, params, buffers)[0]
    torch.testing.assert_close(merged["weight"], expected)
    x = torch.ones(2, 4, 5, 5) if "2d" in kind.__name__ else torch.ones(2, 4, 5)
    assert_equal(
        model.apply(params, buffers, x.to(dtype))[0], net.apply(merged, {}, x.to(dtype))[0]
    )


def test_lanes_and_a_head_beside(task: Any) -> None:
    model = transfer.unfreeze(transfer.lora(task.model, 2, 2.0, "[03].weight"), "6.*")
    assert list(model.params) == [
        "6.weight", "6.bias", *(f"{i}.weight.lora_{x}" for i in (0, 3) for x in "AB"),
    ]  # fmt: skip
    tx = optim.sgd(lr=0.1)
    source = {**task.model.params, **task.model.buffers}
    keys = random.split(random.key(0), 3)
    states = vmap(lambda key: transfer.init(model, tx, key, source))(keys)
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    many, _ = vmap(step, in_dims=(0, None))(states, task.batch)
    alone, _ = step(transfer.init(model, tx, keys[1], source), task.batch)
    merged, _ = vmap(lambda p, b: transfer.merge(model, p, b))(many.params, many.buffers)
    assert_close(
        {name: value[1] for name, value in merged.items()},
        transfer.merge(model, alone.params, alone.buffers)[0],
        1e-10,
        1e-10,
    )


def test_adapters_of_adapters(task: Any) -> None:
    model = transfer.lora(transfer.lora(task.model, 1, 1.0, "0.weight"), 2, 1.0, "3.weight")
    assert list(model.params) == ["3.weight.lora_A", "3.weight.lora_B"]
    assert "0.weight.lora_A" in model.buffers
    both = transfer.unfreeze(model, "*lora*")
    assert len(both.params) == 4
    assert both.apply(both.params, both.buffers, task.inputs)[0].shape == (20, 3)


def test_errors(task: Any) -> None:
    for arguments, said in (
        ((0, 1.0), "`rank` must be at least 1, got 0"),
        ((1, 1.0, "0.bias"), "`where` must choose parameters of two or more dimensions"),
        ((1, 1.0, "1.running_mean"), "`where` must choose parameters"),
        ((1, 1.0, lambda path, leaf: False), "`where` must choose a weight, got none"),
    ):
        with pytest.raises(ValueError, match=said):
            transfer.lora(task.model, *arguments)
    with pytest.raises(ValueError, match=r"'0\.weight' has an adapter"):
        transfer.lora(transfer.lora(task.model, 1, 1.0), 1, 1.0, "0.weight")


def test_attention_and_tied_weights() -> None:
    net = functionalize(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True))
    model = transfer.lora(net, 2, 2.0)
    assert "self_attn.in_proj_weight.lora_A" in model.params
    x = random.normal(random.key(0), (2, 3, 8))
    params, buffers = model.init(random.key(0))
    assert_close(
        model.apply(params, buffers, x, train=True)[0],
        net.apply(net.params, net.buffers, x, train=True)[0],
        1e-6,
        1e-6,
    )
