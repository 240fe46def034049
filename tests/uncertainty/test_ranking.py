"""Ranking and selective prediction against scikit-learn and plain loops, ties included."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from fdnn import uncertainty

tied = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40)


def columns(pairs: list[tuple[int, bool]]) -> tuple[Tensor, Tensor]:
    scores, labels = zip(*pairs, strict=True)
    return torch.tensor(scores, dtype=torch.float64) / 7, torch.tensor(labels)


@given(tied.filter(lambda pairs: len({label for _, label in pairs}) == 2))
@settings(max_examples=50, deadline=None)
def test_equal_to_sklearn_with_ties(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = columns(pairs)
    assert uncertainty.auroc(scores, labels).item() == pytest.approx(
        roc_auc_score(labels, scores), abs=1e-14
    )
    assert uncertainty.average_precision(scores, labels).item() == pytest.approx(
        average_precision_score(labels, scores), abs=1e-14
    )


def test_equal_to_sklearn_on_many() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(20_000, generator=generator) < 0.1
    scores = torch.randn(20_000, generator=generator) + labels
    for ours, theirs in (
        (uncertainty.auroc, roc_auc_score),
        (uncertainty.average_precision, average_precision_score),
    ):
        found = ours(scores, labels)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(theirs(labels, scores), rel=1e-6)


def test_one_kind_only_is_nan() -> None:
    scores = torch.tensor([0.1, 0.2])
    assert uncertainty.auroc(scores, torch.ones(2)).isnan()
    assert uncertainty.auroc(scores, torch.zeros(2)).isnan()
    assert uncertainty.average_precision(scores, torch.zeros(2)).isnan()
    assert uncertainty.average_precision(scores, torch.ones(2)) == 1


def test_whole_numbers_are_scores() -> None:
    assert uncertainty.auroc(torch.tensor([1, 2, 2]), torch.tensor([0, 1, 0])) == 0.75


def every_order(uncertain: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """The mean curve over all orders of examples that sort them by uncertainty."""
    curves = []
    for order in itertools.permutations(range(len(errors))):
        if (np.diff(uncertain[list(order)]) >= 0).all():
            curves.append(errors[list(order)].cumsum() / np.arange(1, len(errors) + 1))
    return np.mean(curves, 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_risk_is_the_mean_over_orders_of_ties(pairs: list[tuple[int, float]]) -> None:
    uncertain, errors = (torch.tensor(c, dtype=torch.float64) for c in zip(*pairs, strict=True))
    found = uncertainty.risk_coverage(uncertain, errors)
    wanted = torch.tensor(every_order(uncertain.numpy(), errors.numpy()))
    torch.testing.assert_close(found.risk, wanted)
    torch.testing.assert_close(
        found.coverage, torch.arange(1, len(pairs) + 1).double() / len(pairs)
    )
    torch.testing.assert_close(uncertainty.aurc(uncertain, errors), wanted.mean())


@given(tied)
@settings(max_examples=50, deadline=None)
def test_excess_is_positive_and_0_in_the_best_order(pairs: list[tuple[int, bool]]) -> None:
    uncertain, errors = columns(pairs)
    assert uncertainty.excess_aurc(uncertain, errors) >= -1e-6
    assert uncertainty.excess_aurc(errors.double(), errors) == 0
    worst = uncertainty.aurc(1 - errors.double(), errors)
    assert uncertainty.aurc(uncertain, errors) <= worst + 1e-6
    constant = uncertainty.risk_coverage(torch.zeros(len(pairs)), errors)
    torch.testing.assert_close(constant.risk, errors.float().mean().expand(len(pairs)))


def test_gradient_of_the_area() -> None:
    uncertain = torch.tensor([0.3, 0.1, 0.1, 0.7], dtype=torch.float64)
    errors = torch.tensor([0.2, 0.5, 0.9, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: uncertainty.aurc(uncertain, e), (errors,))


@pytest.mark.parametrize(
    ("function", "second"),
    [
        (uncertainty.auroc, "labels"),
        (uncertainty.average_precision, "labels"),
        (uncertainty.risk_coverage, "errors"),
    ],
)
def test_shapes_are_checked(function: object, second: str) -> None:
    with pytest.raises(ValueError, match=r"must have shape \(batch,\), got \(2, 2\)"):
        function(torch.ones(2, 2), torch.ones(2, 2))  # type: ignore[operator]
    with pytest.raises(ValueError, match=rf"`{second}` must have the shape of .* got \(3,\)"):
        function(torch.ones(2), torch.ones(3))  # type: ignore[operator]
