"""Focal losses against the paper's formula, and against cross-entropy at gamma 0."""

from __future__ import annotations

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


def classes(*shape: int) -> Tensor:
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 0.9])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("soft", [False, True])
def test_sigmoid_focal_is_the_formula(
    agree: Agree, alpha: float | None, gamma: float, soft: bool
) -> None:
    def formula(x: Tensor, t: Tensor) -> Tensor:
        p = torch.sigmoid(x)
        right = p * t + (1 - p) * (1 - t)
        loss = F.binary_cross_entropy(p, t, reduction="none") * (1 - right) ** gamma
        return loss if alpha is None else (alpha * t + (1 - alpha) * (1 - t)) * loss

    target = normal(6, 3, seed=1).sigmoid()
    target = target if soft else target.round()
    agree(
        lambda x: losses.sigmoid_focal_loss(x, target, alpha=alpha, gamma=gamma, reduction="none"),
        lambda x: formula(x, target),
        normal(6, 3),
        tol=1e-11,  # the formula's 1 - p rounds
    )


@every_reduction
def test_sigmoid_focal_at_gamma_0_is_cross_entropy(agree: Agree, reduction: Any) -> None:
    agree(
        lambda x, t: losses.sigmoid_focal_loss(x, t, alpha=None, gamma=0.0, reduction=reduction),
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction=reduction),
        normal(4, 3) * 30,
        normal(4, 3, seed=1).sigmoid(),
    )


def test_sigmoid_focal_has_the_papers_defaults() -> None:
    x, t = normal(5), torch.tensor([0, 1, 1, 0, 1])
    expected = losses.sigmoid_focal_loss(x, t, alpha=0.25, gamma=2.0, reduction="mean")
    assert torch.equal(losses.sigmoid_focal_loss(x, t), expected)


@every_reduction
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(), (5,), (5, 3)], ids=str)
@pytest.mark.parametrize("ignore_index", [-100, 2, 255])
def test_softmax_focal_at_gamma_0_is_cross_entropy(
    agree: Agree, reduction: Any, weighted: bool, shape: tuple[int, ...], ignore_index: int
) -> None:
    options: Any = {"ignore_index": ignore_index, "reduction": reduction}
    weight = torch.tensor([0.5, 0.0, 2.0, 1.0], dtype=torch.float64) if weighted else None
    labels = classes(*shape)
    agree(
        lambda x, t: losses.softmax_focal_loss(x, t, weight, gamma=0.0, **options),
        lambda x, t: F.cross_entropy(x, t, weight, **options),
        normal(*shape[:1], 4, *shape[1:]),
        torch.where(labels == 2, ignore_index, labels),
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_softmax_focal_is_the_formula(agree: Agree, gamma: float) -> None:
    labels, weight = classes(6), normal(4, seed=2).exp()

    def formula(x: Tensor) -> Tensor:
        p = x.softmax(1)[torch.arange(6), labels]
        return -((1 - p) ** gamma) * p.log() * weight[labels]

    agree(
        lambda x: losses.softmax_focal_loss(x, labels, weight, gamma=gamma, reduction="none"),
        formula,
        normal(6, 4),
    )
    agree(
        lambda x: losses.softmax_focal_loss(x, labels, weight, gamma=gamma),
        lambda x: formula(x).sum() / weight[labels].sum(),
        normal(6, 4),
    )


@pytest.mark.parametrize("gamma", [0.3, 2.0])
def test_two_classes_are_a_yes_or_no(agree: Agree, gamma: float) -> None:
    labels = torch.tensor([0, 1, 1, 0])
    agree(
        lambda x: losses.softmax_focal_loss(
            torch.stack([torch.zeros_like(x), x], 1), labels, gamma=gamma
        ),
        lambda x: losses.sigmoid_focal_loss(x, labels, alpha=None, gamma=gamma),
        normal(4),
    )


def test_all_ignored_is_nan_as_in_cross_entropy() -> None:
    ignored = torch.full((3,), -100)
    assert losses.softmax_focal_loss(normal(3, 4), ignored).isnan()
    assert losses.softmax_focal_loss(normal(3, 4), ignored, reduction="sum") == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_are_finite_where_probabilities_are_0_or_1(
    gamma: float, dtype: torch.dtype
) -> None:
    x = torch.tensor([-1e4, -200.0, -90.0, 0.0, 90.0, 200.0, 1e4], dtype=dtype)
    for label in (0, 1):
        target = torch.full((7,), label)
        for loss in (
            lambda x, t=target: losses.sigmoid_focal_loss(x, t, gamma=gamma, reduction="sum"),
            lambda x, t=target: losses.softmax_focal_loss(
                torch.stack([-x, x], 1) / 2, t, gamma=gamma, reduction="sum"
            ),
        ):
            slope, value = torch.func.grad_and_value(loss)(x)
            assert slope.isfinite().all() and value.isfinite() and value.dtype == dtype


def test_hyperparameters_may_be_tensors() -> None:
    x, t = normal(5, 4), classes(5)
    gammas = torch.tensor([0.0, 0.5, 3.0], dtype=torch.float64)

    def soft(gamma: Any) -> Tensor:
        return losses.softmax_focal_loss(x, t, gamma=gamma)

    def sharp(gamma: Any, alpha: Any = 0.3) -> Tensor:
        return losses.sigmoid_focal_loss(x[:, 0], t % 2, gamma=gamma, alpha=alpha)

    for loss in (soft, sharp, lambda alpha: sharp(2.0, alpha / 3)):
        expected = torch.stack([loss(gamma) for gamma in gammas.tolist()])
        torch.testing.assert_close(vmap(loss)(gammas), expected, rtol=1e-12, atol=1e-12)
        assert torch.autograd.gradcheck(loss, gammas[2].clone().requires_grad_())


def test_errors_name_the_argument() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="`gamma` must be at least 0, got -1"):
        losses.sigmoid_focal_loss(x, x, gamma=-1)
    with pytest.raises(ValueError, match="`gamma` must be at least 0, got -1"):
        losses.softmax_focal_loss(x, torch.zeros(3).long(), gamma=-1)
    with pytest.raises(ValueError, match=r"`alpha` must be in \[0, 1\], got -1"):
        losses.sigmoid_focal_loss(x, x, alpha=-1)
    with pytest.raises(ValueError, match=r"`target` .*, got \(2,\)"):
        losses.sigmoid_focal_loss(x, torch.zeros(2))
    with pytest.raises(ValueError, match=r"`target` must hold integers, got torch\.float32"):
        losses.softmax_focal_loss(x, x)
    with pytest.raises(ValueError, match=r"`reduction` .* got 'average'"):
        losses.softmax_focal_loss(x, torch.zeros(3).long(), reduction="average")  # type: ignore[arg-type]
