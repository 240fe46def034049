"""Exponentials, staircases and powers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from fdnn import schedules

RATES, GAMMAS = st.floats(1e-4, 10.0), st.floats(0.05, 1.05)


@given(lr=RATES, gamma=GAMMAS)
def test_exponential_is_torchs(compare: Any, lr: float, gamma: float) -> None:
    compare(
        schedules.exponential(lr, gamma),
        lambda opt: lr_scheduler.ExponentialLR(opt, gamma),
        lr,
        scale=10 * lr,
    )


@given(lr=RATES, gamma=GAMMAS, step_size=st.integers(1, 50))
def test_step_is_torchs(compare: Any, lr: float, gamma: float, step_size: int) -> None:
    compare(
        schedules.step(lr, step_size, gamma),
        lambda opt: lr_scheduler.StepLR(opt, step_size, gamma),
        lr,
        scale=10 * lr,
    )


@given(lr=RATES, gamma=GAMMAS, milestones=st.lists(st.integers(1, 50), max_size=6).map(sorted))
def test_multi_step_is_torchs(compare: Any, lr: float, gamma: float, milestones: list[int]) -> None:
    compare(
        schedules.multi_step(lr, milestones, gamma),
        lambda opt: lr_scheduler.MultiStepLR(opt, milestones, gamma),
        lr,
        scale=10 * lr,
    )


@given(lr=RATES, total_iters=st.integers(1, 30), power=st.floats(0.1, 4.0))
def test_polynomial_is_torchs(compare: Any, lr: float, total_iters: int, power: float) -> None:
    compare(
        schedules.polynomial(lr, total_iters, power),
        lambda opt: lr_scheduler.PolynomialLR(opt, total_iters, power),
        lr,
    )


def test_defaults_are_torchs(compare: Any) -> None:
    compare(schedules.step(0.1, 7), lambda opt: lr_scheduler.StepLR(opt, 7), 0.1)
    compare(schedules.multi_step(0.1, [3]), lambda opt: lr_scheduler.MultiStepLR(opt, [3]), 0.1)
    compare(schedules.polynomial(0.1), lr_scheduler.PolynomialLR, 0.1)


@given(lr=RATES, size=st.floats(0.5, 100.0), c=st.floats(0.0, 3.0), count=st.integers(0, 10**6))
def test_power(lr: float, size: float, c: float, count: int) -> None:
    wanted = lr / (1 + count / size) ** c
    assert schedules.power(lr, size, c)(count).item() == pytest.approx(wanted, rel=1e-12)


@given(lr=RATES, scale=st.floats(0.5, 100.0), count=st.integers(0, 10**6))
def test_inverse_sqrt(lr: float, scale: float, count: int) -> None:
    wanted = lr * math.sqrt(scale / max(count, scale))
    found = schedules.inverse_sqrt(lr, scale)(count).item()
    assert found == pytest.approx(wanted, rel=1e-14)


def test_transformers_schedule() -> None:
    """Vaswani et al., width 512 and 400 steps of warm-up, but for counting from 0."""
    schedule = schedules.warmup(schedules.inverse_sqrt((512 * 400) ** -0.5, 400), 400, 0.0)
    for count in (1, 100, 400, 401, 5000):
        wanted = 512**-0.5 * min(count**-0.5, count * 400**-1.5)
        assert schedule(count).item() == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.exponential(0.1, -0.1), "`gamma` must be at least 0, got -0.1"),
        (lambda: schedules.step(0.1, 0), "`step_size` must be an int, at least 1"),
        (lambda: schedules.multi_step(0.1, [3, 2]), r"`milestones` must be rising .* \[3, 2\]"),
        (lambda: schedules.multi_step(0.1, [0, 2]), "`milestones` must be rising ints above 0"),
        (lambda: schedules.multi_step(0.1, [0.5]), "`milestones` must be rising ints above 0"),
        (lambda: schedules.polynomial(0.1, 0), "`total_iters` must be an int, at least 1"),
        (lambda: schedules.polynomial(0.1, 5, -1.0), "`power` must be at least 0, got -1.0"),
        (lambda: schedules.power(0.1, 0), "`step_size` must be above 0, got 0"),
        (lambda: schedules.inverse_sqrt(0.1, -1), "`timescale` must be above 0, got -1"),
    ],
)
def test_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
