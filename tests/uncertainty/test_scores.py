"""Uncertainty scores against SciPy's entropies, counts, and their own identities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from fdnn import uncertainty


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(2, 7))


@given(shapes, st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_entropies_are_scipys_and_add_up(shape: tuple[int, int, int], seed: int) -> None:
    probs = drawn(*shape, seed=seed).softmax(-1)
    total = uncertainty.predictive_entropy(probs.mean(0))
    expected = uncertainty.expected_entropy(probs)
    information = uncertainty.mutual_information(probs)
    torch.testing.assert_close(total, torch.tensor(stats.entropy(probs.mean(0), axis=-1)))
    torch.testing.assert_close(expected, torch.tensor(stats.entropy(probs, axis=-1).mean(0)))
    torch.testing.assert_close(total, expected + information)
    divergence = stats.entropy(probs, probs.mean(0, keepdim=True), axis=-1).mean(0)
    torch.testing.assert_close(information, torch.tensor(divergence))
    assert (information >= 0).all() and (total <= math.log(shape[-1]) + 1e-12).all()


def test_entropy_at_the_ends() -> None:
    probs = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    entropy = uncertainty.predictive_entropy(probs)
    assert entropy[0] == 0 and not entropy[0].signbit()
    torch.testing.assert_close(entropy[1], torch.tensor(math.log(3)))


def test_entropy_has_a_gradient_where_a_probability_underflows() -> None:
    logits = torch.tensor([0.0, -200.0, 1.0])
    grad = torch.func.grad(lambda x: uncertainty.predictive_entropy(x.softmax(-1)))(logits)
    wanted = torch.func.grad(lambda x: uncertainty.predictive_entropy(x.softmax(-1)))(
        logits.double()
    )
    assert logits.softmax(-1)[1] == 0
    torch.testing.assert_close(grad.double(), wanted, rtol=1e-5, atol=1e-6)


def test_gradient_of_mutual_information() -> None:
    logits = drawn(3, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: uncertainty.mutual_information(x.softmax(-1)), (logits,)
    )


def test_members_that_agree_give_no_information() -> None:
    probs = drawn(1, 5, 3).softmax(-1).expand(4, 5, 3)
    assert uncertainty.mutual_information(probs).max() < 1e-15
    assert (uncertainty.variation_ratio(probs) == 0).all()
    assert (uncertainty.predictive_std(probs) < 1e-15).all()
    single = drawn(1, 1000, 3).float().softmax(-1).expand(3, 1000, 3)
    assert (uncertainty.mutual_information(single) >= 0).all()  # whatever rounding does


@given(shapes, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_variation_ratio_is_scipys_mode(shape: tuple[int, int, int], seed: int) -> None:
    probs = drawn(*shape, seed=seed).softmax(-1)
    count = torch.tensor(stats.mode(probs.argmax(-1).numpy(), axis=0).count)
    torch.testing.assert_close(uncertainty.variation_ratio(probs), 1 - count.double() / shape[0])


def test_max_probability_and_std() -> None:
    probs = drawn(5, 4, 3).softmax(-1)
    assert torch.equal(uncertainty.max_probability(probs), probs.max(-1).values)
    for correction in (0, 1):
        torch.testing.assert_close(
            uncertainty.predictive_std(probs, correction=correction),
            torch.tensor(probs.numpy().std(0, ddof=correction)),
        )
    with pytest.raises(ValueError, match="dimension of samples"):
        uncertainty.predictive_std(torch.tensor(1.0))


def test_nll_is_cross_entropy() -> None:
    logits, targets = drawn(9, 4), torch.arange(9) % 4
    for reduction in ("mean", "sum", "none"):
        torch.testing.assert_close(
            uncertainty.nll(logits.softmax(-1), targets, reduction=reduction),
            F.cross_entropy(logits, targets, reduction=reduction),
        )
    assert uncertainty.nll(torch.tensor([[0.0, 1.0]]), torch.tensor([0])) == torch.inf


def test_brier_score_is_sklearns() -> None:
    from sklearn.metrics import brier_score_loss

    probs, targets = drawn(50, 4).softmax(-1), torch.arange(50) % 4
    found = uncertainty.brier_score(probs, targets)
    assert found.item() == pytest.approx(brier_score_loss(targets, probs, scale_by_half=False))
    each = (probs - F.one_hot(targets, 4)).square().sum(-1)
    torch.testing.assert_close(uncertainty.brier_score(probs, targets, reduction="none"), each)
    binary = drawn(50, 2).softmax(-1)
    assert uncertainty.brier_score(binary, targets % 2).item() == pytest.approx(
        2 * brier_score_loss(targets % 2, binary[:, 1])
    )


def test_expected_brier_score_is_one_minus_sharpness() -> None:
    probs = drawn(6, 3).softmax(-1)
    expected = sum(
        probs[:, k] * uncertainty.brier_score(probs, torch.full((6,), k), reduction="none")
        for k in range(3)
    )
    torch.testing.assert_close(expected, 1 - uncertainty.sharpness(probs, reduction="none"))
    torch.testing.assert_close(uncertainty.sharpness(probs), probs.square().sum(1).mean())


def test_proper_scores_are_least_at_the_truth() -> None:
    truth = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)

    def expected(score: object, logits: Tensor) -> Tensor:
        probs = logits.softmax(-1).expand(3, 3)
        return (truth[0] * score(probs, torch.arange(3), reduction="none")).sum()  # type: ignore[operator]

    for score in (uncertainty.nll, uncertainty.brier_score):
        grad = torch.func.grad(lambda x, score=score: expected(score, x))(truth.log())
        assert grad.abs().max() < 1e-12
        assert expected(score, truth.log() + drawn(1, 3)) > expected(score, truth.log())


@pytest.mark.parametrize("score", [uncertainty.nll, uncertainty.brier_score])
def test_shapes_are_checked(score: object) -> None:
    with pytest.raises(ValueError, match=r"`targets` must have shape \(5,\).* got \(4,\)"):
        score(torch.ones(5, 2), torch.zeros(4, dtype=torch.int64))  # type: ignore[operator]
    with pytest.raises(ValueError, match="`reduction`"):
        score(torch.ones(5, 2), torch.zeros(5, dtype=torch.int64), reduction="max")  # type: ignore[operator]
