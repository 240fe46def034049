"""Schedules of sparsity: the papers' formulas, at every count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fdnn import compress

shares = st.floats(0, 1)


@given(shares, st.integers(0, 5))
def test_one_shot(sparsity: float, begin: int) -> None:
    schedule = compress.one_shot_sparsity(sparsity, begin)
    assert [schedule(t).item() for t in range(9)] == [sparsity * (t >= begin) for t in range(9)]


@given(shares, st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_rounds_take_the_same_share_of_the_rest(
    sparsity: float, rounds: int, interval: int, begin: int
) -> None:
    schedule = compress.iterative_sparsity(sparsity, rounds, interval, begin)
    left, share = 1.0, 1 - (1 - sparsity) ** (1 / rounds)
    for t in range(begin + interval * rounds + 3):
        is_round = t >= begin and (t - begin) % interval == 0
        if is_round and (t - begin) // interval < rounds:
            left *= 1 - share
        assert schedule(t).item() == pytest.approx(1 - left, abs=1e-12)
    assert 1 - left == pytest.approx(sparsity, abs=1e-12)


@given(shares, shares, st.integers(0, 3), st.integers(1, 9), st.integers(1, 4))
def test_cubic(final: float, initial: float, begin: int, length: int, interval: int) -> None:
    schedule = compress.cubic_sparsity(final, begin, begin + length, interval, initial)
    for t in range(begin + length + 3):
        done = min((t - begin) // interval * interval / length, 1) if t < begin + length else 1
        wanted = final + (initial - final) * (1 - done) ** 3 if t >= begin else 0.0
        assert schedule(t).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    "build",
    [
        lambda s: compress.one_shot_sparsity(s, 2),
        lambda s: compress.iterative_sparsity(s, 3, 2),
        lambda s: compress.cubic_sparsity(s, 1, 6, 2),
    ],
)
def test_sparsities_are_swept(build: Any) -> None:
    final, counts = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), torch.arange(9)
    swept = torch.vmap(lambda s: build(s)(counts))(final)
    alone = torch.stack([build(s)(counts) for s in final.tolist()])
    torch.testing.assert_close(swept, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compress.one_shot_sparsity(1.2), r"`sparsity` must be in \[0, 1\], got 1.2"),
        (lambda: compress.iterative_sparsity(0.5, 0, 1), "`rounds` must be an int, at least 1"),
        (lambda: compress.cubic_sparsity(0.5, 3, 3), "`end` must be an int, at least 4"),
        (lambda: compress.cubic_sparsity(0.5, 1, 3, 0), "`interval` must be an int, at least 1"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
