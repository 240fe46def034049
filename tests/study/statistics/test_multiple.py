"""Holm's correction against worked examples and by simulation; comparisons of many arms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdnn.study import compare, compare_all, holm

P_VALUES = st.lists(st.floats(0, 1), max_size=12)
ARMS = {
    "sgd": [0.87, 0.88, 0.86, 0.87],
    "adam": [0.84, 0.86, 0.83, 0.85],
    "adamw": [0.85, 0.85, 0.84, 0.87],
}


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # R: p.adjust(p, "holm"), and by hand
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.9, 0.0], [1.0, 1.0, 0.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_worked_examples(p: list[float], adjusted: list[float]) -> None:
    np.testing.assert_allclose(holm(p), adjusted, rtol=1e-12)


@given(P_VALUES, st.floats(0.001, 0.5))
def test_is_the_step_down_procedure(p: list[float], alpha: float) -> None:
    """Reject from the smallest p-value on, until one exceeds alpha / (how many are left)."""
    rejected = set()
    for i in sorted(range(len(p)), key=p.__getitem__):
        if p[i] * (len(p) - len(rejected)) > alpha:
            break
        rejected.add(i)
    assert set(np.flatnonzero(holm(p) <= alpha)) == rejected


@given(P_VALUES, st.randoms(use_true_random=False))
def test_order_does_not_matter(p: list[float], random: object) -> None:
    order = list(range(len(p)))
    random.shuffle(order)  # type: ignore[attr-defined]
    x = np.array(p)
    assert (holm(x[order]) == holm(x)[order]).all()


def test_familywise_error() -> None:
    """Of 10 true hypotheses one or more is rejected with probability 1 - (1 - 0.005)^10."""
    rng, trials = np.random.default_rng(0), 5000
    share = np.mean([holm(p).min() <= 0.05 for p in rng.random((trials, 10))])
    expected = 1 - (1 - 0.05 / 10) ** 10
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / trials)


def test_all_pairs() -> None:
    found = compare_all(ARMS)
    assert list(found) == [("sgd", "adam"), ("sgd", "adamw"), ("adam", "adamw")]
    for (a, b), one in found.items():
        assert one._replace(p_holm=None) == compare(ARMS[a], ARMS[b])
    p = holm([one.t_test_p for one in found.values()])
    assert [one.p_holm for one in found.values()] == p.tolist()


def test_against_a_baseline() -> None:
    found = compare_all(ARMS, "adam", paired=False, confidence=0.9, seed=3)
    assert list(found) == [("sgd", "adam"), ("adamw", "adam")]
    alone = compare(ARMS["sgd"], ARMS["adam"], paired=False, confidence=0.9, seed=3)
    assert found["sgd", "adam"]._replace(p_holm=None) == alone


def test_verdict_goes_by_the_corrected_p() -> None:
    """A difference settled alone is not if it was the best of twenty."""
    a = np.array([0.4, 0.9, 0.1, 1.2, 0.3, 0.2])
    one = compare(a, np.zeros(6))
    assert 0.01 < one.t_test_p < 0.05
    assert one.verdict().startswith("A is above B")
    corrected = one._replace(p_holm=20 * one.t_test_p).verdict()
    assert (
        corrected.startswith("Not settled: A is above B") and "Holm-corrected p = 0." in corrected
    )


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"`p_values` must be in \[0, 1\], got 1.2"):
        holm([0.1, 1.2])
    with pytest.raises(ValueError, match=r"`p_values` must be in \[0, 1\], got nan"):
        holm([0.1, math.nan])
    with pytest.raises(ValueError, match="at least 2 arms, got 1"):
        compare_all({"a": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"one of the arms \['sgd', 'adam', 'adamw'\], got 'lion'"):
        compare_all(ARMS, "lion")
    with pytest.raises(ValueError, match=r"`values_by_arm\['sgd'\]` and .*'short'.*got 4 and 1"):
        compare_all({"sgd": ARMS["sgd"], "short": [1.0]})
