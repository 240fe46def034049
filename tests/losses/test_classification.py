"""Cross-entropies and the divergence against torch, which they must equal to rounding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import vmap

from fdnn import losses

REDUCTIONS = ["none", "mean", "sum"]
Agree = Callable[..., None]

every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def classes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(1))


def both(name: str, **options: Any) -> tuple[Any, Any]:
    return (
        functools.partial(getattr(losses, name), **options),
        functools.partial(getattr(F, name), **options),
    )


@every_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(), (5,), (5, 3), (2, 3, 2)], ids=str)
def test_cross_entropy_is_torchs(
    agree: Agree, reduction: str, smoothing: float, weighted: bool, shape: tuple[int, ...]
) -> None:
    logits = normal(*shape[:1], 4, *shape[1:])
    weight = torch.tensor([0.5, 0.0, 2.0, 1.0], dtype=torch.float64) if weighted else None
    options: Any = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
    agree(*both("cross_entropy", **options), logits, classes(*shape))
    agree(*both("cross_entropy", ignore_index=1, **options), logits, classes(*shape))
    probabilities = normal(*logits.shape, seed=2).softmax(min(1, logits.ndim - 1))
    agree(*both("cross_entropy", **options), logits, probabilities)


@every_reduction
def test_cross_entropy_of_ignored_examples(agree: Agree, reduction: str) -> None:
    ours, theirs = both("cross_entropy", reduction=reduction)
    logits, ignored = normal(3, 4), torch.full((3,), -100)
    agree(ours, theirs, logits, ignored)
    value = losses.cross_entropy(logits, ignored)
    assert value.isnan() and vmap(losses.cross_entropy)(logits[None], ignored[None]).isnan().all()


def test_cross_entropy_with_weights_that_are_all_zero(agree: Agree) -> None:
    zero = torch.zeros(4, dtype=torch.float64)
    agree(*both("cross_entropy", weight=zero), normal(3, 4), classes(3))
    assert losses.cross_entropy(normal(3, 4), classes(3), zero).isnan()


@every_reduction
@pytest.mark.parametrize("probabilities", [False, True])
def test_label_smoothing_may_be_a_tensor(reduction: str, probabilities: bool) -> None:
    logits, weight = normal(5, 4), torch.tensor([0.5, 0.1, 2.0, 1.0], dtype=torch.float64)
    target = normal(5, 4, seed=3).softmax(1) if probabilities else classes(5)
    amounts = torch.tensor([0.0, 0.1, 1.0], dtype=torch.float64)

    def loss(amount: Any) -> torch.Tensor:
        return losses.cross_entropy(
            logits, target, weight, reduction=reduction, label_smoothing=amount
        )

    expected = torch.stack([loss(amount) for amount in amounts.tolist()])
    torch.testing.assert_close(vmap(loss)(amounts), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(loss, amounts[1].clone().requires_grad_())


@every_reduction
@given(shape=st.lists(st.integers(0, 3), max_size=3), weighted=st.booleans())
def test_binary_cross_entropy_is_torchs(reduction: str, shape: list[int], weighted: bool) -> None:
    logits, target = 3 * normal(*shape), normal(*shape, seed=1).sigmoid()
    options: dict[str, Any] = {"reduction": reduction}
    if weighted:
        options |= {
            "weight": normal(*shape, seed=2).exp(),
            "pos_weight": torch.tensor(2.5).double(),
        }
    ours, theirs = both("binary_cross_entropy_with_logits", **options)
    torch.testing.assert_close(ours(logits, target), theirs(logits, target), equal_nan=True)


@every_reduction
def test_binary_cross_entropy_has_torchs_gradient(agree: Agree, reduction: str) -> None:
    weights = {"weight": normal(4, 1, seed=3).exp(), "pos_weight": normal(3, seed=2).exp()}
    pair = both("binary_cross_entropy_with_logits", reduction=reduction, **weights)
    agree(*pair, normal(4, 3) * 50, normal(4, 3, seed=1).sigmoid())


def test_binary_cross_entropy_is_differentiable_in_its_weights() -> None:
    def loss(weight: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
        return losses.binary_cross_entropy_with_logits(
            normal(4, 3), normal(4, 3, seed=1).sigmoid(), weight, pos_weight=positive
        )

    weights = normal(4, 1, seed=3).exp(), normal(3, seed=2).exp()
    assert torch.autograd.gradcheck(loss, tuple(w.requires_grad_() for w in weights))


def test_binary_cross_entropy_is_exact_far_out() -> None:
    """torch's kernel takes the difference of two numbers that are nearly equal there."""
    x = torch.tensor([-80.0, -30.0, 30.0, 80.0])
    terms = losses.binary_cross_entropy_with_logits(x, (x > 0), reduction="none")
    torch.testing.assert_close(terms, (-x.abs()).exp(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_binary_labels_need_not_be_floats(dtype: torch.dtype) -> None:
    labels = torch.tensor([1, 0, 1])
    for loss in (losses.binary_cross_entropy_with_logits, losses.sigmoid_focal_loss):
        expected = loss(normal(3), labels.double())
        assert torch.equal(loss(normal(3), labels.to(dtype)), expected)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 3, 2)], ids=str)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
def test_kl_div_is_torchs(
    agree: Agree, reduction: str, log_target: bool, shape: tuple[int, ...]
) -> None:
    log_p, log_q = normal(*shape).log_softmax(-1), normal(*shape, seed=1).log_softmax(-1)
    ours, theirs = both("kl_div", reduction=reduction, log_target=log_target)
    agree(ours, theirs, log_p, log_q if log_target else log_q.exp())


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
def test_defaults_are_torchs(agree: Agree) -> None:
    log_p, q = normal(4, 3).log_softmax(-1), normal(4, 3, seed=1).softmax(-1)
    agree(*both("kl_div"), log_p, q)
    agree(*both("cross_entropy"), normal(5, 4), torch.tensor([0, -100, 1, 3, 3]))
    agree(*both("binary_cross_entropy_with_logits"), log_p, q)


def test_kl_div_of_an_impossible_class_is_zero() -> None:
    log_p, q = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.0, 1.0]])
    terms = losses.kl_div(log_p, q, reduction="none")
    torch.testing.assert_close(terms, torch.tensor([[0.0, -0.75]]).where(q == 0, -log_p))


def test_kl_div_is_that_of_distributions() -> None:
    p, q = normal(5, 3).softmax(1), normal(5, 3, seed=1).softmax(1)
    categorical = torch.distributions.Categorical
    expected = torch.distributions.kl_divergence(categorical(q), categorical(p))
    found = losses.kl_div(p.log(), q, reduction="none").sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_errors_name_the_argument() -> None:
    x, y = torch.zeros(3, 2), torch.zeros(3)
    for loss in (losses.binary_cross_entropy_with_logits, losses.kl_div):
        with pytest.raises(ValueError, match=r"`target` .* `input`, \(3, 2\), got \(3,\)"):
            loss(x, y)
    with pytest.raises(ValueError, match=r"`label_smoothing` must be in \[0, 1\], got 1.5"):
        losses.cross_entropy(x, y.long(), label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"`reduction` must be one of .*, got 'average'"):
        losses.cross_entropy(x, y.long(), reduction="average")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'batchmean'.*, got 'average'"):
        losses.kl_div(x, x, reduction="average")  # type: ignore[arg-type]
