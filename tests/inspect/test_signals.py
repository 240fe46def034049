"""`signal_propagation` against loops with autograd, closed forms, and known figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close
from torch import Tensor, nn, vmap

from fdnn import functionalize, initializers, inspect, random, tree
from fdnn.inspect import LayerSignals


def by_hand(
    module: nn.Module, x: Tensor, target: Tensor, criterion: Callable[..., Tensor]
) -> dict[str, LayerSignals]:
    """The same by hooks and `backward`, for a module each of whose layers is called once."""
    seen = {}

    def hook(name: str) -> Any:
        def keep(layer: nn.Module, args: Any, output: Tensor) -> None:
            output.retain_grad()
            seen[name] = output

        return keep

    for name, layer in module.named_children():
        layer.register_forward_hook(hook(name))
    criterion(module(x), target).backward()
    found = {}
    for name, h in seen.items():
        weight = getattr(module.get_submodule(name), "weight", None)
        flat = h.detach().flatten(1)
        found[name] = LayerSignals(
            mean=flat.mean(),
            std=(flat - flat.mean()).square().mean().sqrt(),
            grad_norm=h.grad.square().sum().sqrt(),
            weight_grad_norm=h.new_zeros(()) if weight is None else weight.grad.norm(),
            dead=torch.tensor([bool((unit == 0).all()) for unit in flat.T]).to(h.dtype).mean(),
            saturated=h.new_zeros(()),
        )
    return found


def run(
    module: nn.Module, x: Any, target: Any, criterion: Any = F.mse_loss, **options: Any
) -> dict[str, LayerSignals]:
    model = functionalize(module)
    batch = (x, target)
    return inspect.signal_propagation(
        model, model.params, model.buffers, batch, criterion, **options
    )


@pytest.mark.parametrize("train", [True, False])
def test_equals_hooks_and_backward(train: bool) -> None:
    module = nn.Sequential(
        nn.Linear(4, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 5), nn.GELU(), nn.Linear(5, 2)
    )
    module.double().train(train)
    module[1].bias.data[:4] = -50.0  # four dead units
    x, y = torch.randn(7, 4).double(), torch.randint(0, 2, (7,))
    found = run(module, x, y, F.cross_entropy, train=train)
    assert found["2"].dead == 4 / 9
    assert_close(found, by_hand(module, x, y, F.cross_entropy), rtol=1e-12, atol=1e-15)


def test_convolutions() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 1)).double()
    x, y = torch.randn(5, 2, 6, 6).double(), torch.randn(5, 1).double()
    assert_close(run(module, x, y), by_hand(module, x, y, F.mse_loss), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("layer", "share"),
    [
        (nn.Sigmoid(), 0.4),
        (nn.Tanh(), 0.4),
        (nn.Hardtanh(-2.0, 2.0), 0.4),
        (nn.ReLU6(), 0.8),
        (nn.Softsign(), 0.0),
        (nn.ReLU(), 0.0),
    ],
)
def test_saturation(layer: nn.Module, share: float) -> None:
    # sigmoid leaves (0.05, 0.95) at 2.944, tanh leaves (-0.9, 0.9) at 1.472
    edge = 1.4722 if isinstance(layer, nn.Tanh) else 2.9445
    x = torch.tensor([[-1.001, -0.999, 0.0, 0.999, 1.001]]).double() * edge
    if isinstance(layer, nn.Hardtanh):
        x = torch.tensor([[-1.81, -1.79, 0.0, 1.79, 1.81]]).double()
    if isinstance(layer, nn.ReLU6):
        x = torch.tensor([[-1.0, 0.29, 5.71, 1.0, 7.0]]).double()
    assert run(layer, x, x)[""].saturated == share


def test_threshold_is_a_share_of_the_range() -> None:
    x = torch.linspace(-0.99, 0.99, 100).double()[None]
    found = run(nn.Hardtanh(), x, x, threshold=0.25)[""]
    assert found.saturated == (x.abs() >= 0.5).double().mean()


class Reused(nn.Module):
    """A layer called twice, whose output the next line writes into; and what nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)
        self.index = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.index(torch.arange(3))
        first = self.linear(x)
        first += 1
        second = self.linear(first)
        return second


def test_calls_are_told_apart() -> None:
    module = Reused().double()
    x, y = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    found = run(module, x, y)
    assert list(found) == ["linear", "linear:2"]
    weight, bias = (p.detach().requires_grad_() for p in module.linear.parameters())
    first = F.linear(x, weight, bias)
    second = F.linear(first + 1, weight, bias)
    grads = torch.autograd.grad(F.mse_loss(second, y), (first, second, weight))
    for call, output, grad in (("linear", first, grads[0]), ("linear:2", second, grads[1])):
        torch.testing.assert_close(found[call].mean, output.mean())
        torch.testing.assert_close(found[call].std, output.std(correction=0))
        torch.testing.assert_close(found[call].grad_norm, grad.norm())
        torch.testing.assert_close(found[call].weight_grad_norm, grads[2].norm())


def test_outputs_with_several_tensors() -> None:
    module = nn.LSTM(3, 2, batch_first=True).double()
    x, y = torch.randn(4, 5, 3).double(), torch.randn(1, 4, 2).double()
    found = run(module, x, y, lambda output, target: F.mse_loss(output[1][0], target))[""]
    output, (hidden, _) = module(x)
    (grad,) = torch.autograd.grad(F.mse_loss(hidden, y), hidden, retain_graph=True)
    weights = [p for name, p in module.named_parameters() if "weight" in name]
    grads = torch.autograd.grad(F.mse_loss(hidden, y), weights)
    torch.testing.assert_close(found.std, output.std(correction=0))
    torch.testing.assert_close(found.grad_norm, grad.norm())
    torch.testing.assert_close(found.weight_grad_norm, torch.cat([g.ravel() for g in grads]).norm())


def test_parameters_belong_to_the_innermost_layer_that_is_called() -> None:
    model = functionalize(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).double())
    x = torch.randn(3, 5, 4).double()
    key = random.key(0)
    found = inspect.signal_propagation(
        model, model.params, model.buffers, (x, x), F.mse_loss, key=key
    )
    grads = torch.func.grad(lambda p: F.mse_loss(model.apply(p, {}, x, key=key, train=True)[0], x))(
        model.params
    )
    attention = tree.select(grads, "self_attn.*weight")  # out_proj is used, but never called
    assert len(attention) == 2
    torch.testing.assert_close(found["self_attn"].weight_grad_norm, tree.global_norm(attention))
    assert "self_attn.out_proj" not in found
    assert found["linear2"].weight_grad_norm == grads["linear2.weight"].norm()


def test_keyword_inputs_and_parametrized_layers() -> None:
    module = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3, bias=False))
    x = torch.randn(4, 3)
    found = run(module, {"input": x}, x)
    assert list(found) == [""]
    assert found[""].weight_grad_norm > 0


def test_vanishing_is_measured_beyond_the_range_of_squares() -> None:
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    module[1].weight.data = torch.eye(2) * 1e-30
    x = torch.ones(1, 2)
    found = run(module, x, x, lambda output, target: output.sum())
    torch.testing.assert_close(
        found["0"].grad_norm, torch.tensor(2**0.5 * 1e-30), rtol=1e-5, atol=0
    )


def test_half_precision_is_measured_in_float32() -> None:
    found = run(nn.Linear(3, 2).bfloat16(), torch.ones(4, 3).bfloat16(), torch.ones(4, 2))[""]
    assert {field.dtype for field in found} == {torch.float32}


DROPPING = functionalize(
    nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))
)


def dropping(key: Tensor, x: Tensor, y: Tensor) -> dict[str, LayerSignals]:
    params, buffers = DROPPING.init(key)
    return inspect.signal_propagation(DROPPING, params, buffers, (x, y), F.cross_entropy, key=key)


def test_lanes_are_runs_made_alone() -> None:
    keys, x, y = random.split(random.key(0), 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    expected = tree.stack([dropping(key, x, y) for key in keys])
    found = vmap(dropping, in_dims=(0, None, None))(keys, x, y)
    assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert list(found) == ["0", "1", "2", "3", "4"]


def test_can_be_differentiated() -> None:
    model = functionalize(nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double())
    x = torch.randn(4, 3).double()

    def size(weight: Tensor) -> Tensor:
        params = model.params | {"0.weight": weight}
        found = inspect.signal_propagation(model, params, {}, (x, x), F.mse_loss)
        return found["0"].grad_norm + found["1"].std

    weight = model.params["0.weight"].clone().requires_grad_()
    assert torch.autograd.gradcheck(size, weight)


def test_leaves_the_model_as_it_was() -> None:
    model = functionalize(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    layers = [layer for train in (True, False) for layer in model.skeleton(train).modules()]
    before = [set(vars(layer)) for layer in layers]
    x = torch.ones(2, 3)
    inspect.signal_propagation(model, model.params, {}, (x, x), F.mse_loss)
    with pytest.raises(RuntimeError):
        inspect.signal_propagation(model, model.params, {}, (torch.ones(2, 4), x), F.mse_loss)
    assert [set(vars(layer)) for layer in layers] == before


def test_keeps_a_forward_of_the_layers_own() -> None:
    module = nn.Linear(2, 2)
    module.forward = lambda x: 3 * x  # type: ignore[method-assign]
    model, x = functionalize(module), torch.ones(2, 2)
    for _ in range(2):
        found = inspect.signal_propagation(model, model.params, {}, (x, x), F.mse_loss)
        assert found[""].mean == 3
    assert torch.equal(model.apply(model.params, {}, x)[0], 3 * x)


def test_refusals() -> None:
    module, x = nn.Sequential(nn.Linear(2, 2), nn.Dropout()), torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 0\.5\], got 0\.6"):
        run(module, x, x, threshold=0.6)
    with pytest.raises(ValueError, match=r"`criterion` must return a 0-d tensor, got shape \(3, 2"):
        run(module, x, x, lambda output, target: output - target, train=False)
    with pytest.raises(ValueError, match="`key` must be given"):
        run(module, x, x)


def deep(activation: type[nn.Module], **rules: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of 20 layers of width 100: gradient of the first over that of the last hidden layer."""
    width, seeds = 100, 24
    layers = [nn.Linear(784, width), activation()]
    for _ in range(19):
        layers += [nn.Linear(width, width), activation()]
    model = functionalize(nn.Sequential(*layers, nn.Linear(width, 10)))
    x = random.normal(random.key(1), (64, 784))
    y = random.randint(random.key(2), (64,), 0, 10, torch.int64)

    def measure(key: Tensor) -> dict[str, LayerSignals]:
        return inspect.signal_propagation(model, *model.init(key, **rules), (x, y), F.cross_entropy)

    found = vmap(measure)(random.split(random.key(0), seeds))
    ratio = (found["0"].weight_grad_norm / found["38"].weight_grad_norm).double().log10()
    return ratio.mean(), ratio.std() / seeds**0.5, found["39"].std.median()


@pytest.mark.parametrize(
    ("activation", "weight", "ratio", "signal"),
    [
        (nn.Sigmoid, "glorot_uniform", 3e-12, 0.12),
        (nn.ReLU, None, 6e-6, 0.036),
        (nn.ReLU, "he_uniform", 1.2, 0.8),
        (nn.ReLU, "glorot_uniform", 2.4, 8e-4),
        (nn.SELU, "lecun_normal", 2.6, 1.0),
    ],
)
def test_figures_of_deep_networks(
    activation: type[nn.Module], weight: str | None, ratio: float, signal: float
) -> None:
    """They are known to half an order of magnitude, and to the error of the mean over seeds."""
    rules = (
        {"weight": getattr(initializers, weight)(), "bias": initializers.zeros} if weight else {}
    )
    mean, error, std = deep(activation, **rules)
    assert abs(mean - torch.tensor(ratio).log10()) < 0.5 + 3 * error
    assert 0.5 < std / signal < 2


def test_a_linear_network_keeps_the_mean_square_both_ways() -> None:
    """E ||W' g||^2 = ||g||^2 for square W of variance 1 / width, and so for any depth."""
    model = functionalize(nn.Sequential(*(nn.Linear(20, 20, bias=False) for _ in range(5))))
    x = random.normal(random.key(1), (8, 20))

    def squares(key: Tensor) -> Tensor:
        params, _ = model.init(key, weight=initializers.glorot_normal())
        found = inspect.signal_propagation(
            model, params, {}, (x, x), lambda output, target: (output * target).sum()
        )
        back = found["0"].grad_norm / found["4"].grad_norm
        ahead = (found["4"].std ** 2 + found["4"].mean ** 2) / x.square().mean()
        return torch.stack([back**2, ahead])

    found = vmap(squares)(random.split(random.key(0), 1000))
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - 1).abs() < 4 * error).all()
    assert (error < 0.05).all()
