"""Split conformal prediction: its quantile exactly, its coverage by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fdnn import random, uncertainty

RUNS, NEW = 600, 50


@given(st.integers(1, 200), st.integers(1, 99))
@settings(max_examples=100, deadline=None)
def test_quantile_has_the_exact_rank(n: int, percent: int) -> None:
    """Also where (n + 1)(1 - alpha) is whole, and in floats it is not."""
    scores = torch.randperm(n, generator=torch.Generator().manual_seed(n)).double() + 1
    rank = math.ceil((n + 1) * (1 - Fraction(percent, 100)))
    wanted = math.inf if rank > n else rank
    assert uncertainty.conformal_quantile(scores, percent / 100) == wanted
    assert uncertainty.conformal_quantile(scores, torch.tensor(percent / 100)) == wanted


def test_levels_by_vmap() -> None:
    levels = torch.tensor([0.05, 0.1, 0.5])
    found = torch.vmap(uncertainty.conformal_quantile, in_dims=(None, 0))(
        torch.arange(1.0, 16.0), levels
    )
    assert found.tolist() == [math.inf, 15.0, 8.0]


def covered(one_run: Callable[[Tensor], Tensor], n: int, alpha: float) -> None:
    """The mean over runs is ceil((n + 1)(1 - alpha)) / (n + 1), if no scores are equal."""
    found = torch.vmap(one_run)(random.split(random.key(0), RUNS)).double()
    wanted = math.ceil((n + 1) * (1 - alpha)) / (n + 1)
    assert abs(found.mean() - wanted) < 4 * found.std() / math.sqrt(RUNS)


def labelled(key: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Probabilities of a model that is wrong, and labels."""
    first, second = random.split(key)
    logits = random.normal(first, (n, 5))
    return (3 * logits + torch.arange(5)).softmax(-1), random.categorical(second, logits)


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_lac_covers_what_it_promises(alpha: float) -> None:
    n = 49

    def run(key: Tensor) -> Tensor:
        probs, targets = labelled(key, n + NEW)
        threshold = uncertainty.conformal_quantile(
            uncertainty.lac_scores(probs[:n], targets[:n]), alpha
        )
        return uncertainty.set_coverage(uncertainty.lac_sets(probs[n:], threshold), targets[n:])

    covered(run, n, alpha)


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_aps_covers_what_it_promises(alpha: float) -> None:
    n = 49

    def run(key: Tensor) -> Tensor:
        key, first, second = random.split(key, 3)
        probs, targets = labelled(key, n + NEW)
        scores = uncertainty.aps_scores(probs[:n], targets[:n], key=first)
        threshold = uncertainty.conformal_quantile(scores, alpha)
        sets = uncertainty.aps_sets(probs[n:], threshold, key=second)
        return uncertainty.set_coverage(sets, targets[n:])

    covered(run, n, alpha)


@pytest.mark.parametrize("scaled", [False, True])
def test_intervals_cover_what_they_promise(scaled: bool) -> None:
    n, alpha = 19, 0.2

    def run(key: Tensor) -> Tensor:
        first, second = random.split(key)
        x = random.uniform(first, (n + NEW,))
        y = x + x * random.normal(second, (n + NEW,))
        predictions = 0.5 * x  # a wrong model
        scale = x + 0.1 if scaled else None
        held = None if scale is None else scale[:n]
        new = None if scale is None else scale[n:]
        threshold = uncertainty.conformal_quantile(
            uncertainty.residual_scores(predictions[:n], y[:n], scale=held), alpha
        )
        interval = uncertainty.residual_interval(predictions[n:], threshold, scale=new)
        return uncertainty.coverage(*interval, y[n:])

    covered(run, n, alpha)


def by_definition(probs: Tensor, u: Tensor) -> Tensor:
    """The score of each class, with explicit loops; no two probabilities are equal."""
    return torch.stack(
        [
            torch.stack([row[row > p].sum() + v * p for p in row])
            for row, v in zip(probs, u, strict=True)
        ]
    )


@given(st.integers(1, 6), st.integers(2, 7), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_aps_is_its_definition(n: int, classes: int, seed: int) -> None:
    key = random.key(seed)
    probs = random.normal(key, (n, classes), torch.float64).softmax(-1)
    targets = random.randint(key, (n,), 0, classes, torch.int64)
    for draw in (None, random.fold_in(key, 1)):
        u = torch.ones(n) if draw is None else random.uniform(draw, (n, 1), torch.float64)[:, 0]
        wanted = by_definition(probs, u)
        torch.testing.assert_close(
            uncertainty.aps_scores(probs, targets, key=draw), wanted[range(n), targets]
        )
        threshold = torch.tensor(0.7, dtype=torch.float64)
        sets = uncertainty.aps_sets(probs, threshold, key=draw)
        assert torch.equal(sets, wanted <= threshold)


def test_an_infinite_threshold_takes_all() -> None:
    probs = torch.tensor([[0.2, 0.8]])
    threshold = uncertainty.conformal_quantile(torch.zeros(3), 0.1)
    assert threshold == torch.inf
    assert uncertainty.lac_sets(probs, threshold).all()
    assert uncertainty.aps_sets(probs, threshold).all()
    interval = uncertainty.residual_interval(torch.zeros(2), threshold)
    assert uncertainty.coverage(*interval, torch.tensor([1e30, -1e30])) == 1


def test_a_score_at_the_threshold_is_inside() -> None:
    probs, targets = torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([2])
    for scores, sets in (
        (uncertainty.lac_scores, uncertainty.lac_sets),
        (uncertainty.aps_scores, uncertainty.aps_sets),
    ):
        found = sets(probs, scores(probs, targets)[0])
        assert found.tolist() == [[False, True, True]]


def test_aps_sets_grow_where_the_model_is_unsure() -> None:
    probs = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.4, 0.3, 0.2, 0.1]])
    sizes = uncertainty.aps_sets(probs, torch.tensor(0.975)).sum(-1)
    assert sizes.tolist() == [1, 3]


def test_arguments_are_checked() -> None:
    for alpha in (0, 1, -0.1):
        with pytest.raises(ValueError, match=rf"`alpha` must be in \(0, 1\), got {alpha}"):
            uncertainty.conformal_quantile(torch.ones(3), alpha)
    with pytest.raises(ValueError, match=r"`scores` must have shape \(batch,\)"):
        uncertainty.conformal_quantile(torch.ones(3, 2), 0.1)
    for scores in (uncertainty.lac_scores, uncertainty.aps_scores):
        with pytest.raises(ValueError, match=r"`targets` must have shape \(3,\)"):
            scores(torch.ones(3, 2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"`probs` must have shape \(batch, classes\)"):
        uncertainty.aps_sets(torch.ones(3), torch.tensor(0.5))
    with pytest.raises(ValueError, match="`targets` must have the shape of `predictions`"):
        uncertainty.residual_scores(torch.ones(3, 1), torch.ones(3))
    with pytest.raises(ValueError, match="`scale` must have the shape of `predictions`"):
        uncertainty.residual_interval(torch.ones(3), torch.tensor(1.0), scale=torch.ones(2))
