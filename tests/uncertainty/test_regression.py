"""Scores of normal distributions and intervals against torch, SciPy and integrals."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.nn import functional as F

from fdnn import uncertainty


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


MEAN, VARIANCE, TARGETS = drawn(7), drawn(7, seed=1).exp(), drawn(7, seed=2)


def test_gaussian_nll_is_torchs_and_scipys() -> None:
    found = uncertainty.gaussian_nll(MEAN, VARIANCE, TARGETS, reduction="none")
    torch.testing.assert_close(
        found, F.gaussian_nll_loss(MEAN, TARGETS, VARIANCE, full=True, reduction="none")
    )
    logpdf = stats.norm(MEAN, VARIANCE.sqrt()).logpdf(TARGETS)
    torch.testing.assert_close(found, -torch.tensor(logpdf))
    torch.testing.assert_close(uncertainty.gaussian_nll(MEAN, VARIANCE, TARGETS), found.mean())


def test_gaussian_crps_is_its_integral() -> None:
    found = uncertainty.gaussian_crps(MEAN, VARIANCE, TARGETS, reduction="none")
    for mean, variance, target, score in zip(MEAN, VARIANCE, TARGETS, found, strict=True):
        cdf = stats.norm(mean.item(), math.sqrt(variance)).cdf
        y = target.item()
        below = integrate.quad(lambda t, cdf=cdf: cdf(t) ** 2, -math.inf, y)[0]
        above = integrate.quad(lambda t, cdf=cdf: (1 - cdf(t)) ** 2, y, math.inf)[0]
        assert score.item() == pytest.approx(below + above, abs=1e-7)


def test_crps_of_a_point_is_the_absolute_error() -> None:
    found = uncertainty.gaussian_crps(MEAN, torch.full_like(MEAN, 1e-18), TARGETS)
    torch.testing.assert_close(found, (TARGETS - MEAN).abs().mean(), rtol=0, atol=1e-8)


def test_gradients() -> None:
    args = [x.clone().requires_grad_() for x in (MEAN, VARIANCE, TARGETS)]
    assert torch.autograd.gradcheck(uncertainty.gaussian_nll, args)
    assert torch.autograd.gradcheck(uncertainty.gaussian_crps, args)


def test_interval_is_scipys_and_takes_levels_by_vmap() -> None:
    levels = torch.tensor([0.1, 0.5, 0.95], dtype=torch.float64)
    found = torch.vmap(uncertainty.gaussian_interval, in_dims=(None, None, 0))(
        MEAN, VARIANCE, levels
    )
    for level, lower, upper in zip(levels, *found, strict=True):
        low, high = stats.norm.interval(level.item(), MEAN, VARIANCE.sqrt())
        torch.testing.assert_close(lower, torch.tensor(low))
        torch.testing.assert_close(upper, torch.tensor(high))


def test_coverage_of_the_right_distribution() -> None:
    n, level = 20_000, 0.8
    interval = uncertainty.gaussian_interval(torch.zeros(n), torch.full((n,), 4.0), level)
    found = uncertainty.coverage(*interval, 2 * drawn(n, seed=3).float()).item()
    assert abs(found - level) < 4 * math.sqrt(level * (1 - level) / n)
    assert uncertainty.interval_width(*interval).item() == pytest.approx(
        4 * stats.norm.ppf((1 + level) / 2), rel=1e-5
    )


def test_ends_are_inside() -> None:
    lower, upper = torch.zeros(5), torch.ones(5)
    targets = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.1])
    assert uncertainty.coverage(lower, upper, targets) == pytest.approx(0.6)
    assert torch.equal(uncertainty.interval_width(lower, upper, reduction="none"), upper)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"`variance` must have the shape of `mean`"):
        uncertainty.gaussian_nll(MEAN, VARIANCE[:1], TARGETS)
    with pytest.raises(ValueError, match=r"`targets` must have the shape of `mean`"):
        uncertainty.gaussian_crps(MEAN, VARIANCE, TARGETS[None])
    with pytest.raises(ValueError, match=r"`level` must be in \(0, 1\), got 95"):
        uncertainty.gaussian_interval(MEAN, VARIANCE, 95)
    with pytest.raises(ValueError, match=r"`targets` must have the shape of `lower`"):
        uncertainty.coverage(MEAN, MEAN, TARGETS[:2])
    with pytest.raises(ValueError, match=r"`upper` must have the shape of `lower`"):
        uncertainty.interval_width(MEAN, MEAN[:2])
