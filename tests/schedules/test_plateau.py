"""`reduce_on_plateau` against torch's ReduceLROnPlateau."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import vmap

from fdnn import optim, schedules, tree

settings = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.0, 0.1, 0.5, 0.9]),
        "patience": st.integers(0, 3),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1, 1.0, 2.0]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 0.013, 0.5]),
        "eps": st.sampled_from([0.0, 1e-8, 0.03]),
    }
)
# Few different values, so that equal ones, and ones at the threshold, are common.
metrics = st.sampled_from(
    [
        0.0,
        -0.0,
        0.5,
        1.0,
        1.1,
        0.9,
        0.99995,
        0.9999,
        -1.0,
        -0.9,
        -1.1,
        1e9,
        math.nan,
        math.inf,
        -math.inf,
    ]
) | st.floats(-2.0, 2.0)


def theirs(values: list[float], lr: float = 1.0, **flags: Any) -> list[tuple[float, ...]]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **flags)
    trace = []
    for value in values:
        scheduler.step(value)
        rate = optimizer.param_groups[0]["lr"]
        trace.append((scheduler.best, scheduler.num_bad_epochs, scheduler.cooldown_counter, rate))
    return trace


def ours(values: list[float], lr: float = 1.0, **flags: Any) -> list[tuple[float, ...]]:
    plateau = schedules.reduce_on_plateau(**flags, lr=lr)
    state, trace = plateau.init(), []
    for value in values:
        state, factor = plateau.update(state, torch.tensor(value, dtype=torch.float64))
        assert torch.equal(factor, state.factor)
        best, bad, cooling, factor = (leaf.item() for leaf in state)
        trace.append((best, bad, cooling, lr * factor))
    return trace


def assert_same(found: list[tuple[float, ...]], wanted: list[tuple[float, ...]]) -> None:
    assert [row[:3] for row in found] == [row[:3] for row in wanted]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in wanted], rel=1e-12)


@given(values=st.lists(metrics, max_size=30), flags=settings)
def test_is_torchs(values: list[float], flags: dict[str, Any]) -> None:
    assert_same(ours(values, **flags), theirs(values, **flags))


@given(values=st.lists(metrics, max_size=30), flags=settings)
def test_is_torchs_for_a_base_rate(values: list[float], flags: dict[str, Any]) -> None:
    """`min_lr` and `eps` are those of the rate, not of the factor."""
    assert_same(ours(values, lr=0.5, **flags), theirs(values, lr=0.5, **flags))


def test_defaults_are_torchs() -> None:
    values = [1.0] * 13 + [0.99995] * 12 + [0.5] * 25
    assert_same(ours(values), theirs(values))
    assert ours(values)[-1][-1] == pytest.approx(1e-4)


def test_chapters_run() -> None:
    """Accuracy, patience 2, a tenth: the drop comes after three epochs that are no better."""
    accuracies = [0.80, 0.84, 0.86, 0.87, 0.869, 0.868, 0.87, 0.88]
    rates = [row[-1] for row in ours(accuracies, lr=0.05, mode="max", patience=2)]
    assert rates == pytest.approx([0.05] * 6 + [0.005] * 2)


def test_negative_metrics() -> None:
    """With "rel" torch takes a standstill below 0 for progress; "abs" sees it."""
    flat = [-1.0] * 10
    assert ours(flat, patience=2)[-1][-1] == 1.0 == theirs(flat, patience=2)[-1][-1]
    assert ours(flat, patience=2, threshold_mode="abs")[-1][-1] < 1.0


def test_nan_is_never_better() -> None:
    trace = ours([1.0, math.nan, math.nan, 0.5], patience=1)
    assert [row[0] for row in trace] == [1.0, 1.0, 1.0, 0.5]
    assert trace[2][-1] == pytest.approx(0.1)


def test_lanes_are_solo_runs() -> None:
    """Each lane its own metrics, and its own patience and factor too."""
    values = torch.rand(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    patience, factor = torch.tensor([0, 1, 2, 3]), torch.tensor([0.1, 0.5, 0.9, 0.0])
    factor = factor.double()

    def update(patience: Any, factor: Any, state: Any, value: Any) -> Any:
        return schedules.reduce_on_plateau("min", factor, patience, cooldown=1).update(state, value)

    state = tree.stack([schedules.reduce_on_plateau().init()] * 4)
    solo = [schedules.reduce_on_plateau().init()] * 4
    for row in values:
        state, factors = vmap(update)(patience, factor, state, row)
        solo = [
            update(int(patience[i]), float(factor[i]), solo[i], float(row[i]))[0] for i in range(4)
        ]
        assert torch.equal(factors, state.factor)
    for found, wanted in zip(state, tree.stack(solo), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    assert len(set(state.factor.tolist())) == 4


def test_structure_is_constant_and_arguments_untouched() -> None:
    plateau = schedules.reduce_on_plateau(patience=0, cooldown=2)
    first = state = plateau.init()
    before = tree.map(torch.clone, first)
    for value in (1.0, torch.tensor(2.0), torch.tensor(3)):
        state, _ = plateau.update(state, value)
        tree.assert_same_structure(first, state)
    assert all(torch.equal(x, y) for x, y in zip(first, before, strict=True))


def test_multiplies_a_scheduled_rate() -> None:
    """The drop stays, and so does the schedule."""
    rate = schedules.exponential(0.1, gamma=0.5)
    tx = optim.chain(optim.sgd(lr=rate), optim.scale(1.0))
    params = {"w": torch.zeros(1, dtype=torch.float64)}
    state, plateau = tx.init(params), schedules.reduce_on_plateau(patience=0)
    watched, moved = plateau.init(), []
    for loss in (1.0, 2.0, 0.5, 0.4):
        new, state = optim.step(tx, params, {"w": torch.ones_like(params["w"])}, state)
        moved.append((params["w"] - new["w"]).item())
        params = new
        watched, factor = plateau.update(watched, loss)
        state = optim.set_hyperparams(state, step_size=factor)
    assert moved == pytest.approx([0.1, 0.05, 0.0025, 0.00125], rel=1e-12)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mode": "least"}, r"`mode` must be one of \['min', 'max'\], got 'least'"),
        ({"factor": 1.0}, r"`factor` must be in \[0, 1\), got 1.0"),
        ({"patience": -1}, "`patience` must be an int, at least 0"),
        ({"threshold": -1e-4}, "`threshold` must be at least 0, got -0.0001"),
        ({"threshold_mode": "log"}, r"`threshold_mode` must be one of \['rel', 'abs'\]"),
        ({"cooldown": 0.5}, "`cooldown` must be an int, at least 0, or a 0-d tensor, got 0.5"),
        ({"min_lr": -1.0}, "`min_lr` must be at least 0"),
        ({"lr": 0.0}, "`lr` must be above 0, got 0.0"),
    ],
)
def test_errors(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedules.reduce_on_plateau(**flags)
