"""`Model.init`: torch's own laws, keys by name, rules, and layers that reset themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, vmap

from fdnn import functionalize, initializers, jit, random

KEY = random.key(60)
GATE = 5.0  # standard errors

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(90, 50),
    "linear without bias": lambda: nn.Linear(90, 50, bias=False),
    "bilinear": lambda: nn.Bilinear(15, 12, 30),
    "conv1d": lambda: nn.Conv1d(20, 40, 5),
    "conv2d": lambda: nn.Conv2d(12, 24, 3, groups=4),
    "conv3d": lambda: nn.Conv3d(8, 12, 3),
    "conv transpose": lambda: nn.ConvTranspose2d(12, 24, 3, groups=2),
    "rnn": lambda: nn.RNN(30, 40, num_layers=2, bidirectional=True),
    "lstm": lambda: nn.LSTM(30, 20, proj_size=10),
    "gru": lambda: nn.GRU(30, 20, batch_first=True),
    "rnn cell": lambda: nn.RNNCell(60, 40),
    "lstm cell": lambda: nn.LSTMCell(30, 40),
    "gru cell": lambda: nn.GRUCell(30, 40),
    "embedding": lambda: nn.Embedding(70, 30, padding_idx=3),
    "embedding bag": lambda: nn.EmbeddingBag(70, 30),
    "batch norm": lambda: nn.BatchNorm2d(30),
    "instance norm": lambda: nn.InstanceNorm1d(30, affine=True),
    "layer norm": lambda: nn.LayerNorm((5, 6)),
    "group norm": lambda: nn.GroupNorm(3, 30),
    "rms norm": lambda: nn.RMSNorm(30),
    "prelu": lambda: nn.PReLU(30, init=0.1),
    "attention": lambda: nn.MultiheadAttention(40, 4, kdim=30, vdim=20, add_bias_kv=True),
    "self-attention": lambda: nn.MultiheadAttention(40, 4),
    "encoder layer": lambda: nn.TransformerEncoderLayer(40, 4, 60),
    "transformer": lambda: nn.Transformer(32, 4, 1, 1, 64, batch_first=True),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


class Own(nn.Module):
    """A layer that torch does not know, and that draws by itself."""

    def __init__(self, size: int = 5):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.loc)
        with torch.no_grad():
            self.log_scale.copy_(-self.loc)  # parameters that only fit together

    def forward(self, x: Tensor) -> Tensor:
        return x * self.log_scale.exp() + self.loc


class Bare(nn.Module):
    """Parameters that nothing says how to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.arange(3.0))
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + self.token)


def fresh(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return make()


def net() -> nn.Module:
    return nn.Sequential(
        nn.Embedding(9, 4),
        nn.Linear(4, 6),
        nn.LayerNorm(6),
        nn.Linear(6, 6),
        nn.MultiheadAttention(6, 2),
        nn.BatchNorm1d(6),
        nn.PReLU(),
    )


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        assert torch.equal(found[name], expected[name]), name


def mean_and_error(x: Tensor) -> tuple[float, float]:
    return x.mean().item(), (x.std() / math.sqrt(x.numel())).item()


@every_layer
def test_law_is_torchs(make: Callable[[], nn.Module]) -> None:
    """Against a new layer: the same constants, or the same mean, variance and range."""
    module = fresh(make)
    params, _ = functionalize(module).init(KEY)
    expected = dict(module.named_parameters())
    assert list(params) == list(expected)
    for name, value in params.items():
        own = expected[name].detach()
        assert (value.shape, value.dtype) == (own.shape, own.dtype), name
        if (own == own.flatten()[0]).all():
            assert torch.equal(value, own), name
            continue
        assert not torch.equal(value, own), name
        for power in (1, 2):
            a, a_error = mean_and_error(value.double() ** power)
            b, b_error = mean_and_error(own.double() ** power)
            assert abs(a - b) < GATE * math.hypot(a_error, b_error), (name, power)
        is_normal = "embedding" in type(module).__name__.lower() or name in ("bias_k", "bias_v")
        if not is_normal:
            # Uniform: the largest of n is within a few n-ths of the bound.
            slack = 20 / own.numel()
            assert abs(value.abs().max() / own.abs().max() - 1) < slack, name


def test_padding_row_is_zero() -> None:
    params, _ = functionalize(nn.Embedding(7, 3, padding_idx=2)).init(KEY)
    assert not params["weight"][2].any()
    assert params["weight"].ne(0).any(1).sum() == 6


def test_key_decides() -> None:
    model = functionalize(net())
    generator = torch.get_rng_state()
    first, again, other = (model.init(key)[0] for key in (KEY, KEY, random.key(61)))
    assert torch.equal(torch.get_rng_state(), generator)
    assert_equal(again, first)
    drawn = [name for name, value in first.items() if value.numel() > 1 and value.std() > 0]
    assert len(drawn) == 7
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_each_parameter_has_its_own_randomness() -> None:
    make = lambda: nn.Sequential(*(nn.Linear(40, 40) for _ in range(3)))  # noqa: E731
    params, _ = functionalize(make()).init(KEY)
    values = torch.stack([value.flatten() for value in params.values() if value.ndim == 2])
    correlation = torch.corrcoef(values)
    assert (correlation - torch.eye(3)).abs().max() < GATE / math.sqrt(1600)


def test_other_layers_change_nothing() -> None:
    """The key of a parameter is of its name alone, not of its place."""
    layers = {"b": nn.Linear(4, 3), "a": nn.Conv1d(2, 3, 2), "c": nn.Embedding(5, 2)}
    alone = {name: functionalize(nn.ModuleDict({name: layer})) for name, layer in layers.items()}
    params, _ = functionalize(nn.ModuleDict(layers)).init(KEY)
    expected = {k: v for model in alone.values() for k, v in model.init(KEY)[0].items()}
    assert_equal({name: params[name] for name in expected}, expected)


def test_own_values_do_not_matter() -> None:
    one, two = functionalize(net()), functionalize(net())
    assert_equal(two.init(KEY)[0], one.init(KEY)[0])


def test_vmapped_lanes_are_solo_bit_for_bit() -> None:
    model = functionalize(net())
    keys = random.split(KEY, 3)
    params, buffers = vmap(model.init)(keys)
    for lane, key in enumerate(keys):
        expected, fresh_buffers = model.init(key)
        assert_equal({name: value[lane] for name, value in params.items()}, expected)
        assert_equal({name: value[lane] for name, value in buffers.items()}, fresh_buffers)


@pytest.mark.filterwarnings("ignore:nothing says how to draw")
def test_lanes_have_memory_of_their_own() -> None:
    """A lane can be written to, and strides do not change after the first step."""
    module = nn.Sequential(Bare(), nn.BatchNorm1d(3))
    module.register_buffer("position", torch.arange(3.0))
    params, buffers = vmap(functionalize(module).init)(random.split(KEY, 2))
    for name, value in {**params, **buffers}.items():
        assert value.is_contiguous(), name
        value[0].fill_(7)
        assert (value[1] != 7).any(), name


def test_compiled() -> None:
    model = functionalize(nn.Sequential(net(), Bare()))
    with pytest.warns(UserWarning, match="nothing says how to draw"):
        expected = model.init(KEY)
    found = jit(model.init)(KEY)  # where no warning can be given
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_buffers_are_a_new_layers() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU())
    module.register_buffer("position", torch.arange(3.0))
    for _ in range(3):
        module(random.normal(KEY, (8, 3)))
    model = functionalize(module)
    assert model.buffers["1.num_batches_tracked"] == 3
    _, buffers = model.init(KEY)
    assert_equal(
        buffers,
        {
            "position": torch.arange(3.0),
            "1.running_mean": torch.zeros(3),
            "1.running_var": torch.ones(3),
            "1.num_batches_tracked": torch.tensor(0),
        },
    )
    buffers["position"].zero_()
    assert model.buffers["position"][2] == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    params, buffers = functionalize(net().to(dtype)).init(KEY)
    assert {value.dtype for value in params.values()} == {dtype}
    assert buffers["5.running_mean"].dtype == dtype
    assert buffers["5.num_batches_tracked"].dtype == torch.int64
    assert params["1.weight"].abs().max() <= 0.5


@pytest.mark.parametrize("module", ["cpu", "meta"])
@pytest.mark.parametrize("key", ["cpu", "meta"])
def test_values_live_with_the_key(module: str, key: str) -> None:
    model = functionalize(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).to(module))
    params, buffers = model.init(KEY.to(key))
    assert {value.device.type for value in [*params.values(), *buffers.values()]} == {key}


def test_a_module_without_memory_is_drawn_like_one_with() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    expected, _ = functionalize(module).init(KEY)
    assert_equal(functionalize(module.to("meta")).init(KEY)[0], expected)


def test_weight_and_bias() -> None:
    model = functionalize(net())
    default, _ = model.init(KEY)
    params, _ = model.init(KEY, weight=initializers.constant(5.0), bias=initializers.constant(7.0))
    changed = {name for name, value in params.items() if not torch.equal(value, default[name])}
    weights = {"1.weight", "3.weight", "4.in_proj_weight", "4.out_proj.weight"}
    biases = {"1.bias", "2.bias", "3.bias", "4.in_proj_bias", "4.out_proj.bias", "5.bias"}
    assert changed == weights | biases  # neither the embedding, nor the norms' and PReLU's scales
    assert all((params[name] == 5).all() for name in weights)
    assert all((params[name] == 7).all() for name in biases)


def test_rules_come_first_and_the_first_wins() -> None:
    model = functionalize(net())
    one, two, three, four = (initializers.constant(float(value)) for value in (1, 2, 3, 4))
    params, _ = model.init(
        KEY,
        weight=one,
        rules=[("3.weight", two), ("*.weight", three), ("4.*bias", four), ("0.*", two)],
    )
    found = {name: value.flatten()[0].item() for name, value in params.items()}
    default, _ = model.init(KEY)
    assert found == {
        "0.weight": 3,
        "1.weight": 3,
        "1.bias": default["1.bias"][0].item(),
        "2.weight": 3,
        "2.bias": 0,
        "3.weight": 2,
        "3.bias": default["3.bias"][0].item(),
        "4.in_proj_weight": 1,
        "4.in_proj_bias": 4,
        "4.out_proj.weight": 3,
        "4.out_proj.bias": 4,
        "5.weight": 3,
        "5.bias": 0,
        "6.weight": 3,
    }


def test_rule_draws_by_the_parameters_own_key() -> None:
    model = functionalize(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    params, _ = model.init(KEY, rules=[("*", initializers.normal())])
    values = [params["0.weight"], params["1.weight"], params["0.bias"].expand(4, 4)]
    assert not any(torch.equal(a, b) for a in values for b in values if a is not b)
    again, _ = model.init(KEY, weight=initializers.normal())
    assert torch.equal(again["1.weight"], params["1.weight"])


def test_unmatched_rule_is_an_error() -> None:
    model = functionalize(nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"'head\.\*' matches no parameter.*\['weight', 'bias'\]"):
        model.init(KEY, rules=[("*", initializers.zeros), ("head.*", initializers.zeros)])


def test_layer_that_resets_itself() -> None:
    model = functionalize(nn.ModuleDict({"a": Own(), "b": Own(), "c": nn.Linear(5, 5)}))
    generator = torch.get_rng_state()
    params, _ = model.init(KEY)
    assert torch.equal(torch.get_rng_state(), generator)
    assert_equal(model.init(KEY)[0], params)
    for name in ("a", "b"):
        assert torch.equal(params[f"{name}.log_scale"], -params[f"{name}.loc"])
        assert not torch.equal(params[f"{name}.loc"], model.params[f"{name}.loc"])
    assert not torch.equal(params["a.loc"], params["b.loc"])
    assert not torch.equal(model.init(random.key(61))[0]["a.loc"], params["a.loc"])


def test_drawing_leaves_the_layer_as_it_was() -> None:
    module = Own()
    model = functionalize(module)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    params, _ = model.init(KEY)
    params["loc"].zero_()
    assert_equal(dict(module.named_parameters()), before)
    assert_equal(model.params, before)
    assert model.init(KEY)[0]["loc"].any()


def test_law_of_a_layer_that_resets_itself() -> None:
    params, _ = functionalize(Own(20_000)).init(KEY)
    mean, error = mean_and_error(params["loc"])
    assert abs(mean) < GATE * error
    assert abs(params["loc"].square().mean() - 1) < GATE * math.sqrt(2 / 20_000)


def test_layer_that_resets_itself_under_vmap() -> None:
    model = functionalize(nn.ModuleDict({"a": Own()}))
    keys = random.split(KEY, 2)
    with pytest.raises(ValueError, match=r"under vmap, layer 'a' cannot be drawn.*rules="):
        vmap(model.init)(keys)
    params, _ = vmap(lambda key: model.init(key, rules=[("a.*", initializers.normal())]))(keys)
    assert params["a.loc"].shape == (2, 5)


def test_bare_parameters_are_kept_with_a_warning() -> None:
    model = functionalize(Bare())
    with pytest.warns(UserWarning, match=r"nothing says how to draw \['token'\].*rules="):
        params, _ = model.init(KEY)
    assert torch.equal(params["token"], torch.arange(3.0))
    params["token"].zero_()
    assert model.params["token"][2] == 2
    ruled, _ = model.init(KEY, rules=[("token", initializers.normal())])  # no warning
    assert not torch.equal(ruled["token"], torch.arange(3.0))


def test_complex_parameters_need_a_rule() -> None:
    def draw(key: Tensor, shape: Any, dtype: torch.dtype, device: Any) -> Tensor:
        return random.normal(key, shape, dtype).to(device)

    model = functionalize(nn.Linear(4, 3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="`dtype` must be one of"):
        model.init(KEY)
    params, _ = model.init(KEY, rules=[("*", draw)])
    assert params["weight"].dtype == torch.complex64
    assert params["weight"].imag.any()


def test_tied_parameter_is_drawn_once() -> None:
    embedding, head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    head.weight = embedding.weight
    params, _ = functionalize(nn.Sequential(embedding, head)).init(KEY)
    assert list(params) == ["0.weight"]
    alone, _ = functionalize(nn.Sequential(nn.Embedding(7, 4))).init(KEY)
    assert torch.equal(params["0.weight"], alone["0.weight"])


def test_a_module_says_how_it_is_drawn() -> None:
    class Twos(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)
            self.initializers = {
                "first.weight": initializers.constant(2.0),
                "second.bias": initializers.zeros,
            }

    params, _ = functionalize(nn.Sequential(Twos(), nn.Linear(2, 2))).init(KEY)
    assert (params["0.first.weight"] == 2).all()
    assert (params["0.second.bias"] == 0).all()
    assert (params["0.first.bias"] != 0).all()
    params, _ = functionalize(Twos()).init(KEY, weight=initializers.ones)
    assert (params["first.weight"] == 1).all()
