"""Batch norm's statistics, estimated anew: torch's `update_bn`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from torch import Tensor, nn
from torch.func import vmap
from torch.optim.swa_utils import update_bn

from fdnn import functionalize, random, train, tree


class Twice(nn.Module):
    """A layer that is called twice in a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.norm(x) * 3 + 1)


NETS = {
    "deep": lambda: nn.Sequential(
        nn.Linear(3, 5),
        nn.BatchNorm1d(5, momentum=0.3),
        nn.ReLU(),
        nn.Linear(5, 3),
        nn.BatchNorm1d(3, momentum=None),
    ),
    "bare": lambda: nn.BatchNorm1d(3),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2, affine=False)
    ),
    "twice": Twice,
    "untracked": lambda: nn.Sequential(
        nn.BatchNorm1d(3, track_running_stats=False), nn.BatchNorm1d(3)
    ),
    "none": lambda: nn.Linear(3, 2),
}
BATCHES = [
    (random.normal(random.key(i), (size, 3)) * (i + 1), torch.zeros(size))
    for i, size in enumerate((8, 8, 5))
]


@pytest.mark.parametrize("name", NETS)
def test_is_torchs_to_the_bit(name: str) -> None:
    net = NETS[name]()
    net(BATCHES[2][0])  # moves the statistics away from where they begin
    model = functionalize(net)
    before = tree.map(torch.clone, model.buffers)
    found = train.reestimate_batch_norm(model, model.params, model.buffers, iter(BATCHES))
    update_bn(BATCHES, net)
    assert_equal(found, dict(net.named_buffers()))
    assert_equal(model.buffers, before)
    # The model itself goes on with its own momentum.
    again = functionalize(NETS[name]()).apply(model.params, before, BATCHES[0][0], train=True)[1]
    assert_equal(model.apply(model.params, before, BATCHES[0][0], train=True)[1], again)


@pytest.mark.parametrize("name", [name for name in NETS if name != "none"])
def test_vmap_is_a_loop(name: str) -> None:
    """With `momentum=None` too, which does not vmap in training."""
    model = functionalize(NETS[name]())
    runs = vmap(model.init)(random.split(random.key(0), 3))

    def one(params: Any, buffers: Any) -> Any:
        return train.reestimate_batch_norm(model, params, buffers, BATCHES)

    expected = tree.stack([one(*each) for each in tree.unstack(runs)])
    assert_close(vmap(one)(*runs), expected, rtol=1e-5, atol=1e-6)


def test_batches_of_every_kind() -> None:
    """Tensors, tuples of one, what a step takes, keywords, a loader."""
    model = functionalize(NETS["deep"]())
    inputs = [x for x, _ in BATCHES]
    expected = train.reestimate_batch_norm(model, model.params, model.buffers, BATCHES)
    data = torch.utils.data.TensorDataset(torch.cat(inputs[:2]))
    for batches in (
        iter(inputs),
        [(x,) for x in inputs],
        [[{"input": x}, None] for x in inputs],
        [{"input": x} for x in inputs],
    ):
        found = train.reestimate_batch_norm(model, model.params, model.buffers, batches)
        assert_equal(found, expected)
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    found = train.reestimate_batch_norm(model, model.params, model.buffers, loader)
    assert_equal(
        found, train.reestimate_batch_norm(model, model.params, model.buffers, BATCHES[:2])
    )


def test_dropout_takes_its_randomness_from_the_key() -> None:
    model = functionalize(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)))

    def run(seed: int) -> Any:
        return train.reestimate_batch_norm(
            model, model.params, model.buffers, BATCHES[:1] * 2, key=random.key(seed)
        )["1.running_mean"]

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    once = train.reestimate_batch_norm(
        model, model.params, model.buffers, BATCHES[:1], key=random.key(0)
    )
    assert not torch.equal(run(0), once["1.running_mean"])  # every batch has a key of its own
    with pytest.raises(ValueError, match="`key` must be given"):
        train.reestimate_batch_norm(model, model.params, model.buffers, BATCHES)


def test_errors() -> None:
    model = functionalize(nn.BatchNorm1d(3))
    for batches in (BATCHES[0][0], BATCHES[0]):
        with pytest.raises(TypeError, match=r"put one batch into a list: `\[\(x, y\)\]`"):
            train.reestimate_batch_norm(model, model.params, model.buffers, batches)
    with pytest.raises(ValueError, match="`batches` must hold at least one batch, got none"):
        train.reestimate_batch_norm(model, model.params, model.buffers, [])
