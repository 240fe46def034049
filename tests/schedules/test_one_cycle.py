"""`one_cycle` and `one_cycle_momentum`, alone and in optimizers."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from fdnn import optim, schedules

STEPS = 40

shapes = st.fixed_dictionaries(
    {
        # Not where torch divides by zero: a first phase that ends at step 0.
        "pct_start": st.floats(0.0, 1.0).filter(
            lambda p: all(abs(n * p * STEPS - n) > 1e-6 for n in (1, 2)) and p < 1
        ),
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
        "three_phase": st.booleans(),
    }
)


@given(
    max_lr=st.floats(1e-3, 10.0),
    shape=shapes,
    div=st.floats(1.0, 100.0),
    final_div=st.floats(1.0, 1e6),
)
def test_rate_is_torchs(
    compare: Any, max_lr: float, shape: dict[str, Any], div: float, final_div: float
) -> None:
    own = {**shape, "div_factor": div, "final_div_factor": final_div}
    compare(
        schedules.one_cycle(max_lr, STEPS, **own),
        lambda opt: lr_scheduler.OneCycleLR(opt, max_lr, STEPS, **own),
        lr=max_lr,
        steps=STEPS,
    )


@given(shape=shapes, low=st.floats(0.0, 1.0), high=st.floats(0.0, 1.0))
def test_momentum_is_torchs(compare: Any, shape: dict[str, Any], low: float, high: float) -> None:
    own = {**shape, "base_momentum": low, "max_momentum": high}
    wanted, _ = compare.trace(
        lambda opt: lr_scheduler.OneCycleLR(opt, 0.1, STEPS, **own), 0.1, STEPS, key="momentum"
    )
    found = schedules.one_cycle_momentum(STEPS, **own)(torch.arange(STEPS))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_defaults_are_torchs(compare: Any) -> None:
    def build(opt: Any) -> Any:
        return lr_scheduler.OneCycleLR(opt, 0.1, 100)

    compare(schedules.one_cycle(0.1, 100), build, lr=0.1, steps=100)
    wanted, _ = compare.trace(build, 0.1, 100, key="momentum")
    found = schedules.one_cycle_momentum(100)(torch.arange(100))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_what_torch_divides_by_zero() -> None:
    """A rise of one step is at its end; so is a run of one step."""
    assert schedules.one_cycle(0.1, 10, pct_start=0.1)(0).item() == pytest.approx(0.1)
    assert schedules.one_cycle(0.1, 1, pct_start=1.0)(0).item() == pytest.approx(0.1)
    assert schedules.one_cycle(0.1, 10, pct_start=1.0)(9).item() == pytest.approx(0.1)
    assert schedules.one_cycle_momentum(1, pct_start=1.0)(0).item() == pytest.approx(0.85)


def test_beyond_its_end() -> None:
    schedule = schedules.one_cycle(0.1, total_steps=20)
    assert schedule.total_steps == 20
    last = schedule(19)
    for count in (20, torch.tensor(20), torch.arange(21)):
        with pytest.raises(ValueError, match="`count` must be below 20, the length of the sched"):
            schedule(count)
    with pytest.raises(ValueError, match="`count` must be at least 0, got -1"):
        schedule(-1)
    # Where a count is not known, the last value stays.
    assert torch.equal(torch.vmap(schedule)(torch.tensor([19, 20, 100])), last.expand(3))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_optimizer_follows_both_traces(name: str) -> None:
    """Momentum or beta1 with the rate: torch's trajectory under OneCycleLR."""
    total, rate = 60, schedules.one_cycle(0.1, 60, three_phase=True)
    momentum = schedules.one_cycle_momentum(60, three_phase=True)
    leaf = torch.tensor([1.5, -0.3, 0.0], dtype=torch.float64)
    theirs = leaf.clone().requires_grad_()
    if name == "sgd":
        tx, optimizer = optim.sgd(rate, momentum), torch.optim.SGD([theirs], lr=1.0, momentum=0.9)
    else:
        tx, optimizer = (
            optim.adam(rate, (momentum, 0.999)),
            torch.optim.Adam([theirs], foreach=False),
        )
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, total, three_phase=True)
    params = {"w": leaf}
    state = tx.init(params)
    assert tx.total_steps == total
    for t in range(total):
        theirs.grad = torch.sin(theirs.detach() * 3 + t)
        params, state = optim.step(tx, params, {"w": torch.sin(params["w"] * 3 + t)}, state)
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scheduler.step()
        torch.testing.assert_close(params["w"], theirs.detach(), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="`count` must be below 60"):
        optim.step(tx, params, params, state)


def test_turns_on_momentum_that_was_off() -> None:
    """torch does, and takes no notice of the optimizer's own rate: here one says so."""
    total, leaf = 40, torch.tensor([1.5, -0.3], dtype=torch.float64)
    theirs = leaf.clone().requires_grad_()
    optimizer = torch.optim.SGD([theirs], lr=7.0)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, total)
    group, rate = optimizer.param_groups[0], schedules.one_cycle(0.1, total)
    assert (group["lr"], group["momentum"]) == (pytest.approx(0.004), 0.95)
    both = {
        "with": optim.sgd(rate, schedules.one_cycle_momentum(total)),
        "without": optim.sgd(rate),
    }
    places = {name: ({"w": leaf}, tx.init({"w": leaf})) for name, tx in both.items()}
    for t in range(total):
        theirs.grad = theirs.detach() + math.sin(t)
        optimizer.step()
        if t < total - 1:
            scheduler.step()
        for name, (params, state) in places.items():
            places[name] = optim.step(both[name], params, {"w": params["w"] + math.sin(t)}, state)
    assert group["lr"] == pytest.approx(4e-7) and group["momentum"] == pytest.approx(0.95)
    wanted = theirs.detach()
    torch.testing.assert_close(places["with"][0]["w"], wanted, rtol=0, atol=1e-12)
    assert (places["without"][0]["w"] - wanted).abs().max() > 0.1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.one_cycle(0.1, 0), "`total_steps` must be an int, at least 1"),
        (lambda: schedules.one_cycle(0.1, 10.0), "`total_steps` must be an int, at least 1"),
        (lambda: schedules.one_cycle(0.1, 9, 1.1), r"`pct_start` must be in \[0, 1\], got 1.1"),
        (lambda: schedules.one_cycle(0.1, 9, 0.3, "exp"), "`anneal_strategy` must be one of"),
        (lambda: schedules.one_cycle(0.1, 9, div_factor=0), "`div_factor` must be above 0, got 0"),
        (lambda: schedules.one_cycle_momentum(9, max_momentum=1.2), "`max_momentum` must be in"),
    ],
)
def test_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
