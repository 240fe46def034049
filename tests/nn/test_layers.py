"""The layers that torch lacks: as plain modules, as pure models, in lanes."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from torch import Tensor, nn
from torch.func import grad, vmap

import fdnn.nn as fnn
from fdnn import activations, functionalize, random

DOUBLE = torch.float64


def draw(seed: int, *shape: int) -> Tensor:
    return 2 * random.normal(random.key(seed), shape, DOUBLE)


# A layer, what it computes, and the shape of its input.
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "ReLUSquared": (fnn.ReLUSquared, lambda x: x.clamp(min=0) ** 2, (3, 4)),
    "Swish": (fnn.Swish, F.silu, (3, 4)),
    "Swish(0.6)": (lambda: fnn.Swish(0.6), lambda x: x * torch.sigmoid(0.6 * x), (3, 4)),
    "Swish(learnable)": (
        lambda: fnn.Swish(0.5, learnable=True).double(),
        lambda x: x * torch.sigmoid(0.5 * x),
        (3, 4),
    ),
    "SwiGLU": (fnn.SwiGLU, lambda z: F.silu(z[:, :4]) * z[:, 4:], (3, 8)),
    "SwiGLU(0.2, dim=0)": (
        lambda: fnn.SwiGLU(0.2, dim=0),
        lambda z: z[:2] * torch.sigmoid(0.2 * z[:2]) * z[2:],
        (4, 3),
    ),
    "SwiGLU(learnable)": (
        lambda: fnn.SwiGLU(0.5, learnable=True).double(),
        lambda z: z[:, :2] * torch.sigmoid(0.5 * z[:, :2]) * z[:, 2:],
        (3, 4),
    ),
    "GEGLU": (fnn.GEGLU, lambda z: F.gelu(z[:, :2]) * z[:, 2:], (3, 4)),
    "GEGLU(dim=0)": (lambda: fnn.GEGLU(dim=0), lambda z: F.gelu(z[:1]) * z[1:], (2, 3)),
    "ReGLU": (fnn.ReGLU, lambda z: F.relu(z[:, :2]) * z[:, 2:], (3, 4)),
    "ReGLU(dim=0)": (lambda: fnn.ReGLU(dim=0), lambda z: F.relu(z[:1]) * z[1:], (2, 3)),
}
every_case = pytest.mark.parametrize(("make", "formula", "shape"), CASES.values(), ids=CASES.keys())


@every_case
def test_activation_is_its_formula(
    make: Callable[[], nn.Module], formula: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    module, x = make(), draw(0, *shape)
    assert_close(module(x).detach(), formula(x), rtol=1e-14, atol=1e-14)
    model = functionalize(module)
    assert_close(model.apply(model.params, {}, x)[0], formula(x), rtol=1e-14, atol=1e-14)
    slope = grad(lambda x: model.apply(model.params, {}, x)[0].pow(3).sum())
    lanes = draw(1, 3, *shape)
    wanted = [grad(lambda x: formula(x).pow(3).sum())(x) for x in lanes]
    assert_close(vmap(slope)(lanes), torch.stack(wanted), rtol=1e-12, atol=1e-12)
    assert_equal(pickle.loads(pickle.dumps(module))(x).detach(), module(x).detach())


@pytest.mark.parametrize("layer", [fnn.Swish, fnn.SwiGLU])
def test_a_learned_beta_is_a_parameter(layer: type[nn.Module]) -> None:
    assert not dict(layer(0.3).named_parameters())
    assert "beta=0.3" in repr(layer(0.3)) and "learnable" not in repr(layer(0.3))
    assert "beta=0.3, learnable=True" in repr(layer(0.3, learnable=True))

    module = nn.Sequential(nn.Linear(4, 4), layer(0.3, learnable=True)).double()
    model = functionalize(module)
    with torch.no_grad():
        module[1].beta.fill_(7.0)
    params, _ = vmap(functionalize(module).init)(random.split(random.key(0), 3))
    assert_equal(params["1.beta"], torch.full((3,), 0.3, dtype=DOUBLE))  # where it began

    def loss(beta: Tensor, x: Tensor) -> Tensor:
        return model.apply({**model.params, "1.beta": beta}, {}, x)[0].pow(2).sum()

    x, beta, h = draw(0, 3, 4), torch.tensor(0.5, dtype=DOUBLE), 1e-5
    slope = (loss(beta + h, x) - loss(beta - h, x)) / (2 * h)
    assert slope.abs() > 0.01
    assert_close(grad(loss)(beta, x), slope, rtol=1e-7, atol=0)


def test_swiglu_of_the_chapter() -> None:
    """40 outputs of 80; the form `F.silu(beta * z1) * z2` is beta times as much."""
    z = draw(0, 32, 80)
    y = fnn.SwiGLU(beta=0.2)(z)
    assert y.shape == (32, 40)
    assert_close(F.silu(0.2 * z[:, :40]) * z[:, 40:], 0.2 * y, rtol=1e-13, atol=1e-13)
    assert_equal(y, activations.swiglu(z, 0.2))


@pytest.mark.parametrize(
    ("layer", "twin"), [(fnn.MCDropout, F.dropout), (fnn.MCAlphaDropout, F.alpha_dropout)]
)
class TestMCDropout:
    def test_plain_it_draws_as_torch_in_both_modes(self, layer: type, twin: Callable) -> None:
        module, x = layer(0.3), draw(0, 50, 4)
        for train in (True, False):
            torch.manual_seed(3)
            found = module.train(train)(x)
            torch.manual_seed(3)
            assert_equal(found, twin(x, 0.3, training=True))
            assert (found != x).any()

    def test_pure_it_needs_a_key_in_both_modes(self, layer: type, twin: Callable) -> None:
        model, x = functionalize(layer(0.3)), draw(0, 50, 4)
        generator = torch.get_rng_state()
        outputs = []
        for train in (True, False):
            with pytest.raises(ValueError, match="`key` must be given"):
                model.apply({}, {}, x, train=train)
            outputs.append(model.apply({}, {}, x, key=random.key(1), train=train)[0])
        assert_equal(*outputs)
        assert torch.equal(torch.get_rng_state(), generator)

        standard = functionalize({fnn.MCDropout: nn.Dropout}.get(layer, nn.AlphaDropout)(0.3))
        assert_equal(outputs[1], standard.apply({}, {}, x, key=random.key(1), train=True)[0])

    def test_lanes_are_single_draws(self, layer: type, twin: Callable) -> None:
        model, x = functionalize(nn.Sequential(layer(0.3), nn.Linear(4, 2).double())), draw(0, 5, 4)
        keys = random.split(random.key(0), 3)

        def predict(key: Tensor) -> Tensor:
            return model.apply(model.params, {}, x, key=key)[0]

        alone = torch.stack([predict(key) for key in keys])
        assert_close(vmap(predict)(keys), alone, rtol=1e-12, atol=1e-12)
        assert (alone[0] != alone[1]).any()

    def test_keeps_the_mean(self, layer: type, twin: Callable) -> None:
        n, model = 40_000, functionalize(layer(0.3))
        x = random.normal(random.key(2), (n,), DOUBLE)
        x = (x - x.mean()) / x.std()
        gap = model.apply({}, {}, x, key=random.key(3))[0] - x
        assert gap.mean().abs() < 5 * gap.std() / math.sqrt(n)
        assert gap.std() > 0.3

    def test_without_dropping_nothing_is_drawn(self, layer: type, twin: Callable) -> None:
        x = draw(0, 3, 4)
        assert_equal(functionalize(layer(0.0)).apply({}, {}, x)[0], x)

    def test_errors(self, layer: type, twin: Callable) -> None:
        for p in (-0.1, 1.1, math.nan):
            with pytest.raises(ValueError, match=rf"`p` must be in \[0, 1\], got {p}"):
                layer(p)
        assert repr(layer(0.2)).endswith("(p=0.2)")


class TestResidual:
    def test_adds_its_input(self) -> None:
        inner = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)).double()
        x, block = draw(0, 3, 4), fnn.Residual(*inner)
        assert_equal(block(x), x + inner(x))
        model = functionalize(block)
        assert list(model.params) == [f"body.{i}.{n}" for i in (0, 2) for n in ("weight", "bias")]
        assert_equal(model.apply(model.params, {}, x)[0], block(x).detach())

    def test_a_shortcut_changes_the_shape(self) -> None:
        inner, beside = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(2, 3, 1, stride=2)
        x = draw(0, 2, 2, 4, 4).float()
        block = fnn.Residual(inner, shortcut=beside)
        assert_equal(block(x), beside(x) + inner(x))

    @pytest.mark.parametrize("out", [1, 5])  # the first would broadcast
    def test_two_shapes_that_do_not_fit(self, out: int) -> None:
        x = torch.zeros(3, 4)
        with pytest.raises(ValueError, match=rf"the input must .* got \(3, 4\) and \(3, {out}\)"):
            fnn.Residual(nn.Linear(4, out))(x)
        block = fnn.Residual(nn.Linear(4, out), shortcut=nn.Linear(4, 2))
        said = rf"the output of `shortcut` must .* got \(3, 2\) and \(3, {out}\)"
        with pytest.raises(ValueError, match=said):
            block(x)

    def test_nothing_to_go_around(self) -> None:
        with pytest.raises(ValueError, match="`modules` must hold at least one module, got none"):
            fnn.Residual()

    def test_gradients_of_lanes(self) -> None:
        model = functionalize(fnn.Residual(nn.Linear(4, 4), nn.SiLU()).double())
        params, _ = vmap(model.init)(random.split(random.key(0), 3))
        x = draw(0, 5, 4)
        slope = grad(lambda params: model.apply(params, {}, x)[0].pow(2).sum())
        lanes = vmap(slope)(params)
        for i in range(3):
            alone = slope({name: value[i] for name, value in params.items()})
            lane = {name: value[i] for name, value in lanes.items()}
            assert_close(lane, alone, rtol=1e-12, atol=1e-12)


class TestWeightStandardized:
    def test_linear(self) -> None:
        layer, x = fnn.WeightStandardizedLinear(5, 3, dtype=DOUBLE), draw(0, 7, 5)
        var, mean = torch.var_mean(layer.weight, 1, correction=0, keepdim=True)
        wanted = x @ ((layer.weight - mean) / var.sqrt()).mT + layer.bias
        assert_close(layer(x), wanted, rtol=1e-7, atol=1e-7)
        assert "eps=1e-10" in repr(layer)

    def test_convolution(self) -> None:
        options = {"stride": 2, "padding": 1, "padding_mode": "circular", "groups": 2}
        layer = fnn.WeightStandardizedConv2d(4, 6, 3, **options, eps=1e-3, dtype=DOUBLE)
        plain = copy.deepcopy(layer)
        plain.__class__ = nn.Conv2d
        var, mean = torch.var_mean(layer.weight, (1, 2, 3), correction=0, keepdim=True)
        with torch.no_grad():
            plain.weight.copy_((layer.weight - mean) / (var + 1e-3).sqrt())
        x = draw(0, 2, 4, 6, 6)
        assert_close(layer(x), plain(x), rtol=1e-12, atol=1e-12)
        assert "padding_mode=circular, eps=0.001" in repr(layer)

    def test_the_scale_of_the_weights_does_not_matter(self) -> None:
        layer, x = fnn.WeightStandardizedConv2d(2, 3, 3, dtype=DOUBLE), draw(0, 1, 2, 5, 5)
        before = layer(x)
        with torch.no_grad():
            layer.weight.mul_(100.0).add_(3.0)
        assert_close(layer(x), before, rtol=1e-6, atol=1e-6)

    def test_as_a_model_it_is_drawn_as_torch_draws(self) -> None:
        module = nn.Sequential(
            fnn.WeightStandardizedConv2d(2, 4, 3), nn.Flatten(), fnn.WeightStandardizedLinear(36, 2)
        )
        plain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(36, 2))
        model, reference = functionalize(module), functionalize(plain)
        keys = random.split(random.key(0), 3)
        params, _ = vmap(model.init)(keys)
        assert_equal(params, vmap(reference.init)(keys)[0])

        def loss(params: dict[str, Tensor]) -> Tensor:
            return model.apply(params, {}, torch.ones(2, 2, 5, 5))[0].pow(2).sum()

        lanes = vmap(grad(loss))(params)
        for i in range(3):
            alone = grad(loss)({name: value[i] for name, value in params.items()})
            lane = {name: value[i] for name, value in lanes.items()}
            assert_close(lane, alone, rtol=1e-4, atol=1e-4)
