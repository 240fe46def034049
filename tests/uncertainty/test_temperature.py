"""Temperature and vector scaling against SciPy's minimisers, in lanes and at the ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor
from torch.nn import functional as F

from fdnn import uncertainty

TRUE = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)


def lanes(n: int = 400, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from them at another temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(len(TRUE), n, classes, generator=generator, dtype=torch.float64)
    probs = (logits / TRUE[:, None, None]).softmax(-1)
    targets = torch.stack([torch.multinomial(p, 1, generator=generator)[:, 0] for p in probs])
    return logits, targets


LOGITS, TARGETS = lanes()


def scipys_temperature(logits: Tensor, targets: Tensor) -> float:
    def loss(log_temperature: float) -> float:
        return F.cross_entropy(logits * math.exp(-log_temperature), targets).item()

    return math.exp(optimize.minimize_scalar(loss, bracket=(-0.1, 0.1), tol=1e-12).x)


def test_temperature_is_scipys_in_every_lane() -> None:
    found = torch.vmap(uncertainty.temperature_scaling)(LOGITS, TARGETS)
    for lane in range(len(TRUE)):
        alone = uncertainty.temperature_scaling(LOGITS[lane], TARGETS[lane])
        wanted = scipys_temperature(LOGITS[lane], TARGETS[lane])
        assert alone.item() == pytest.approx(wanted, rel=1e-6)
        assert found[lane].item() == pytest.approx(wanted, rel=1e-6)


def test_temperature_is_that_of_the_labels() -> None:
    """Within four standard errors, by the Fisher information about log T."""
    for lane, true in enumerate(TRUE):
        scaled = LOGITS[lane] / true
        probs = scaled.softmax(-1)
        variance = (probs * scaled.square()).sum(-1) - (probs * scaled).sum(-1).square()
        error = 1 / variance.sum().sqrt()
        found = uncertainty.temperature_scaling(LOGITS[lane], TARGETS[lane])
        assert (found.log() - true.log()).abs() < 4 * error


def test_temperature_keeps_the_class_and_lowers_the_loss() -> None:
    logits, targets = LOGITS[1], TARGETS[1]
    scaled = uncertainty.apply_temperature(logits, uncertainty.temperature_scaling(logits, targets))
    assert torch.equal(scaled.argmax(-1), logits.argmax(-1))
    assert F.cross_entropy(scaled, targets) < F.cross_entropy(logits, targets)
    assert uncertainty.temperature_scaling(scaled, targets).item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 30.0])
def test_temperature_scales_with_the_logits(factor: float) -> None:
    one = uncertainty.temperature_scaling(LOGITS[0], TARGETS[0])
    found = uncertainty.temperature_scaling(factor * LOGITS[0], TARGETS[0])
    torch.testing.assert_close(found, factor * one, rtol=1e-5, atol=0)


def test_float32_has_three_digits() -> None:
    for lane in range(len(TRUE)):
        found = uncertainty.temperature_scaling(LOGITS[lane].float(), TARGETS[lane])
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(
            scipys_temperature(LOGITS[lane], TARGETS[lane]), rel=3e-3
        )


def test_no_mistakes_and_nothing_but_mistakes() -> None:
    cold = uncertainty.temperature_scaling(LOGITS[0], LOGITS[0].argmax(-1))
    hot = uncertainty.temperature_scaling(LOGITS[0], LOGITS[0].argmin(-1))
    assert 0 < cold < 0.01
    assert hot > 1000 and hot.isfinite()


def test_vector_scaling_is_scipys() -> None:
    def loss(x: np.ndarray, lane: int) -> tuple[float, np.ndarray]:
        params = torch.tensor(x, requires_grad=True)
        value = F.cross_entropy(LOGITS[lane] * params[:4] + params[4:], TARGETS[lane])
        (grad,) = torch.autograd.grad(value, params)
        return value.item(), grad.numpy()

    found = torch.vmap(uncertainty.vector_scaling)(LOGITS, TARGETS)
    for lane in range(len(TRUE)):
        wanted = optimize.minimize(
            loss,
            np.repeat([1.0, 0.0], 4),
            args=(lane,),
            jac=True,
            method="L-BFGS-B",
            options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 1000},
        ).x
        alone = uncertainty.vector_scaling(LOGITS[lane], TARGETS[lane])
        for scale, bias in (alone, (found.scale[lane], found.bias[lane])):
            np.testing.assert_allclose(torch.cat([scale, bias]).numpy(), wanted, atol=1e-5)
        assert alone.bias.sum().abs() < 1e-12
        loss_of = [
            F.cross_entropy(x, TARGETS[lane])
            for x in (
                uncertainty.apply_vector_scaling(LOGITS[lane], *alone),
                LOGITS[lane] / uncertainty.temperature_scaling(LOGITS[lane], TARGETS[lane]),
            )
        ]
        assert loss_of[0] < loss_of[1]


def test_arguments_are_checked() -> None:
    for fit in (uncertainty.temperature_scaling, uncertainty.vector_scaling):
        with pytest.raises(ValueError, match="`max_iter` must be a whole number"):
            fit(LOGITS[0], TARGETS[0], max_iter=0)
        with pytest.raises(ValueError, match=r"`logits` must have shape \(batch, classes\)"):
            fit(LOGITS, TARGETS)
        with pytest.raises(ValueError, match=r"`targets` must have shape \(400,\)"):
            fit(LOGITS[0], TARGETS[0, :5])
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        uncertainty.apply_temperature(LOGITS[0], 0)
