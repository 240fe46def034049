"""Losses of real numbers against torch, and where they are stricter than it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, vmap

from fdnn import losses

Agree = Callable[..., None]

every_reduction = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
PAIRS: list[tuple[Any, Any]] = [
    (losses.mse_loss, F.mse_loss),
    (losses.l1_loss, F.l1_loss),
    (losses.huber_loss, F.huber_loss),
    (losses.smooth_l1_loss, F.smooth_l1_loss),
]
every_pair = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda f: f.__name__)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every_pair
@every_reduction
@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_values_are_torchs_to_the_bit(
    ours: Any, theirs: Any, reduction: str, shape: list[int], dtype: torch.dtype
) -> None:
    x, y = normal(*shape).to(dtype), normal(*shape, seed=1).to(dtype)
    found, expected = ours(x, y, reduction=reduction), theirs(x, y, reduction=reduction)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@every_pair
@every_reduction
def test_gradients_are_torchs(agree: Agree, ours: Any, theirs: Any, reduction: str) -> None:
    x, y = 2 * normal(4, 3), normal(4, 3, seed=1)
    x[0] = y[0]  # an error of 0
    x[1] = y[1] + 1  # the end of the parabola
    agree(
        lambda x, y: ours(x, y, reduction=reduction),
        lambda x, y: theirs(x, y, reduction=reduction),
        x,
        y,
    )


@every_reduction
@pytest.mark.parametrize(("ours", "theirs"), PAIRS[:3], ids=lambda f: f.__name__)
def test_weights_are_torchs(agree: Agree, ours: Any, theirs: Any, reduction: str) -> None:
    args = normal(4, 3), normal(4, 3, seed=1), normal(4, 3, seed=2).exp()
    agree(
        lambda x, y, w: ours(x, y, weight=w, reduction=reduction),
        lambda x, y, w: theirs(x, y, weight=w, reduction=reduction),
        *args,
    )
    agree(lambda x, y, w: ours(x, y, weight=w), lambda x, y, w: theirs(x, y, weight=w), *args)


@every_reduction
@pytest.mark.parametrize("width", [0.01, 0.7, 3.0])
def test_widths_are_torchs(agree: Agree, reduction: Any, width: float) -> None:
    args = normal(5, 3), normal(5, 3, seed=1)
    agree(
        lambda x, y: losses.huber_loss(x, y, delta=width, reduction=reduction),
        lambda x, y: F.huber_loss(x, y, delta=width, reduction=reduction),
        *args,
    )
    agree(
        lambda x, y: losses.smooth_l1_loss(x, y, beta=width, reduction=reduction),
        lambda x, y: F.smooth_l1_loss(x, y, beta=width, reduction=reduction),
        *args,
    )


def test_smooth_l1_of_width_0_is_l1(agree: Agree) -> None:
    args = normal(5), normal(5, seed=1)
    agree(lambda x, y: losses.smooth_l1_loss(x, y, beta=0), losses.l1_loss, *args)


def test_huber_takes_a_tiny_width() -> None:
    x = torch.tensor([1.0, -2.0])
    found = losses.huber_loss(x, torch.zeros(2), delta=1e-30, reduction="none")
    torch.testing.assert_close(found, 1e-30 * x.abs(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["huber_loss", "smooth_l1_loss"])
def test_widths_may_be_tensors(name: str) -> None:
    x, y = normal(5), normal(5, seed=1)
    widths = torch.tensor([0.3, 0.7, 3.0], dtype=torch.float64)
    option = {"huber_loss": "delta", "smooth_l1_loss": "beta"}[name]

    def loss(width: Any) -> Tensor:
        return getattr(losses, name)(x, y, **{option: width})

    expected = torch.stack([loss(width) for width in widths.tolist()])
    torch.testing.assert_close(vmap(loss)(widths), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(loss, widths[1].clone().requires_grad_())


@every_reduction
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (4,), (1, 3)], ids=str)
def test_gaussian_is_torchs(
    agree: Agree, reduction: Any, full: bool, shape: tuple[int, ...]
) -> None:
    var = normal(*shape, seed=2).exp()
    var.view(-1)[0] = 0.01  # below eps
    var.view(-1)[1] = 0.1
    options: Any = {"full": full, "eps": 0.1, "reduction": reduction}
    agree(
        lambda x, y, v: losses.gaussian_nll_loss(x, y, v, **options),
        lambda x, y, v: F.gaussian_nll_loss(x, y, v, **options),
        normal(4, 3),
        normal(4, 3, seed=1),
        var,
    )


def test_gaussian_has_torchs_defaults_and_takes_a_number(agree: Agree) -> None:
    x, y, tiny = normal(3), normal(3, seed=1), torch.tensor([0.0, 1e-7, 1.0]).double()
    agree(losses.gaussian_nll_loss, F.gaussian_nll_loss, x, y, tiny)
    agree(losses.gaussian_nll_loss, F.gaussian_nll_loss, x, y, 0.3)
    whole = losses.gaussian_nll_loss(
        normal(3, 2), normal(3, 2, seed=1), torch.tensor(0.3, dtype=torch.float64)
    )
    assert torch.equal(whole, losses.gaussian_nll_loss(normal(3, 2), normal(3, 2, seed=1), 0.3))


def test_full_gaussian_is_the_density() -> None:
    x, y, var = normal(6), normal(6, seed=1), normal(6, seed=2).exp()
    found = losses.gaussian_nll_loss(x, y, var, full=True, reduction="none")
    expected = -torch.distributions.Normal(x, var.sqrt()).log_prob(y)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_negative_variance_is_nan_where_it_is() -> None:
    x, var = normal(3, 2), torch.tensor([1.0, -1e-9, 2.0]).double()
    terms = losses.gaussian_nll_loss(x, x + 1, var, reduction="none")
    assert terms.isnan().tolist() == [[False] * 2, [True] * 2, [False] * 2]


def test_infinite_variance_is_an_infinite_loss() -> None:
    x = torch.zeros(1)
    assert losses.gaussian_nll_loss(x, x, torch.tensor([math.inf])) == math.inf


@every_pair
def test_nothing_is_broadcast(ours: Any, theirs: Any) -> None:
    with pytest.raises(ValueError, match=r"`target` .* `input`, \(3, 1\), got \(3,\)"):
        ours(torch.zeros(3, 1), torch.zeros(3))


def test_errors_name_the_argument() -> None:
    x = torch.zeros(3, 2)
    for loss in (losses.mse_loss, losses.l1_loss, losses.huber_loss):
        with pytest.raises(ValueError, match=r"`weight` .* `input`, \(3, 2\), got \(3,\)"):
            loss(x, x, weight=torch.ones(3))
        with pytest.raises(ValueError, match=r"`reduction` .* got 'average'"):
            loss(x, x, reduction="average")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`delta` must be positive, got 0"):
        losses.huber_loss(x, x, delta=0)
    with pytest.raises(ValueError, match="`beta` must be at least 0, got -1"):
        losses.smooth_l1_loss(x, x, beta=-1)
    with pytest.raises(ValueError, match="`eps` must be positive, got 0"):
        losses.gaussian_nll_loss(x, x, x + 1, eps=0)
    with pytest.raises(ValueError, match="`var` must be at least 0, got -1"):
        losses.gaussian_nll_loss(x, x, -1.0)
    for shape in ((2, 2), (1, 3, 2), (4,)):
        with pytest.raises(ValueError, match=r"`var` must broadcast .* \(3, 2\)"):
            losses.gaussian_nll_loss(x, x, torch.ones(shape))
    with pytest.raises(ValueError, match=r"`target` .* `input`, \(3, 2\), got \(3, 1\)"):
        losses.gaussian_nll_loss(x, torch.zeros(3, 1), 1.0)
