"""`lambda_`, `multiplicative` and `piecewise`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from fdnn import schedules

RATES = st.floats(1e-4, 10.0)


@given(lr=RATES, base=st.floats(0.1, 1.0), size=st.integers(1, 9))
def test_lambda_is_torchs(compare: Any, lr: float, base: float, size: int) -> None:
    def factor(epoch: Any) -> Any:
        return base ** (epoch // size) + 0.1 / (1 + epoch)

    compare(
        schedules.lambda_(lr, factor),
        lambda opt: lr_scheduler.LambdaLR(opt, factor),
        lr,
        scale=2 * lr,
    )


def test_lambda_keeps_its_places() -> None:
    """A float times an integer tensor is float32 in torch: the count comes as float64."""
    schedule = schedules.lambda_(0.1, lambda count: 0.95**count)
    assert schedule(torch.tensor(17)).item() == pytest.approx(0.1 * 0.95**17, rel=1e-14)


@given(lr=RATES, base=st.floats(0.5, 1.0), size=st.integers(1, 9))
def test_multiplicative_is_torchs(compare: Any, lr: float, base: float, size: int) -> None:
    def factor(epoch: int) -> float:
        return base if epoch % size == 0 else 1.0

    compare(
        schedules.multiplicative(lr, factor, 40),
        lambda opt: lr_scheduler.MultiplicativeLR(opt, factor),
        lr,
    )


def test_multiplicative_is_finite() -> None:
    schedule = schedules.multiplicative(1.0, lambda i: 0.5, 3)
    assert schedule.total_steps == 3
    with pytest.raises(ValueError, match="`count` must be below 3"):
        schedule(3)
    assert schedules.multiplicative(1.0, lambda i: 0.5, 1)(0).item() == 1.0


@given(
    points=st.lists(st.tuples(st.integers(1, 20), st.floats(0.0, 5.0)), max_size=5),
    first=st.floats(0.0, 5.0),
)
def test_piecewise(points: list[tuple[int, float]], first: float) -> None:
    milestones = np.cumsum([gap for gap, _ in points], dtype=int).tolist()
    values = [first, *[value for _, value in points]]
    counts = torch.arange(sum(milestones[-1:]) + 5)

    stairs = schedules.piecewise(values, milestones)(counts)
    wanted = [values[np.searchsorted(milestones, t, side="right")] for t in counts.tolist()]
    assert stairs.tolist() == wanted

    ramp = schedules.piecewise(values, milestones, "linear")(counts)
    wanted = np.interp(counts.numpy(), [0, *milestones], values)
    np.testing.assert_allclose(ramp.numpy(), wanted, rtol=0, atol=1e-13)

    wave = schedules.piecewise(values, milestones, "cos")(counts)
    for t, found in zip(counts.tolist(), wave.tolist(), strict=True):
        i = int(np.searchsorted(milestones, t, side="right"))
        if i == len(milestones):
            assert found == pytest.approx(values[-1], abs=1e-13)
        else:
            start, end = [0, *milestones][i : i + 2]
            done = (1 - math.cos(math.pi * (t - start) / (end - start))) / 2
            assert found == pytest.approx(values[i] + (values[i + 1] - values[i]) * done, abs=1e-13)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.piecewise([1.0], [3]), "`values` must be one more than the 1 milest"),
        (lambda: schedules.piecewise([1.0, 2.0], [0]), "`milestones` must be rising ints above 0"),
        (lambda: schedules.piecewise([1.0, 2.0, 3.0], [4, 4]), "`milestones` must be rising"),
        (lambda: schedules.piecewise([1.0, math.nan], [4]), r"`values\[1\]` must be finite"),
        (lambda: schedules.piecewise([1.0], [], "cubic"), "`interpolation` must be one of"),
        (lambda: schedules.multiplicative(1.0, abs, 0), "`total_steps` must be an int, at least 1"),
        (lambda: schedules.lambda_(-1.0, abs), "`lr` must be at least 0"),
    ],
)
def test_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
