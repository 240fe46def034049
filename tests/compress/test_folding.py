"""Folded networks give what the others gave, in eval mode; torch's fusion and finite padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close
from torch import Tensor, nn, vmap
from torch.nn.utils import fusion

from fdnn import compress, functionalize, optim, random, train, transfer
from fdnn.nn import MLP, Residual

SHAPES = {"rows": (7, 6), "maps1d": (7, 6, 9), "maps2d": (7, 6, 5, 5), "maps3d": (3, 6, 4, 4, 4)}

BATCH_NORMED: dict[str, tuple[Any, str, int]] = {
    # what, on which inputs, how many batch norms stay
    "behind linear": (lambda: [nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU()], "rows", 0),
    "no bias": (lambda: [nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4)], "rows", 0),
    "behind conv1d": (lambda: [nn.Conv1d(6, 4, 3, padding=1), nn.BatchNorm1d(4)], "maps1d", 0),
    "behind conv2d": (
        lambda: [nn.Conv2d(6, 4, 3, stride=2, groups=2, bias=False), nn.BatchNorm2d(4)],
        "maps2d",
        0,
    ),
    "behind conv3d": (lambda: [nn.Conv3d(6, 4, 2, dilation=2), nn.BatchNorm3d(4)], "maps3d", 0),
    "past dropout": (
        lambda: [nn.Linear(6, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Tanh()],
        "rows",
        0,
    ),
    "before linear": (lambda: [nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 4)], "rows", 0),
    "before linear without bias": (
        lambda: [nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 4, bias=False)],
        "rows",
        0,
    ),
    "before conv1d": (lambda: [nn.ReLU(), nn.BatchNorm1d(6), nn.Conv1d(6, 4, 3)], "maps1d", 0),
    "before conv2d in groups": (
        lambda: [nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, groups=2)],
        "maps2d",
        0,
    ),
    "before padding by itself": (
        lambda: [nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular")],
        "maps2d",
        0,
    ),
    "before zero padding": (
        lambda: [
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 2, 3, padding="same"),
        ],
        "maps2d",
        2,
    ),
    "before flattening": (
        lambda: [nn.ReLU(), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(150, 4)],
        "maps2d",
        0,
    ),
    "both sides": (
        lambda: [nn.Linear(6, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 3)],
        "rows",
        0,
    ),
    "no weights of its own": (
        lambda: [nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False)],
        "rows",
        0,
    ),
    "nested": (
        lambda: [
            nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.BatchNorm1d(6), nn.ReLU())),
            Residual(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 6), nn.BatchNorm1d(6))),
            MLP(6, 5, 2, depth=2, norm="batch"),
        ],
        "rows",
        0,
    ),
    "statistics of the batch": (
        lambda: [
            nn.Linear(6, 4),
            nn.BatchNorm1d(4, track_running_stats=False),
            nn.Linear(4, 4),
            nn.BatchNorm1d(4),
        ],
        "rows",
        1,
    ),
    "a linear layer along the maps": (
        lambda: [
            *(nn.Conv1d(6, 7, 3), nn.ReLU(), nn.BatchNorm1d(7), nn.Linear(7, 2)),
            *(nn.Conv1d(7, 2, 1), nn.BatchNorm1d(2)),
        ],
        "maps1d",
        1,
    ),
}

LAYER_NORMED: dict[str, Any] = {
    "plain": lambda: [nn.LayerNorm(6), nn.Linear(6, 4)],
    "no bias": lambda: [nn.LayerNorm(6, bias=False), nn.Dropout(), nn.Linear(6, 4, bias=False)],
    "rms": lambda: [nn.Tanh(), nn.RMSNorm(6), nn.Linear(6, 4)],
    "inside": lambda: [Residual(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6))), nn.Tanh()],
}


def inputs(shape: str, seed: int = 1) -> Tensor:
    return random.normal(random.key(seed), SHAPES[shape], torch.float64)


def trained(layers: Any, shape: str) -> tuple[Any, Any]:
    """A model whose norms have every number different from what they begin with."""
    model = functionalize(nn.Sequential(*layers()).double())
    params = {
        name: value + random.normal(random.key(i), value.shape, value.dtype) / 2
        for i, (name, value) in enumerate(model.params.items())
    }
    buffers = model.buffers
    for seed in range(2, 5):
        key = random.key(seed)
        x = 3 * inputs(shape, seed) + 1
        _, buffers = model.apply(params, buffers, x, key=key, train=True)
    return model, (params, buffers)


def norms(model: Any, kind: type[nn.Module]) -> list[Any]:
    return [layer for layer in model.skeleton().modules() if isinstance(layer, kind)]


@pytest.mark.parametrize(("layers", "shape", "stay"), BATCH_NORMED.values(), ids=BATCH_NORMED)
def test_batch_norm_is_folded(layers: Any, shape: str, stay: int) -> None:
    model, values = trained(layers, shape)
    folded, fold = compress.fold_batch_norm(model)
    x = inputs(shape)
    wanted, _ = model.apply(*values, x)
    found, _ = folded.apply(*fold(*values), x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert len(norms(folded, nn.modules.batchnorm._BatchNorm)) == stay
    count = [sum(v.numel() for v in each[0].values()) for each in (fold(*values), values)]
    biases = sum(name not in values[0] and folded.params[name].numel() for name in folded.params)
    assert count[0] <= count[1] + biases
    assert all(name.endswith(".bias") for name in folded.params if name not in values[0])
    own, _ = folded.apply(folded.params, folded.buffers, x)
    torch.testing.assert_close(own, model.apply(model.params, model.buffers, x)[0])


@pytest.mark.parametrize("layers", LAYER_NORMED.values(), ids=LAYER_NORMED)
def test_layer_norm_is_folded(layers: Any) -> None:
    model, values = trained(layers, "rows")
    folded, fold = compress.fold_layer_norm(model)
    x = inputs("rows")
    found, _ = folded.apply(*fold(*values), x)
    torch.testing.assert_close(found, model.apply(*values, x)[0], rtol=1e-12, atol=1e-12)
    assert all(norm.weight is None for norm in norms(folded, nn.LayerNorm | nn.RMSNorm))


@pytest.mark.parametrize("name", ["behind linear", "no bias", "behind conv1d", "behind conv2d"])
def test_values_are_those_of_torchs_fusion(name: str) -> None:
    model, values = trained(*BATCH_NORMED[name][:2])
    module = model.to_module(*values)
    is_linear = isinstance(module[0], nn.Linear)
    fuse: Any = fusion.fuse_linear_bn_eval if is_linear else fusion.fuse_conv_bn_eval
    fused = fuse(module[0], module[1])
    params, _ = compress.fold_batch_norm(model)[1](*values)
    wanted = {"0.weight": fused.weight.detach(), "0.bias": fused.bias.detach()}
    assert_close(params, wanted, rtol=1e-13, atol=1e-14)


def test_float32_and_many_seeds() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(4 * 36, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)),
    )
    model, tx = functionalize(net), optim.adam(0.01)
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    x = random.normal(random.key(0), (12, 1, 6, 6))
    states = vmap(lambda key: train.init(model, tx, key))(random.split(random.key(1), 3))
    for _ in range(5):
        states, _ = vmap(step, in_dims=(0, None))(states, (x, torch.arange(12) % 3))
    folded, fold = compress.fold_batch_norm(model)
    params, buffers = vmap(fold)(states.params, states.buffers)
    wanted, _ = vmap(model.apply, in_dims=(0, 0, None))(states.params, states.buffers, x)
    found, _ = vmap(folded.apply, in_dims=(0, 0, None))(params, buffers, x)
    assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max().clamp(min=1)
    assert sum(p.numel() for p in folded.params.values()) == 40 + 144 * 16 + 16 + 51
    module = folded.to_module(
        {n: p[1] for n, p in params.items()}, {n: b[1] for n, b in buffers.items()}
    )
    torch.testing.assert_close(module(x), found[1])


def test_shared_layers_are_left_alone() -> None:
    """A layer that is used twice, or whose tensors are, cannot take a norm in."""
    twice = nn.Linear(6, 6)
    model = functionalize(nn.Sequential(twice, nn.BatchNorm1d(6), twice, nn.Tanh()))
    with pytest.raises(ValueError, match="nothing to fold"):
        compress.fold_batch_norm(model)
    tied = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 6))
    tied[3].weight = tied[0].weight
    with pytest.raises(ValueError, match="nothing to fold"):
        compress.fold_batch_norm(functionalize(tied))


def test_errors() -> None:
    plain = functionalize(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match="no batch norm directly behind or before a linear"):
        compress.fold_batch_norm(plain)
    with pytest.raises(ValueError, match="no layer norm with weights"):
        compress.fold_layer_norm(plain)
    with pytest.raises(ValueError, match=r"must not be frozen in part.*transfer.merge"):
        compress.fold_batch_norm(transfer.freeze(plain, "0.*"))
