"""`summary` against torch's own counts and counts by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fdnn import functionalize, inspect


def operations(module: nn.Module, *inputs: Any) -> int:
    """Count by torch, on real tensors."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        module(*inputs)
    return counter.get_total_flops()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v)


MODULES = {
    "batch norm": (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5), nn.Dropout()), (7, 6)),
    "convolution": (
        nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(inplace=True), nn.Flatten()),
        (3, 2, 8, 8),
    ),
    "transformer": (
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
        ),
        (3, 5, 8),
    ),
    "attention": (Attention(), (2, 5, 4)),
}


@pytest.mark.parametrize(("module", "shape"), MODULES.values(), ids=MODULES.keys())
def test_totals(module: nn.Module, shape: tuple[int, ...]) -> None:
    found = inspect.summary(module, torch.ones(shape))
    tensors = [*module.parameters(), *module.buffers()]
    assert found.flops == operations(module, torch.ones(shape)) == sum(r.flops for r in found.rows)
    assert found.parameters == found.trainable == sum(p.numel() for p in module.parameters())
    assert found.parameters == sum(row.parameters for row in found.rows)
    assert found.buffers == sum(b.numel() for b in module.buffers())
    assert found.buffers == sum(row.buffers for row in found.rows)
    assert found.bytes == sum(t.numel() * t.element_size() for t in tensors)
    assert found == inspect.summary(functionalize(module), torch.ones(shape))


def test_batch_norm_of_the_book() -> None:
    norms = [nn.BatchNorm1d(size) for size in (784, 300, 100)]
    linears = [nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)]
    layers = [layer for pair in zip(norms, linears, strict=True) for layer in pair]
    found = inspect.summary(nn.Sequential(nn.Flatten(), *layers), torch.ones(32, 1, 28, 28))
    assert (found.parameters, found.buffers) == (268_978, 2_371)
    assert sum(row.parameters for row in found.rows if row.type == "BatchNorm1d") == 2_368
    assert found.flops == 2 * 32 * (784 * 300 + 300 * 100 + 100 * 10)


def test_recurrent_layers() -> None:
    found = inspect.summary(nn.LSTM(6, 4, batch_first=True), torch.ones(3, 5, 6))
    (row,) = found.rows
    assert row.type == "LSTM"
    assert row.output == ((3, 5, 4), (1, 3, 4), (1, 3, 4))
    assert row.flops == 2 * 3 * 5 * (6 + 4) * 16
    assert inspect.summary(nn.GRUCell(6, 4), torch.ones(3, 6)).rows[0].type == "GRUCell"
    assert inspect.summary(nn.RNN(6, 4), torch.ones(3, 6)).rows[0].type == "RNN"


class Odd(nn.Module):
    """Reused layers, tied weights, a frozen weight, several inputs, a nested output, noise."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)
        self.relu = nn.ReLU()
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight
        self.hidden.bias.requires_grad_(False)
        self.table = torch.ones(4)  # neither parameter nor buffer

    def forward(self, index: Tensor, *, scale: Tensor) -> dict[str, Any]:
        h = self.embed(index) + torch.randn(4) * self.table
        for _ in range(3):
            h = self.relu(self.hidden(h))
        return {"logits": self.out(h), "more": (h @ h.T, scale, "text")}


def test_odd_modules() -> None:
    found = inspect.summary(Odd(), torch.tensor([1, 2]), scale=torch.ones(1))
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["", "embed", "hidden", "relu", "out"]
    assert rows[""].output == ((2, 7), (2, 2), (1,))
    assert rows[""].flops == 2 * 2 * 4 * 2
    assert rows["hidden"].calls == rows["relu"].calls == 3
    assert rows["hidden"].flops == 3 * 2 * 2 * 4 * 4
    assert (rows["embed"].parameters, rows["out"].parameters) == (28, 0)
    assert (found.parameters, found.trainable) == (48, 44)
    assert "(2, 4) ×3" in str(found)


def test_touches_nothing() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout())
    module[2].eval()
    values = {name: value.clone() for name, value in module.state_dict().items()}
    generator, modes = torch.get_rng_state(), [layer.training for layer in module.modules()]
    inspect.summary(module, torch.ones(5, 3))
    assert torch.equal(torch.get_rng_state(), generator)
    assert [layer.training for layer in module.modules()] == modes
    for name, value in module.state_dict().items():
        assert torch.equal(value, values[name])
    assert not any(layer._forward_hooks or "forward" in vars(layer) for layer in module.modules())


def test_on_the_meta_device() -> None:
    with torch.device("meta"):
        module, x = nn.Linear(100_000, 100_000), torch.empty(64, 100_000)
    found = inspect.summary(module, x)
    assert found.flops == 2 * 64 * 10**10
    assert found.bytes == 4 * (10**10 + 10**5)
    assert str(found).endswith("10,000,100,000 trainable parameters, 40 GB")


def test_table() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert str(inspect.summary(module, torch.ones(5, 3))).splitlines() == [
        "layer  type         output  parameters  buffers  FLOPs",
        "──────────────────────────────────────────────────────",
        "0      Linear       (5, 2)           8              60",
        "1      BatchNorm1d  (5, 2)           4        5",
        "──────────────────────────────────────────────────────",
        "total                               12        5     60",
        "12 trainable parameters, 72 B",
    ]


def test_refuses_what_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"`model` must be an nn.Module or an fdnn.Model, got 3"):
        inspect.summary(3, torch.ones(1))
