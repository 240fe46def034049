"""Weights that do not suit the activation that follows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checked import KEY, classes, drawn, fine, look, mistakes, normal, only, stack
from torch import Tensor, nn

from fdnn import functionalize, initializers, inspect, random
from fdnn import nn as fnn


def test_he_before_selu() -> None:
    """D12 of the chapter: SELU drawn by He's law; of 1,000 layers the signal explodes."""
    report = drawn(stack(nn.SELU, 20), initializers.he_normal())
    only(report, "initialization", cure='for_activation("selu")')
    assert "grow" in report.findings[0].problem
    only(drawn(stack(nn.SELU, 3), initializers.he_normal()), "initialization", "0, 2, 4")
    fine(drawn(stack(nn.SELU, 2), initializers.he_normal()))
    fine(drawn(stack(nn.SELU, 20), initializers.lecun_normal()))
    found = drawn(stack(nn.SELU, 1000, width=32), initializers.he_normal(), n=16)
    assert "initialization" in mistakes(found)
    assert {"exploding signal", "not finite"} & set(mistakes(found))


def test_torchs_default_before_relu() -> None:
    """Of one or two hidden layers no mistake, of three one, of twenty the network is lost."""
    for depth in (1, 2):
        fine(drawn(stack(nn.ReLU, depth), None))
    report = drawn(stack(nn.ReLU, 3), None)
    only(report, "initialization", "0, 2, 4", 'for_activation("relu")')
    assert "fade" in report.findings[0].problem
    report = drawn(stack(nn.ReLU, 20, width=100), None)
    assert mistakes(report) == ["initialization", "vanishing gradient"]
    assert report.findings[0].where == "0, 2, 4, ... (20 in all)"


@pytest.mark.parametrize("depth", [1, 3, 20])
@pytest.mark.parametrize(
    ("activation", "weight"),
    [
        (nn.ReLU, "he_uniform"),
        (nn.Tanh, "glorot_uniform"),
        (nn.SELU, "lecun_normal"),
        (nn.GELU, "he_normal"),
        (nn.ELU, "he_normal"),
        (nn.ReLU6, "he_normal"),
    ],
)
def test_matching_weights(activation: Any, weight: str, depth: int) -> None:
    fine(drawn(stack(activation, depth, width=100), getattr(initializers, weight)()))


@pytest.mark.parametrize("activation", [partial(nn.LeakyReLU, 0.9), partial(nn.PReLU, init=0.9)])
def test_leaky_slopes(activation: Any) -> None:
    """With a slope of 0.9 He's variance is 1.1 / n, and that for relu is too large."""
    suited = initializers.for_activation("leaky_relu", negative_slope=0.9)
    fine(drawn(stack(activation, 6), suited))
    report = drawn(stack(activation, 6), initializers.he_normal())
    assert mistakes(report)[0] == "initialization"
    assert "negative_slope=0.9" in report.findings[0].cure


def test_sigmoid() -> None:
    fine(drawn(stack(nn.Sigmoid, 4), initializers.glorot_normal()))
    found = drawn(stack(nn.Sigmoid, 4), initializers.normal(1.0))
    assert mistakes(found)[0] == "initialization"
    assert "saturate" in found.findings[0].problem
    found = mistakes(drawn(stack(nn.Sigmoid, 20), initializers.glorot_normal()))
    assert found == ["vanishing gradient"]


def test_one_layer_may_be_wrong_enough() -> None:
    module = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 3))
    model = functionalize(module)
    params, _ = model.init(KEY, rules=[("0.weight", initializers.normal(1.0))])
    report = inspect.check(model, params, batch=(normal(32, 784), None))
    only(report, "initialization", "0", 'for_activation("relu")')


def test_a_norm_makes_the_weights_harmless() -> None:
    blocks = [
        nn.Sequential(nn.Linear(64, 64, bias=False), norm(64), nn.ReLU())
        for norm in (nn.BatchNorm1d, nn.LayerNorm, nn.BatchNorm1d, nn.RMSNorm)
    ]
    module = nn.Sequential(nn.Linear(10, 64), *blocks, nn.Linear(64, 3))
    fine(drawn(module, None))
    fine(drawn(module, initializers.normal(1.0)))
    after = [nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.LayerNorm(64)) for _ in range(5)]
    module = nn.Sequential(nn.Linear(10, 64), *after, nn.Linear(64, 3))
    fine(drawn(module, None))
    fine(drawn(module, initializers.normal(3.0)))


def test_residual_connections_break_the_row() -> None:
    blocks = [
        nn.Sequential(
            nn.LayerNorm(64), fnn.Residual(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        )
        for _ in range(6)
    ]
    fine(drawn(nn.Sequential(nn.Linear(10, 64), *blocks, nn.Linear(64, 3)), None))


def test_transformers_are_not_accused() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    module = nn.Sequential(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False))
    x = normal(8, 5, 16)
    fine(look(module, (x, x), F.mse_loss, key=KEY))


def test_few_weights_prove_nothing() -> None:
    """Of 2 x 2 weights drawn by the right law, the variance is often wrong by 2: not accused."""
    model = functionalize(
        nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(6)))
    )
    for seed in range(30):
        params, _ = model.init(random.key(seed), weight=initializers.he_normal())
        found = inspect.check(model, params, batch=(normal(32, 2), None))
        assert "initialization" not in mistakes(found)


def test_convolutions_and_functions() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(8 if i else 2, 8, 3, padding=1) for i in range(4))
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            for conv in self.convs:
                x = F.relu(F.avg_pool2d(conv(x), 3, 1, 1))
            return self.head(x.mean((2, 3)))

    model = functionalize(Net())
    batch = normal(16, 2, 6, 6), classes(16)
    report = inspect.check(model, batch=batch, criterion=F.cross_entropy)
    assert mistakes(report)[0] == "initialization"
    assert report.findings[0].where == "convs.1, convs.2, convs.3"
    params, _ = model.init(KEY, weight=initializers.he_normal(), bias=initializers.zeros)
    fine(inspect.check(model, params, batch=batch, criterion=F.cross_entropy))


@pytest.mark.parametrize(
    "activation", ["swish", "swiglu", "geglu", "reglu", "glu", "mish", "relu_squared"]
)
def test_our_own_perceptrons(activation: str) -> None:
    for depth, norm in ((2, None), (5, "layer"), (5, "batch")):
        module = fnn.MLP(10, 64, 3, depth=depth, activation=activation, norm=norm)
        fine(look(module, (normal(64, 10), classes(64)), F.cross_entropy))
    model = functionalize(fnn.MLP(10, 64, 3, depth=3, activation=activation))
    params, _ = model.init(KEY, weight=initializers.normal(0.01))
    found = inspect.check(model, params, batch=(normal(64, 10), None))
    only(
        found,
        "initialization",
        cure=f'for_activation("{activation}")' if activation != "swish" else "swish",
    )


def test_equal_weights() -> None:
    report = drawn(stack(nn.Tanh, 2), initializers.constant(0.1))
    assert mistakes(report)[0] == "equal weights"
    assert report.findings[0].where == "0, 2"
    model = functionalize(stack(nn.Tanh, 2))
    params = model.params | {"4.weight": torch.zeros(3, 64)}  # a last layer of zeros is common
    fine(inspect.check(model, params, batch=(normal(32, 64), classes()), criterion=F.cross_entropy))
