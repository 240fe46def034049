"""Losses of distances against torch and closed forms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, vmap

from fdnn import losses

Agree = Callable[..., None]

every_reduction = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


SIGNS = torch.tensor([1, -1, 1, -1, -1, 0])


@every_reduction
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_triplet_is_torchs(
    agree: Agree, reduction: str, swap: bool, p: float, margin: float
) -> None:
    options: Any = {"reduction": reduction, "swap": swap, "p": p, "margin": margin}
    args = normal(6, 3), normal(6, 3, seed=1), normal(6, 3, seed=2)
    ours = functools.partial(losses.triplet_margin_loss, **options)
    theirs = functools.partial(F.triplet_margin_loss, **options)
    agree(ours, theirs, *args)
    agree(ours, theirs, *(arg[0] for arg in args))
    agree(ours, theirs, args[0], args[0], args[0])
    terms = losses.triplet_margin_loss(*args, **(options | {"reduction": "none"}))
    assert terms.shape == (6,) and (terms > 0).any() and (margin > 0.5 or (terms == 0).any())


@every_reduction
@pytest.mark.parametrize("margin", [-0.5, 0.0, 0.3])
def test_cosine_is_torchs(agree: Agree, reduction: str, margin: float) -> None:
    options: Any = {"reduction": reduction, "margin": margin}
    ours = functools.partial(losses.cosine_embedding_loss, **options)
    theirs = functools.partial(F.cosine_embedding_loss, **options)
    x1, x2 = normal(6, 3), normal(6, 3, seed=1)
    x1[1] = x2[1] / 2
    x1[2] = 0
    agree(ours, theirs, x1, x2, SIGNS)
    agree(ours, theirs, x1[0], x2[0], SIGNS[0])


def test_defaults_are_torchs(agree: Agree) -> None:
    a, b, c = normal(6, 3), normal(6, 3, seed=1), normal(6, 3, seed=2)
    agree(losses.triplet_margin_loss, F.triplet_margin_loss, a, b, c)
    agree(losses.cosine_embedding_loss, F.cosine_embedding_loss, a, b, SIGNS)


@every_reduction
def test_contrastive_is_the_formula(agree: Agree, reduction: Any) -> None:
    def formula(x1: Tensor, x2: Tensor) -> Tensor:
        distance = ((x1 - x2) ** 2).sum(1).sqrt()
        similar = (SIGNS == 1).double()
        terms = similar * distance**2 / 2 + (1 - similar) * F.relu(4.0 - distance) ** 2 / 2
        return {"none": terms, "mean": terms.mean(), "sum": terms.sum()}[reduction]

    x1, x2 = normal(6, 3), normal(6, 3, seed=1)
    for target in (SIGNS, SIGNS.clamp_min(0), SIGNS == 1, SIGNS.double()):
        agree(
            lambda a, b, t=target: losses.contrastive_loss(
                a, b, t, margin=4.0, reduction=reduction
            ),
            formula,
            x1,
            x2,
        )
    terms = losses.contrastive_loss(x1, x2, SIGNS, margin=4.0, reduction="none")
    assert (terms == 0).any() and (terms[SIGNS != 1] > 0).any()


def test_contrastive_of_one_point_has_no_slope() -> None:
    x = normal(2, 3)
    target = torch.tensor([True, False])
    slope, value = torch.func.grad_and_value(losses.contrastive_loss)(x, x, target, margin=3.0)
    assert value == 9 / 4 and torch.equal(slope, torch.zeros_like(x))


def test_margins_may_be_tensors() -> None:
    a, b, c = normal(6, 3), normal(6, 3, seed=1), normal(6, 3, seed=2)
    margins = torch.tensor([0.1, 0.4, 2.0], dtype=torch.float64)
    for loss in (
        lambda m: losses.contrastive_loss(a, b, SIGNS, margin=m),
        lambda m: losses.cosine_embedding_loss(a, b, SIGNS, margin=m),
        lambda m: losses.triplet_margin_loss(a, b, c, margin=m),
    ):
        expected = torch.stack([loss(margin) for margin in margins.tolist()])
        torch.testing.assert_close(vmap(loss)(margins), expected, rtol=1e-12, atol=1e-12)
        assert torch.autograd.gradcheck(loss, margins[1].clone().requires_grad_())


def test_errors_name_the_argument() -> None:
    x, y, labels = torch.zeros(3, 2), torch.zeros(1, 2), torch.ones(3)
    for loss in (losses.contrastive_loss, losses.cosine_embedding_loss):
        with pytest.raises(ValueError, match=r"`input2` .* `input1`, \(3, 2\), got \(1, 2\)"):
            loss(x, y, labels)
        with pytest.raises(ValueError, match=r"`target` must have shape \(3,\), .*, got \(3, 1\)"):
            loss(x, x, labels[:, None])
    with pytest.raises(ValueError, match=r"`negative` .* `anchor`, \(3, 2\), got \(1, 2\)"):
        losses.triplet_margin_loss(x, x, y)
    with pytest.raises(ValueError, match="`margin` must be positive, got 0"):
        losses.triplet_margin_loss(x, x, x, margin=0)
    with pytest.raises(ValueError, match="`margin` must be positive, got -1"):
        losses.contrastive_loss(x, x, labels, margin=-1)
    with pytest.raises(ValueError, match=r"`reduction` .* got 'average'"):
        losses.triplet_margin_loss(x, x, x, reduction="average")  # type: ignore[arg-type]
