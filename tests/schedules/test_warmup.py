"""`constant`, `linear`, `warmup`, `warmup_stable_decay`."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from fdnn import schedules

RATES = st.floats(1e-4, 10.0)


@given(lr=RATES, factor=st.floats(1e-3, 1.0), total_iters=st.integers(1, 30))
def test_constant_is_torchs(compare: Any, lr: float, factor: float, total_iters: int) -> None:
    compare(
        schedules.constant(lr, factor, total_iters),
        lambda opt: lr_scheduler.ConstantLR(opt, factor, total_iters),
        lr,
    )


@given(
    lr=RATES,
    start=st.floats(1e-3, 1.0),
    end=st.floats(0.0, 1.0),
    total_iters=st.integers(1, 30),
)
def test_linear_is_torchs(
    compare: Any, lr: float, start: float, end: float, total_iters: int
) -> None:
    compare(
        schedules.linear(lr, start, end, total_iters),
        lambda opt: lr_scheduler.LinearLR(opt, start, end, total_iters),
        lr,
    )


def test_defaults_are_torchs(compare: Any) -> None:
    compare(schedules.constant(0.1), lr_scheduler.ConstantLR, 0.1)
    compare(schedules.linear(0.1), lr_scheduler.LinearLR, 0.1)


@given(steps=st.integers(0, 10), start=st.floats(0.0, 1.0))
def test_warmup_multiplies_and_keeps_the_count(steps: int, start: float) -> None:
    falls = schedules.exponential(0.3, 0.8)
    warm = schedules.warmup(falls, steps, start)
    for count in range(14):
        factor = start + (1 - start) * min(count / steps, 1.0) if steps else 1.0
        assert warm(count).item() == pytest.approx(falls(count).item() * factor, rel=1e-14)
    assert schedules.warmup(0.3, steps, start)(steps).item() == 0.3


def test_warmup_uses_its_first_value() -> None:
    """Three epochs from a tenth, as in the chapter, whose loop never trained at a tenth."""
    warm = schedules.warmup(0.05, steps=3, start_factor=0.1)
    used = [warm(epoch).item() for epoch in range(5)]
    assert used == pytest.approx([0.005, 0.02, 0.035, 0.05, 0.05], rel=1e-14)


def test_warmup_stepped_too_early_is_one_ahead() -> None:
    """The chapter's loop steps torch's scheduler before it trains, and prints another's value."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    rise = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=3)
    watch = lr_scheduler.ReduceLROnPlateau(optimizer)
    warm, used, printed = schedules.warmup(0.05, steps=3, start_factor=0.1), [], []
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of just this order, the first time
            rise.step()
        used.append(optimizer.param_groups[0]["lr"])
        printed.append(watch.get_last_lr()[0])
        optimizer.step()
    assert used == pytest.approx([0.02, 0.035, 0.05], rel=1e-14)
    assert used == pytest.approx([warm(epoch + 1).item() for epoch in range(3)], rel=1e-14)
    assert printed == pytest.approx([0.005] * 3, rel=1e-14)


def test_warmup_never_erases_a_drop() -> None:
    """torch's LambdaLR sets the rate anew at each epoch and undoes what others did."""
    plateau = schedules.reduce_on_plateau(patience=0)
    warm, state = schedules.warmup(0.05, steps=3), plateau.init()
    used = []
    for epoch, loss in enumerate([1.0, 2.0, 0.5, 0.4, 0.3]):
        used.append((warm(epoch) * state.factor).item())
        state, _ = plateau.update(state, loss)
    assert used == pytest.approx([0.05 / 3, 0.05 * 5 / 9, 0.005 * 7 / 9, 0.005, 0.005], rel=1e-14)


@pytest.mark.parametrize("keeps", [True, False], ids=["LinearLR", "LambdaLR"])
def test_beside_torchs_plateau(keeps: bool) -> None:
    """LinearLR multiplies the rate there is, as the product does; LambdaLR sets it anew."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    rise = (
        lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 3)
        if keeps
        else lr_scheduler.LambdaLR(optimizer, lambda epoch: min(0.1 + 0.9 * epoch / 3, 1.0))
    )
    watch = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=2)
    plateau = schedules.reduce_on_plateau("max", patience=2)
    warm, state = schedules.warmup(0.05, steps=3, start_factor=0.1), plateau.init()
    used, printed, product = [], [], []
    for epoch, accuracy in enumerate([0.81, 0.83, 0.85, 0.855, 0.86, 0.85, 0.85, 0.85, 0.87, 0.88]):
        used.append(optimizer.param_groups[0]["lr"])
        product.append((warm(epoch) * state.factor).item())
        optimizer.step()
        watch.step(accuracy)
        printed.append(optimizer.param_groups[0]["lr"])
        rise.step()
        state, _ = plateau.update(state, accuracy)
    assert printed[7] == pytest.approx(0.005)
    assert product[8:] == pytest.approx([0.005] * 2)
    assert used[:8] == pytest.approx(product[:8], rel=1e-14)
    assert used[8:] == pytest.approx(product[8:] if keeps else [0.05] * 2, rel=1e-14)


def test_warmup_of_a_finite_schedule_has_its_length() -> None:
    assert schedules.warmup(schedules.one_cycle(0.1, 30), 5).total_steps == 30


@pytest.mark.parametrize("shape", ["linear", "cos", "1-sqrt"])
def test_warmup_stable_decay(shape: str) -> None:
    schedule = schedules.warmup_stable_decay(2.0, 4, 3, 5, 0.2, 0.1, shape)
    left = {
        "linear": lambda u: 1 - u,
        "cos": lambda u: (1 + math.cos(math.pi * u)) / 2,
        "1-sqrt": lambda u: 1 - math.sqrt(u),
    }[shape]
    wanted = [2.0 * (0.2 + 0.8 * t / 4) for t in range(4)] + [2.0] * 3
    wanted += [2.0 * (0.1 + 0.9 * left(t / 5)) for t in range(5)]
    assert schedule.total_steps == 12
    torch.testing.assert_close(
        schedule(torch.arange(12)), torch.tensor(wanted, dtype=torch.float64), rtol=1e-14, atol=0
    )


def test_phases_of_no_steps() -> None:
    assert schedules.warmup_stable_decay(1.0, 0, 2, 0)(1).item() == 1.0
    assert schedules.warmup_stable_decay(1.0, 0, 0, 2)(0).item() == 1.0
    with pytest.raises(ValueError, match="must not all be 0"):
        schedules.warmup_stable_decay(1.0, 0, 0, 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.constant(-1.0), "`lr` must be at least 0, got -1.0"),
        (lambda: schedules.constant(1.0, 1.1), r"`factor` must be in \[0, 1\], got 1.1"),
        (lambda: schedules.constant(1.0, 0.5, 2.5), "`total_iters` must be an int, at least 0"),
        (lambda: schedules.linear(1.0, 0.0), r"`start_factor` must be in \(0, 1\], got 0.0"),
        (lambda: schedules.linear(1.0, 1.0, -0.1), r"`end_factor` must be in \[0, 1\], got -0.1"),
        (lambda: schedules.linear(1.0, total_iters=0), "`total_iters` must be an int, at least 1"),
        (lambda: schedules.linear(math.nan), "`lr` must be at least 0, got nan"),
        (lambda: schedules.warmup(1.0, -1), "`steps` must be an int, at least 0, or a 0-d tensor"),
        (lambda: schedules.warmup(1.0, 2, 1.5), r"`start_factor` must be in \[0, 1\], got 1.5"),
        (
            lambda: schedules.warmup_stable_decay(1.0, 1, 1, 1, anneal_strategy="exp"),
            r"`anneal_strategy` must be one of \['cos', 'linear', '1-sqrt'\], got 'exp'",
        ),
    ],
)
def test_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_rate_that_is_no_number() -> None:
    with pytest.raises(TypeError, match="`lr` must be a number or a 0-d tensor, got 'fast'"):
        schedules.linear("fast")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a schedule, a number or a 0-d tensor is needed, got None"):
        schedules.warmup(None, 3)
