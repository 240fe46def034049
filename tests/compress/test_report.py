"""Counts of zeros, bytes and operations, against counts by hand."""

from __future__ import annotations

import torch
from torch import nn, vmap

from fdnn import compress, functionalize, random


def test_sparsity_counts_zeros() -> None:
    params = {
        "0.weight": torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
        "1.weight": torch.ones(1, 4),
        "1.bias": torch.zeros(4),
    }
    found = compress.sparsity(params)
    assert {name: share.item() for name, share in found.leaves.items()} == {
        "0.weight": 0.75,
        "1.weight": 0.0,
    }
    assert found.total == 3 / 8
    assert compress.sparsity(params, where="*").total == 7 / 12
    masks = {"1.weight": torch.tensor([[False, True, True, False]])}
    assert compress.sparsity(params, masks).total == 0.5
    assert set(compress.sparsity(params, masks).leaves) == {"1.weight"}
    assert compress.sparsity(params, masks, where="*").total == 9 / 12
    stacked = {name: torch.stack([x, torch.ones_like(x)]) for name, x in params.items()}
    assert vmap(lambda p: compress.sparsity(p).total)(stacked).tolist() == [3 / 8, 0.0]


def test_model_size_counts() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.ReLU(), nn.Flatten()),
        nn.Linear(4 * 36, 10),
    )
    model = functionalize(net)
    masks = {
        "0.weight": torch.arange(36).reshape(4, 1, 3, 3) < 9,
        "3.weight": torch.arange(1440).reshape(10, 144) < 720,
    }
    x = random.normal(random.key(0), (5, 1, 6, 6))
    size = compress.model_size(model, model.params, model.buffers, x, masks=masks)
    conv, linear = 2 * 5 * 36 * 4 * 9, 2 * 5 * 144 * 10
    numbers = 40 + 8 + 1450
    assert size == compress.ModelSize(
        parameters=numbers,
        nonzero=numbers - 27 - 720 - 4,  # the shift of batch norm is 0 as well
        bytes=4 * (numbers + 8) + 8,
        nonzero_bytes=4 * (numbers - 27 - 720 - 4 + 8) + 8,
        flops=conv + linear,
        effective_flops=conv / 4 + linear / 2,
    )


def test_dense_models_have_no_other_operations() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = functionalize(layer)
    x = random.normal(random.key(0), (2, 5, 8))
    size = compress.model_size(model, model.params, model.buffers, x)
    params = {n: torch.ones_like(p) for n, p in model.params.items()}
    dense = compress.model_size(model, params, model.buffers, x)
    assert dense.flops == dense.effective_flops == size.flops > 0
    halved = {n: torch.zeros_like(p) if n == "linear1.weight" else p for n, p in params.items()}
    found = compress.model_size(model, halved, model.buffers, x)
    assert found.flops - found.effective_flops == 2 * 10 * 8 * 16
