"""`cyclic` and `cyclic_momentum`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from fdnn import schedules

shapes = st.fixed_dictionaries(
    {
        "step_size_up": st.integers(1, 12),
        "step_size_down": st.none() | st.integers(1, 12),
        "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
        "gamma": st.floats(0.5, 1.0),
        "scale_fn": st.sampled_from([None, lambda x: 1 / (1 + x)]),
        "scale_mode": st.sampled_from(["cycle", "iterations"]),
    }
)


@given(base=st.floats(0.0, 1.0), top=st.floats(1.0, 5.0), shape=shapes)
def test_rate_is_torchs(compare: Any, base: float, top: float, shape: dict[str, Any]) -> None:
    compare(
        schedules.cyclic(base, top, **shape),
        lambda opt: lr_scheduler.CyclicLR(opt, base, top, **shape),
        lr=top,
    )


@given(low=st.floats(0.0, 1.0), high=st.floats(0.0, 1.0), shape=shapes)
def test_momentum_is_torchs(compare: Any, low: float, high: float, shape: dict[str, Any]) -> None:
    wanted, _ = compare.trace(
        lambda opt: lr_scheduler.CyclicLR(
            opt, 0.1, 1.0, **shape, base_momentum=low, max_momentum=high
        ),
        0.1,
        40,
        key="momentum",
    )
    found = schedules.cyclic_momentum(low, high, **shape)(torch.arange(40))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_defaults_are_torchs(compare: Any) -> None:
    def build(opt: Any) -> Any:
        return lr_scheduler.CyclicLR(opt, 0.1, 1.0)

    compare(schedules.cyclic(0.1, 1.0), build, lr=1.0)
    wanted, _ = compare.trace(build, 0.1, 40, key="momentum")
    found = schedules.cyclic_momentum()(torch.arange(40))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.cyclic(-0.1, 1.0), "`base_lr` must be at least 0, got -0.1"),
        (lambda: schedules.cyclic(0.1, 1.0, 0), "`step_size_up` must be an int, at least 1"),
        (lambda: schedules.cyclic(0.1, 1.0, 5, 0), "`step_size_down` must be an int, at least 1"),
        (lambda: schedules.cyclic(0.1, 1.0, mode="square"), "`mode` must be one of"),
        (lambda: schedules.cyclic(0.1, 1.0, scale_mode="epoch"), "`scale_mode` must be one of"),
        (lambda: schedules.cyclic_momentum(-0.1), r"`base_momentum` must be in \[0, 1\]"),
    ],
)
def test_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
