"""Monte Carlo dropout is the loop over its keys, of the right model, and computes no more."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from torch import Tensor, nn, vmap
from torch.utils.flop_counter import FlopCounterMode

import fdnn
from fdnn import functionalize, random, train, transfer, tree
from fdnn import nn as extra
from fdnn.uncertainty import mc_dropout

KEY = random.key(3)
DOUBLE = {"rtol": 1e-12, "atol": 1e-12}


class Recurrent(nn.Module):
    """A recurrent layer with dropout inside, and a head on its last output."""

    def __init__(self, kind: type[nn.RNNBase]):
        super().__init__()
        self.cell = kind(4, 5, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Functional(nn.Module):
    """Dropout by function, and an output that is a tree."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor, *, scale: float) -> dict[str, Any]:
        y = F.dropout(self.linear(x), 0.5, training=self.training)
        return {"y": y, "more": (scale * y,)}


def images(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), *layers, nn.Flatten(), nn.Linear(4 * 36, 3))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)),
        (6, 4),
        {},
    ),
    "batch norm on both sides": (
        lambda: nn.Sequential(
            *(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
        ),
        (6, 4),
        {},
    ),
    "cnn": (
        lambda: images(nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout2d(0.5)),
        (5, 1, 8, 8),
        {},
    ),
    "instance norm": (
        lambda: images(nn.Dropout(0.3), nn.InstanceNorm2d(4, track_running_stats=True)),
        (5, 1, 8, 8),
        {},
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True),
        (2, 4, 8),
        {},
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), (3, 2, 4), {}),
    "gru": (lambda: Recurrent(nn.GRU), (3, 2, 4), {}),
    "alpha dropout": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.SELU(), nn.AlphaDropout(0.3), nn.Linear(8, 3)),
        (6, 4),
        {},
    ),
    "MCDropout": (lambda: nn.Sequential(nn.Linear(4, 8), extra.MCDropout(0.5)), (6, 4), {}),
    "functional": (Functional, (6, 4), {"scale": 2.0}),
}


def settle(module: nn.Module) -> nn.Module:
    """Train mode but for normalizations, the usual recipe."""
    for layer in module.train().modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            layer.eval()
    return module


def born(make: Callable[[], nn.Module]) -> nn.Module:
    """A module in float64 with running statistics of its own."""
    module = make().double()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
    return module


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[fdnn.Model, Tensor, dict[str, Any]]:
    make, shape, keywords = request.param
    x = random.normal(random.key(7), shape, torch.float64)
    return functionalize(born(make)), x, keywords


def looped(model: fdnn.Model, x: Tensor, keys: Tensor, **keywords: Any) -> Any:
    """One key after the other."""
    apply = functools.partial(model.settled().apply, model.params, model.buffers, x, **keywords)
    return tree.stack([apply(key=key, train=True)[0] for key in keys])


@pytest.mark.parametrize("chunk_size", ["auto", None, 3], ids=str)
def test_is_the_loop_over_keys(case: Any, chunk_size: Any) -> None:
    model, x, keywords = case
    found = mc_dropout(
        model, model.params, model.buffers, x,
        key=KEY, num_samples=7, chunk_size=chunk_size, **keywords,
    )  # fmt: skip
    assert_close(found, looped(model, x, random.split(KEY, 7), **keywords), **DOUBLE)
    first, second = tree.leaves(found)[0][:2]
    assert not torch.equal(first, second)


def test_arguments_and_buffers_stay(case: Any) -> None:
    model, x, keywords = case
    params, buffers, before = model.params, model.buffers, x.clone()
    copies = tree.map(torch.clone, (params, buffers))
    mc_dropout(model, params, buffers, x, key=KEY, num_samples=3, **keywords)
    assert_equal((params, buffers), copies)
    assert torch.equal(x, before)


def test_the_normalization_is_that_of_eval_mode() -> None:
    """Without anything dropped, a sample is the prediction, of one example as of many."""
    net = nn.Sequential(
        *(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8)), nn.BatchNorm1d(8)),
        *(nn.Dropout(0.0), nn.Linear(8, 3)),
    )
    model = functionalize(born(lambda: net))
    x = random.normal(random.key(7), (6, 4), torch.float64)
    expected = model.apply(model.params, model.buffers, x)[0]
    for part, wanted in ((x, expected), (x[:1], expected[:1])):
        found = mc_dropout(model, model.params, model.buffers, part, key=KEY, num_samples=2)
        torch.testing.assert_close(found, wanted.expand(2, -1, -1), **DOUBLE)


def test_law_is_torchs() -> None:
    """Mean and variance over samples, against torch's module in train mode, by standard errors."""
    net = settle(born(CASES["batch norm on both sides"][0]))
    model, x = functionalize(net), random.normal(random.key(7), (2, 4), torch.float64)
    ours = mc_dropout(model, model.params, model.buffers, x, key=KEY, num_samples=4000)
    with torch.no_grad():
        torchs = net(x.repeat(4000, 1)).reshape(4000, 2, 3)
    for statistic in (lambda y: y, lambda y: (y - y.mean(0)).square()):
        a, b = statistic(ours), statistic(torchs)
        error = (a.var(0) / 4000 + b.var(0) / 4000).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 4 * error).all()


def test_more_samples_begin_with_fewer() -> None:
    model, x = functionalize(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))), torch.ones(2, 4)
    few, many = (
        mc_dropout(model, model.params, model.buffers, x, key=KEY, num_samples=n) for n in (5, 9)
    )
    torch.testing.assert_close(few, many[:5], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_seeds_have_samples_of_their_own(compiled: bool) -> None:
    """Lane i of stacked parameters is run i alone; compiled too, batch norm before the dropout."""
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2))
    model = functionalize(born(lambda: net))
    x = random.normal(random.key(7), (6, 4), torch.float64)
    params, buffers = vmap(model.init)(random.split(random.key(0), 3))
    buffers = {n: b + 0.1 if b.is_floating_point() else b for n, b in buffers.items()}
    keys = random.split(random.key(1), 3)

    def sample(params: Any, buffers: Any, key: Tensor) -> Any:
        return mc_dropout(model, params, buffers, x, key=key, num_samples=2)

    many = fdnn.jit(vmap(sample)) if compiled else vmap(sample)
    lanes = [sample(*lane) for lane in tree.unstack((params, buffers, keys))]
    torch.testing.assert_close(many(params, buffers, keys), torch.stack(lanes), **DOUBLE)


def test_compiles_as_one_graph(case: Any) -> None:
    model, x, keywords = case
    torch._dynamo.reset()

    def sample(params: Any, buffers: Any, key: Tensor) -> Any:
        return mc_dropout(
            model, params, buffers, x,
            key=key, num_samples=3, **keywords,
        )  # fmt: skip

    traced = torch.compile(sample, fullgraph=True, dynamic=False, backend="aot_eager")
    args = model.params, model.buffers, KEY
    assert_close(traced(*args), sample(*args), **DOUBLE)


def test_what_comes_before_the_first_draw_is_computed_once() -> None:
    """Products are counted: one pass through the first layers, one a sample through the others."""
    net = nn.Sequential(
        *(nn.Linear(50, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU()),
        *(nn.Dropout(0.2), nn.Linear(30, 20), nn.Dropout(0.2), nn.Linear(20, 10)),
    )
    model, x = functionalize(net), torch.ones(8, 50)

    def flops(chunk_size: int | None) -> int:
        with FlopCounterMode(display=False) as counter:
            mc_dropout(
                model, model.params, model.buffers, x,
                key=KEY, num_samples=100, chunk_size=chunk_size,
            )  # fmt: skip
        return counter.get_total_flops()

    before, after = 2 * 8 * (50 * 40 + 40 * 30), 2 * 8 * (30 * 20 + 20 * 10)
    assert flops(None) == before + 100 * after
    assert flops(25) == 4 * before + 100 * after


def test_auto_bounds_the_largest_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a net whose widest layer has 8 x 40 numbers; one sample goes in any case."""
    net = nn.Sequential(nn.Dropout(0.2), nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 3))
    model, x, at_once = functionalize(net), torch.ones(8, 5), []
    real = torch.vmap

    def spied(fn: Any, *args: Any, chunk_size: int | None = None, **kwargs: Any) -> Any:
        at_once.append(chunk_size)
        return real(fn, *args, chunk_size=chunk_size, **kwargs)

    monkeypatch.setattr(torch, "vmap", spied)
    module = mc_dropout.__globals__
    for limit, expected in ((8 * 40 * 7 + 1, 7), (1, 1)):
        monkeypatch.setitem(module, "_ELEMENTS", limit)
        mc_dropout(model, model.params, model.buffers, x, key=KEY, num_samples=9)
        assert at_once.pop() == expected


def test_differentiates_through_the_samples() -> None:
    """The gradient of a mean over samples is the mean of the samples' gradients."""
    model = functionalize(born(CASES["mlp"][0]))
    x, keys = random.normal(random.key(7), (6, 4), torch.float64), random.split(KEY, 4)

    def mean(params: Any) -> Tensor:
        found = mc_dropout(model, params, model.buffers, x, key=KEY, num_samples=4, chunk_size=3)
        return found.square().mean()

    def one(params: Any, key: Tensor) -> Tensor:
        return model.apply(params, model.buffers, x, key=key, train=True)[0].square().mean()

    each = [torch.func.grad(one)(model.params, key) for key in keys]
    expected = tree.map(lambda *parts: torch.stack(parts).mean(0), *each)
    assert_close(torch.func.grad(mean)(model.params), expected, **DOUBLE)


@pytest.mark.parametrize("name", ["num_samples", "chunk_size"])
def test_counts_are_positive(name: str) -> None:
    model = functionalize(nn.Dropout(0.5))
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        mc_dropout(model, {}, {}, torch.ones(2), key=KEY, **{name: 0})


def test_a_layer_that_writes_a_buffer_is_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            y = F.dropout(x, 0.5, self.training)
            self.seen += y.mean(0)
            return y

    model = functionalize(Counting())
    with pytest.raises(RuntimeError, match="writes lane by lane into a tensor"):
        mc_dropout(model, {}, model.buffers, torch.ones(2, 3), key=KEY)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: transfer.freeze(model, ["0.*", "1.*"]),
        lambda model: transfer.replace_head(model, 2),
        lambda model: transfer.truncate(model),
        lambda model: transfer.lora(model, 2, 4.0),
        lambda model: train.mixed_precision(model, train.Policy(compute=torch.float64)),
    ],
    ids=["freeze", "replace_head", "truncate", "lora", "mixed_precision"],
)
def test_models_made_of_models_are_sampled(change: Any) -> None:
    """With nothing dropped they say what they say in eval mode; otherwise samples differ."""
    for p in (0.0, 0.5):
        net = nn.Sequential(
            *(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(p)),
            *(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)),
        )
        model, x = change(functionalize(born(lambda net=net: net))), torch.ones(1, 4).double()
        found = mc_dropout(model, model.params, model.buffers, x, key=KEY, num_samples=2)
        expected = model.apply(model.params, model.buffers, x)[0].expand_as(found)
        if p == 0:
            torch.testing.assert_close(found, expected, **DOUBLE)
        else:
            assert not torch.equal(found[0], found[1])
