"""Distillation against its closed form, torch's terms, and what it tends to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close as assert_close_trees
from torch import Tensor, vmap

from fdnn import random
from fdnn.losses import cross_entropy, distillation_loss


def assert_close(found: Tensor, expected: Tensor, tol: float = 1e-12) -> None:
    assert_close_trees(found, expected, rtol=tol, atol=tol)


def logits(seed: int, *shape: int) -> Tensor:
    return random.normal(random.key(seed), shape or (6, 4), torch.float64) * 2


TARGET = torch.tensor([0, 3, 1, 1, 2, 0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_equals_the_sum_of_torchs_terms(temperature: float, reduction: str) -> None:
    x, z = logits(0), logits(1)
    terms = F.kl_div(
        F.log_softmax(x / temperature, -1), F.softmax(z / temperature, -1), reduction="none"
    ).sum(-1)
    expected = 0.3 * temperature**2 * terms + 0.7 * F.cross_entropy(x, TARGET, reduction="none")
    expected = expected if reduction == "none" else getattr(expected, reduction)()
    found = distillation_loss(x, z, TARGET, temperature=temperature, alpha=0.3, reduction=reduction)
    assert_close(found, expected)


def test_gradient_is_the_closed_form() -> None:
    """d/dx of T^2 KL is T (p - q)."""
    x, z, t = logits(0), logits(1), 3.0
    grad = torch.func.grad(
        lambda x: distillation_loss(x, z, TARGET, temperature=t, alpha=1.0, reduction="sum")
    )(x)
    assert_close(grad, t * ((x / t).softmax(-1) - (z / t).softmax(-1)))


def test_two_classes_by_hand() -> None:
    """Student at odds 1:1, teacher at 3:1, T = 1."""
    x = torch.zeros(1, 2, dtype=torch.float64)
    z = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    divergence = 0.75 * torch.log(torch.tensor(1.5)) + 0.25 * torch.log(torch.tensor(0.5))
    found = distillation_loss(x, z, torch.tensor([1]), temperature=1.0, alpha=0.5)
    assert_close(
        found, 0.5 * divergence.double() + 0.5 * torch.tensor(2.0).double().log(), tol=1e-7
    )


def test_hot_limit_matches_centred_logits() -> None:
    x, z = logits(0), logits(1)
    distance = (x - z) - (x - z).mean(-1, keepdim=True)
    expected = (distance.square().sum(-1) / (2 * x.shape[-1])).mean()
    found = distillation_loss(x, z, TARGET, temperature=1e4, alpha=1.0)
    assert abs(found / expected - 1) < 1e-3


def test_ends_of_alpha() -> None:
    x, z = logits(0), logits(1)
    assert_close(distillation_loss(x, z, TARGET, alpha=0.0), cross_entropy(x, TARGET))
    assert distillation_loss(x, x, TARGET, alpha=1.0).abs() < 1e-15
    assert distillation_loss(x, x + 5, TARGET, alpha=1.0).abs() < 1e-12  # shifts are no difference


def test_one_example_and_soft_targets() -> None:
    x, z = logits(0), logits(1)
    whole = distillation_loss(x, z, TARGET, reduction="none")
    assert_close(distillation_loss(x[2], z[2], TARGET[2]), whole[2])
    soft = F.one_hot(TARGET, 4).double()
    assert_close(distillation_loss(x, z, soft, reduction="none"), whole)


def test_sweeps_of_temperature_and_alpha() -> None:
    x, z = logits(0), logits(1)
    temperatures = torch.tensor([1.0, 2.0, 8.0], dtype=torch.float64)
    found = vmap(
        lambda t: torch.func.grad(
            lambda t: distillation_loss(x, z, TARGET, temperature=t, alpha=t / 10)
        )(t)
    )(temperatures)
    for t, value in zip(temperatures, found, strict=True):
        near = [
            distillation_loss(x, z, TARGET, temperature=t + d, alpha=(t + d) / 10)
            for d in (1e-6, -1e-6)
        ]
        assert_close(value, (near[0] - near[1]) / 2e-6, tol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive, got 0.0"),
        ({"alpha": 1.5}, r"`alpha` must be in \[0, 1\], got 1.5"),
        ({"reduction": "max"}, "`reduction` must be one of"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distillation_loss(logits(0), logits(1), TARGET, **options)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="`teacher` must have the shape of `input`"):
        distillation_loss(logits(0), logits(1, 6, 3), TARGET)
