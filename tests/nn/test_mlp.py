"""`nn.MLP`: what it is made of, how it is drawn, and that it trains in lanes as alone."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import grad, vmap

import fdnn
from fdnn import activations, functionalize, initializers, optim, random, train, tree
from fdnn.nn import MLP, ReLUSquared, SwiGLU, Swish
from fdnn.nn.naming import _MODULES

GATE = 5.0  # standard errors
GATED = ("geglu", "glu", "reglu", "swiglu")


def draw(seed: int, *shape: int) -> Tensor:
    return random.normal(random.key(seed), shape)


def kinds(block: nn.Module) -> list[type]:
    return [type(layer) for layer in block]


@given(
    sizes=st.lists(st.integers(1, 5), max_size=3),
    name=st.sampled_from(sorted(_MODULES)),
    norm=st.sampled_from([None, "batch", "layer"]),
    norm_first=st.booleans(),
    dropout=st.sampled_from([0.0, 0.5]),
    bias=st.booleans(),
)
@settings(max_examples=60)
def test_what_it_is_made_of(
    sizes: list[int], name: str, norm: Any, norm_first: bool, dropout: float, bias: bool
) -> None:
    options = {"norm": norm, "norm_first": norm_first, "dropout": dropout, "bias": bias}
    module = MLP(3, sizes, 2, activation=name, **options)
    assert len(module.hidden) == len(sizes)
    for block, (fan_in, size) in zip(module.hidden, itertools.pairwise([3, *sizes]), strict=True):
        width = 2 * size if name in GATED else size
        order = ["linear", "norm", "activation", "dropout"]
        if not norm_first:
            order[1:3] = order[2:0:-1]
        absent = {"norm": norm is None, "dropout": dropout == 0}
        assert [n for n, _ in block.named_children()] == [n for n in order if not absent.get(n)]
        assert block.linear.weight.shape == (width, fan_in)
        assert (block.linear.bias is not None) == (bias and not (norm == "batch" and norm_first))
        assert type(block.activation) is _MODULES[name]
        if norm is not None:
            assert type(block.norm) is {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[norm]
            assert block.norm.weight.shape == (width if norm_first else size,)
        if dropout:
            assert type(block.dropout) is (nn.AlphaDropout if name == "selu" else nn.Dropout)
            assert block.dropout.p == 0.5
    assert module.output.weight.shape == (2, [3, *sizes][-1])
    assert (module.output.bias is not None) == bias
    assert module(torch.ones(4, 3)).shape == (4, 2)


def test_depth_is_how_often_a_size_is_repeated() -> None:
    shapes = [tuple(p.shape) for p in MLP(3, [5, 5], 2).parameters()]
    assert [tuple(p.shape) for p in MLP(3, 5, 2, depth=2).parameters()] == shapes
    assert len(MLP(3, 5, 2).hidden) == 1
    assert len(MLP(3, 5, 2, depth=0).hidden) == 0


@pytest.mark.parametrize(("norm_first", "count"), [(True, 267_010), (False, 267_410)])
def test_size_of_the_chapters_net(norm_first: bool, count: int) -> None:
    """Without the norm of its input (1568 parameters); biases that have no effect are 400."""
    module = MLP(784, [300, 100], 10, norm="batch", norm_first=norm_first)
    assert sum(p.numel() for p in module.parameters()) == count


def test_it_computes_what_is_written() -> None:
    module = MLP(4, [6, 5], 3, activation="swiglu", norm="layer", norm_first=False)
    p, x = dict(module.named_parameters()), draw(0, 7, 4)
    y = x
    for i, size in enumerate((6, 5)):
        z = F.linear(y, p[f"hidden.{i}.linear.weight"], p[f"hidden.{i}.linear.bias"])
        y = F.silu(z[:, :size]) * z[:, size:]
        y = F.layer_norm(y, [size], p[f"hidden.{i}.norm.weight"], p[f"hidden.{i}.norm.bias"])
    assert_equal(module(x), F.linear(y, p["output.weight"], p["output.bias"]))
    assert_equal(pickle.loads(pickle.dumps(module))(x), module(x))


@pytest.mark.parametrize(
    ("activation", "factor"),
    [
        ("relu", math.sqrt(6)),
        ("leaky_relu", math.sqrt(6 / (1 + 0.01**2))),
        (nn.LeakyReLU(0.2), math.sqrt(6 / (1 + 0.2**2))),
        (nn.PReLU(init=0.5), math.sqrt(6 / (1 + 0.5**2))),
        (nn.RReLU(0.1, 0.3), math.sqrt(6 / (1 + 0.2**2))),
        ("silu", math.sqrt(6)),
        ("swiglu", math.sqrt(6)),
        ("selu", math.sqrt(3)),
        (nn.SELU, math.sqrt(3)),
        (F.selu, math.sqrt(3)),
        ("tanh", math.sqrt(3 * 2 * 40 / (40 + 60))),
        (torch.tanh, math.sqrt(3 * 2 * 40 / (40 + 60))),
        (torch.sin, math.sqrt(6)),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),  # no addresses, which differ by process
)
def test_weights_are_torchs_times_a_number(activation: Any, factor: float) -> None:
    """And they cost torch's generator no draw more than torch's own layers."""
    torch.manual_seed(5)
    width = 120 if activation == "swiglu" else 60
    reference = [nn.Linear(40, width), nn.Linear(60, 10)]
    state = torch.get_rng_state()
    torch.manual_seed(5)
    module = MLP(40, 60, 10, activation=activation)
    assert torch.equal(torch.get_rng_state(), state)
    hidden, output = module.hidden[0].linear, module.output
    assert_close(hidden.weight, reference[0].weight * factor, rtol=1e-6, atol=0)
    last = math.sqrt(3 * 2 * 60 / (60 + 10))
    assert_close(output.weight, reference[1].weight * last, rtol=1e-6, atol=0)
    assert not hidden.bias.any() and not output.bias.any()


@pytest.mark.parametrize("name", sorted(_MODULES))
def test_model_and_module_are_drawn_by_one_law(name: str) -> None:
    """Uniform, of the variance that suits the activation, and biases of 0."""
    module = nn.Sequential(MLP(100, [80, 60], 10, activation=name))  # as a part of another
    params, _ = functionalize(module).init(random.key(0))
    assert params.keys() == dict(module.named_parameters()).keys()
    for values in (params, dict(module.named_parameters())):
        for path, value in values.items():
            if path.endswith("bias"):
                assert not value.any()
            elif path.endswith("linear.weight") or path.endswith("output.weight"):
                suited = "linear" if "output" in path else name
                variance = initializers.matching_variance(suited, value.shape)
                bound = math.sqrt(3 * variance)
                assert 0.95 * bound < value.abs().max() <= bound * (1 + 1e-6)
                # The kurtosis of a uniform variable is 9/5.
                error = variance * math.sqrt((9 / 5 - 1) / value.numel())
                assert abs(value.square().mean() - variance) < GATE * error
                assert abs(value.mean()) < GATE * math.sqrt(variance / value.numel())


def test_init_is_the_initializers_and_may_be_overruled() -> None:
    model = functionalize(MLP(4, 8, 2, activation="selu", norm="layer", dropout=0.1))
    params, _ = model.init(random.key(0), weight=initializers.ones)
    assert (params["hidden.0.linear.weight"] == 1).all() and (params["output.weight"] == 1).all()
    assert not params["hidden.0.linear.bias"].any() and not params["hidden.0.norm.bias"].any()
    assert (params["hidden.0.norm.weight"] == 1).all()
    keys = random.split(random.key(0), 3)
    lanes, alone = vmap(model.init)(keys)[0], [model.init(key)[0] for key in keys]
    assert_equal(lanes, tree.stack(alone))


def test_activations_of_each_layer_are_its_own() -> None:
    given = Swish(0.6, learnable=True)
    module = MLP(4, [8, 8], 2, activation=given)
    assert module.hidden[0].activation.beta is not module.hidden[1].activation.beta
    params, _ = functionalize(module).init(random.key(0))
    betas = [params[f"hidden.{i}.activation.beta"] for i in (0, 1)]
    assert_equal(betas, [torch.tensor(0.6)] * 2)


@pytest.mark.parametrize(
    ("given", "function"),
    [
        ("relu_squared", lambda x: x.relu().square()),
        (ReLUSquared, lambda x: x.relu().square()),
        (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
        (torch.sin, torch.sin),
        (activations.mish, F.mish),
        (SwiGLU(0.2), lambda z: activations.swiglu(z, 0.2)),
        (activations.geglu, activations.geglu),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),  # no addresses, which differ by process
)
def test_an_activation_is_a_name_a_module_or_a_function(given: Any, function: Any) -> None:
    module, x = MLP(4, 6, 2, activation=given), draw(0, 5, 4)
    assert_close(module(x), module.output(function(module.hidden[0].linear(x))), 1e-6, 1e-6)
    copied = copy.deepcopy(module)
    assert_equal(copied(x), module(x))


def test_device_and_dtype() -> None:
    module = MLP(3, 4, 2, activation="prelu", norm="batch", dtype=torch.float64)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    empty = MLP(3, 4, 2, activation="prelu", norm="layer", device="meta")
    assert all(p.is_meta for p in empty.parameters())


@pytest.mark.parametrize("name", sorted(_MODULES))
def test_gradients_of_lanes_are_those_of_runs_alone(name: str) -> None:
    model = functionalize(MLP(3, [4, 4], 2, activation=name, norm="batch", dropout=0.2).double())
    keys, x = random.split(random.key(0), 3), draw(0, 3, 6, 3).double()
    params, buffers = vmap(model.init)(keys)

    def loss(params: Any, buffers: Any, x: Tensor, key: Tensor) -> Any:
        y, buffers = model.apply(params, buffers, x, key=key, train=True)
        return y.pow(2).sum(), buffers

    slope = grad(loss, has_aux=True)
    lanes = vmap(slope)(params, buffers, x, keys)
    alone = [slope(*tree.unstack((params, buffers))[i], x[i], keys[i]) for i in range(3)]
    assert_close(lanes, tree.stack(alone), rtol=1e-9, atol=1e-11)
    assert all(value.any() for value in tree.leaves(lanes[0]))


def test_training_in_lanes_is_training_alone() -> None:
    """With batch norm and dropout, for three seeds: eager, vmapped, and compiled."""
    model = functionalize(MLP(4, 8, 3, norm="batch", dropout=0.3, dtype=torch.float64))
    tx = optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    keys = random.split(random.key(7), 3)
    batches = [(draw(i, 16, 4).double(), torch.arange(16) % 3) for i in range(4)]

    def run(step: Any, state: Any) -> Any:
        losses = []
        for batch in batches:
            state, info = step(state, batch)
            losses.append(info["loss"])
        return state, losses

    def start(key: Tensor) -> Any:
        return train.init(model, tx, key)

    alone = tree.stack([run(step, start(key)) for key in keys])
    lanes = vmap(step, (0, None))
    assert_close(run(lanes, vmap(start)(keys)), alone, rtol=1e-9, atol=1e-11)
    assert_close(run(fdnn.jit(lanes), vmap(start)(keys)), alone, rtol=1e-9, atol=1e-11)
    first = vmap(start)(keys)
    assert (alone[0].buffers["hidden.0.norm.running_mean"] != 0).all()
    for name, value in first.params.items():
        assert (alone[0].params[name] != value).any(), name


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ((0, 4, 2), {}, r"`in_features` must be positive, got \[0\]"),
        ((3, [4, -1], 2), {}, r"`hidden_features` must be positive, got \[4, -1\]"),
        ((3, 4, 0), {}, r"`out_features` must be positive, got \[0\]"),
        ((3, [4], 2), {"depth": 1}, "`depth` must be left out .* a sequence, got 1"),
        ((3, 4, 2), {"depth": -1}, "`depth` must not be negative, got -1"),
        ((3, 4, 2), {"norm": "group"}, "`norm` must be None, 'batch' or 'layer', got 'group'"),
        ((3, 4, 2), {"dropout": 1.5}, r"`dropout` must be in \[0, 1\], got 1.5"),
        ((3, 4, 2), {"activation": "step"}, "`activation` must be one of .*relu.*, got 'step'"),
    ],
)
def test_errors(args: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MLP(*args, **options)


@pytest.mark.parametrize("activation", [None, 3, int])
def test_what_is_no_activation(activation: Any) -> None:
    with pytest.raises(TypeError, match="`activation` must be a name, a module or a function, got"):
        MLP(3, 4, 2, activation=activation)
