"""Parameters and signals that lead nowhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from checked import KEY, classes, fine, look, normal, only, stack
from torch import Tensor, nn

from fdnn import functionalize, initializers, inspect, random
from fdnn import nn as fnn
from fdnn.inspect import Report


class Spare(nn.Module):
    def __init__(self, detach: bool, spare: bool) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(10, 8), nn.Linear(8, 3)
        self.detach = detach
        if spare:
            self.spare = nn.Linear(10, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(h.detach() if self.detach else h)


def test_unused_parameters() -> None:
    batch = normal(32, 10), classes()
    report = look(Spare(False, True), batch, F.cross_entropy)
    only(report, "unused parameters", "spare.weight, spare.bias", "forward")
    report = look(Spare(True, False), batch, F.cross_entropy)
    only(report, "unused parameters", "body.weight, body.bias", "detach")
    fine(look(Spare(False, False), batch, F.cross_entropy))


def test_a_gradient_of_0_is_a_path() -> None:
    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.gate = nn.Linear(10, 3), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) + 0 * self.gate

    fine(look(Zero(), (normal(32, 10), classes()), F.cross_entropy))
    fine(look(nn.LSTM(4, 4), (normal(5, 8, 4), None), lambda output, _: output[0].square().mean()))


def test_dead_units() -> None:
    model = functionalize(stack(nn.ReLU, 1))
    params, _ = model.init(KEY, weight=initializers.he_normal())
    batch = normal(32, 64), classes()
    bias = torch.full((64,), -20.0)
    bias[:16] = 0
    report = inspect.check(model, params | {"0.bias": bias}, batch=batch, criterion=F.cross_entropy)
    only(report, "dead units", "1", "leaky_relu")
    assert "75 %" in report.findings[0].problem
    bias[:48] = 0
    fine(inspect.check(model, params | {"0.bias": bias}, batch=batch, criterion=F.cross_entropy))


def test_half_of_the_units_may_be_0_for_one_example() -> None:
    for seed in range(5):
        model = functionalize(fnn.MLP(10, 100, 3, depth=5))
        params, buffers = model.init(random.key(seed))
        batch = normal(1, 10, seed=seed), classes(1)
        fine(inspect.check(model, params, buffers, batch=batch, criterion=F.cross_entropy))


def test_signals_without_an_activation() -> None:
    def linear(scale: float) -> Report:
        module = nn.Sequential(*(nn.Linear(10, 10, bias=False) for _ in range(6)))
        model = functionalize(module)
        params, _ = model.init(
            KEY, weight=initializers.variance_scaling(scale**2, "fan_in", "normal")
        )
        return inspect.check(
            model, params, batch=(normal(32, 10), normal(32, 10)), criterion=F.mse_loss
        )

    fine(linear(1.0))
    only(linear(10.0), "exploding signal", "0 to 4", "for_activation")
    only(linear(0.1), "vanishing signal", "0 to 4", "for_activation")


def test_exploding_gradient() -> None:
    class Steep(nn.Module):
        """The signal stays, the gradient grows a hundredfold."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(100 * x)

    layers = [nn.Sequential(nn.Linear(16, 16), Steep()) for _ in range(4)]
    report = look(
        nn.Sequential(*layers, nn.Linear(16, 3)), (normal(32, 16), classes()), F.cross_entropy
    )
    only(report, "exploding gradient", cure="clip gradients")


def test_zeros_on_purpose_are_no_vanishing_gradient() -> None:
    block = fnn.Residual(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    block.body[2].weight.data.zero_()
    report = look(
        nn.Sequential(nn.Linear(8, 8), block, nn.Linear(8, 3)),
        (normal(32, 8), classes()),
        F.cross_entropy,
    )
    fine(report)
    assert "vanishing gradients (all weights of 1.body.2 are 0)" in report.not_checked


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def test_what_is_not_finite() -> None:
    module = nn.Sequential(
        nn.Linear(10, 8),
        Log(),
        nn.Linear(8, 3),
    )
    report = look(module, (normal(32, 10), classes()), F.cross_entropy)
    only(report, "not finite", "1", "logarithm")


def test_gradients_that_are_not_finite() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (0 * x).sqrt()

    report = look(
        nn.Sequential(nn.Linear(10, 8), Root(), nn.Linear(8, 3)),
        (normal(32, 10), classes()),
        F.cross_entropy,
    )
    only(report, "not finite", "0")
    assert "gradient" in report.findings[0].problem
