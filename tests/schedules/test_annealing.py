"""Cosine annealing, restarts, and the way to weight averaging."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from fdnn import schedules

RATES = st.floats(1e-4, 10.0)
SHARES = st.floats(0.0, 1.0)


@given(lr=RATES, T_max=st.integers(1, 30), share=SHARES)
def test_cosine_annealing_is_torchs(compare: Any, lr: float, T_max: int, share: float) -> None:
    """Beyond T_max too, where it rises again."""
    compare(
        schedules.cosine_annealing(lr, T_max, share * lr),
        lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max, share * lr),
        lr,
    )


@given(lr=RATES, T_0=st.integers(1, 10), T_mult=st.integers(1, 4), share=SHARES)
def test_warm_restarts_are_torchs(
    compare: Any, lr: float, T_0: int, T_mult: int, share: float
) -> None:
    compare(
        schedules.cosine_annealing_warm_restarts(lr, T_0, T_mult, share * lr),
        lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0, T_mult, share * lr),
        lr,
    )


@given(T_0=st.integers(1, 100), T_mult=st.integers(2, 10), data=st.data())
def test_restarts_are_where_they_should_be(T_0: int, T_mult: int, data: st.DataObject) -> None:
    """Exactly: a logarithm would miss some by rounding."""
    number = data.draw(st.integers(0, 12))
    restart = T_0 * (T_mult**number - 1) // (T_mult - 1)
    schedule = schedules.cosine_annealing_warm_restarts(1.0, T_0, T_mult)
    assert schedule(restart).item() == 1.0
    if number > 0 and T_0 * T_mult ** (number - 1) > 1:
        assert schedule(restart - 1).item() < 0.51


def test_chapters_restarts() -> None:
    schedule = schedules.cosine_annealing_warm_restarts(0.05, T_0=2, T_mult=2, eta_min=0.001)
    rates = schedule(torch.arange(62)).tolist()
    assert [t for t in range(1, 62) if rates[t] > rates[t - 1]] == [2, 6, 14, 30]
    assert min(rates) > 0.001


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@given(lr=RATES, swa_lr=RATES, epochs=st.integers(0, 20))
def test_swa_is_torchs(compare: Any, strategy: str, lr: float, swa_lr: float, epochs: int) -> None:
    compare(
        schedules.swa(lr, swa_lr, epochs, strategy),
        lambda opt: SWALR(opt, swa_lr, epochs, strategy),
        lr,
        scale=max(lr, swa_lr),
    )


def test_swa_after_another_schedule() -> None:
    """The loop of torch's documentation."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.9)
    swa_scheduler, swa_start, used = SWALR(optimizer, 0.05, 6, "linear"), 8, []
    for i in range(25):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        (swa_scheduler if i > swa_start else scheduler).step()
    before = schedules.exponential(0.1, 0.9)
    schedule = schedules.swa(before, 0.05, 6, "linear", start=swa_start + 1)
    torch.testing.assert_close(
        schedule(torch.arange(25)), torch.tensor(used, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_swa_after_a_finite_schedule() -> None:
    schedule = schedules.swa(schedules.one_cycle(0.1, 10), 0.05, 2, start=9)
    assert schedule.total_steps is None
    assert schedule(30).item() == pytest.approx(0.05)
    with pytest.raises(ValueError, match="`start` must be below 10, `lr`'s length, got 10"):
        schedules.swa(schedules.one_cycle(0.1, 10), 0.05, 2, start=10)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.cosine_annealing(0.1, 0), "`T_max` must be an int, at least 1"),
        (lambda: schedules.cosine_annealing(0.1, 5, -0.1), "`eta_min` must be at least 0"),
        (
            lambda: schedules.cosine_annealing_warm_restarts(0.1, 0),
            "`T_0` must be an int, at least 1",
        ),
        (
            lambda: schedules.cosine_annealing_warm_restarts(0.1, 1, 1.5),
            "`T_mult` must be an int, at least 1, got 1.5",
        ),
        (lambda: schedules.swa(0.1, 0.05, -1), "`anneal_epochs` must be an int, at least 0"),
        (lambda: schedules.swa(0.1, 0.05, 1, "exp"), "`anneal_strategy` must be one of"),
    ],
)
def test_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
