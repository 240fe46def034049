"""What the tests of `inspect.check` share: small models, and what a report must say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdnn import functionalize, initializers, inspect, losses, random
from fdnn.inspect import Report

__all__ = [
    "CLASSIFIERS",
    "KEY",
    "MISTAKES",
    "REGRESSIONS",
    "Written",
    "classes",
    "drawn",
    "fine",
    "look",
    "mistakes",
    "normal",
    "only",
    "stack",
]

KEY = random.key(0)
MISTAKES = {
    "batch norm with a batch of one",
    "bias before batch norm",
    "dead units",
    "dropout with selu",
    "equal weights",
    "exploding gradient",
    "exploding signal",
    "initialization",
    "inputs not finite",
    "inputs not scaled",
    "labels out of range",
    "logits into binary cross-entropy",
    "logits into nll_loss",
    "not finite",
    "one class",
    "output activation",
    "schedule length",
    "sigmoid before binary cross-entropy",
    "softmax before cross-entropy",
    "target shape",
    "targets not finite",
    "unused parameters",
    "vanishing gradient",
    "vanishing signal",
    "weight decay on norms",
}


REGRESSIONS = [
    F.mse_loss,
    F.l1_loss,
    F.huber_loss,
    F.smooth_l1_loss,
    nn.MSELoss(),
    nn.L1Loss(),
    nn.HuberLoss(),
    nn.SmoothL1Loss(),
    losses.mse_loss,
    losses.l1_loss,
    losses.smooth_l1_loss,
    losses.huber_loss,
    partial(losses.huber_loss, delta=2.0),
    lambda x, y: F.gaussian_nll_loss(x, y, torch.ones_like(x)),
]
CLASSIFIERS = [
    F.cross_entropy,
    nn.CrossEntropyLoss(label_smoothing=0.1),
    losses.cross_entropy,
    losses.softmax_focal_loss,
    lambda x, y: F.cross_entropy(x, y) + 0.1,
]


class Written(nn.Module):
    """A model whose last line is a function."""

    def __init__(self, last: Callable[[Tensor], Tensor], out: int = 1):
        super().__init__()
        self.linear, self.last = nn.Linear(10, out), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.linear(x))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return random.normal(random.key(seed), shape)


def classes(n: int = 32, count: int = 3) -> Tensor:
    return torch.arange(n) % count


def look(module: nn.Module, batch: Any = None, criterion: Any = None, **options: Any) -> Report:
    return inspect.check(functionalize(module), batch=batch, criterion=criterion, **options)


def mistakes(report: Report) -> list[str]:
    assert {finding.mistake for finding in report} <= MISTAKES
    for finding in report:
        text = str(report)
        assert all(finding) and finding.mistake in text and finding.where in text
    return [finding.mistake for finding in report]


def only(report: Report, mistake: str, where: str | None = None, cure: str = "") -> None:
    """There is that mistake and no other, at that place, and the cure names something."""
    assert mistakes(report) == [mistake], str(report)
    if where is not None:
        assert report.findings[0].where == where
    assert cure in report.findings[0].cure


def fine(report: Report) -> None:
    assert mistakes(report) == [], str(report)


def stack(
    activation: Callable[[], nn.Module], depth: int, out: int = 3, width: int = 64
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(64, width), activation()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, out))


def drawn(module: nn.Module, weight: Any, n: int = 64, **options: Any) -> Report:
    """A classifier whose weights are drawn by a rule."""
    model = functionalize(module)
    bias = None if weight is None else initializers.zeros
    params, buffers = model.init(random.key(1), weight=weight, bias=bias)
    batch = normal(n, module[0].in_features), classes(n)
    return inspect.check(
        model, params, buffers, batch=batch, criterion=F.cross_entropy, key=KEY, **options
    )
