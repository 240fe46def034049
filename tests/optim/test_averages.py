"""Averages of parameters along a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import vmap
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params

START = {
    "w": torch.tensor([1.0, -2.0], dtype=torch.float64),
    "s": torch.tensor(0.5, dtype=torch.float64),
    "z": torch.tensor([1 + 2j], dtype=torch.complex128),
}


def walk(
    average: GradientTransformation, steps: int, start: Params = START
) -> tuple[list[Params], Any]:
    """The parameters after 0, 1, 2, ... steps, and the state."""
    tx = optim.chain(optim.adam(0.3), average)
    path, state = [start], tx.init(start)
    for t in range(steps):
        grads = tree.map(lambda p, t=t: torch.sin(p + t), path[-1])
        params, state = optim.step(tx, path[-1], grads, state)
        path.append(params)
    return path, state


def weighted(path: list[Params], weights: list[float]) -> Params:
    return tree.map(
        lambda *x: sum(w / sum(weights) * p for w, p in zip(weights, x, strict=True)), *path
    )


class Holder(nn.Module):
    """What torch averages: a module with these parameters."""

    def __init__(self, params: Params):
        super().__init__()
        self.values = nn.ParameterDict(params)


def torchs(path: list[Params], **how: Any) -> Params:
    averaged = AveragedModel(Holder(path[0]), **how)
    for params in path:
        averaged.update_parameters(Holder(params))
    return {name: value.detach() for name, value in averaged.module.values.items()}


@given(st.floats(0.0, 0.999), st.integers(0, 8))
def test_ema(decay: float, steps: int) -> None:
    """As torch's `AveragedModel`, and with `debias` the weighted mean it stands for."""
    path, state = walk(optim.ema_params(decay), steps)
    found = optim.averaged_params(state)
    if steps == 0:
        assert_equal(found, START)
        return
    theirs = torchs(path[1:], avg_fn=get_ema_avg_fn(decay))
    assert_close(found, theirs, rtol=1e-12, atol=1e-12)
    path, state = walk(optim.ema_params(decay, debias=True), steps)
    weights = [decay ** (steps - t) for t in range(1, steps + 1)]
    found = optim.averaged_params(state)
    assert_close(found, weighted(path[1:], weights), rtol=1e-12, atol=1e-12)


@given(st.integers(0, 4), st.integers(1, 3), st.integers(0, 10))
def test_swa(start: int, every: int, steps: int) -> None:
    path, state = walk(optim.swa(start, every), steps)
    taken = path[start::every] or path[-1:]
    found = optim.averaged_params(state)
    assert_close(found, torchs(taken), rtol=1e-12, atol=1e-12)
    assert_close(found, weighted(taken, [1.0] * len(taken)), rtol=1e-12, atol=1e-12)


def test_updates_pass_through_and_the_average_is_of_what_comes_after() -> None:
    plain, _ = walk(optim.chain(), 5)
    for average in (optim.ema_params(0.0), optim.swa(5)):
        path, state = walk(average, 5)
        assert_equal(path, plain)
        assert_equal(optim.averaged_params(state), path[-1])  # to the bit


def test_half_precision_is_averaged_in_float32() -> None:
    """In bfloat16 the average would never move: a thousandth of 1 is less than half an eps."""
    start = {"w": torch.zeros(1, dtype=torch.bfloat16)}
    tx = optim.chain(optim.sgd(1.0), optim.ema_params(0.999))
    params, state = optim.step(tx, start, {"w": start["w"] - 1}, tx.init(start))
    for _ in range(10):
        params, state = optim.step(tx, params, {"w": start["w"]}, state._replace())
    average = optim.averaged_params(state)["w"]
    assert (params["w"].item(), average.dtype, average.item()) == (1, torch.float32, 1)
    params, state = optim.step(tx, params, {"w": start["w"] - 1}, state)
    assert optim.averaged_params(state)["w"].item() == pytest.approx(1.001, abs=1e-6)


def test_a_new_state_shares_no_memory_with_the_parameters() -> None:
    """Or donating both would write one into the other."""
    state = optim.chain(optim.sgd(), optim.swa(0)).init(START)
    for name, x in optim.averaged_params(state).items():
        assert x.data_ptr() != START[name].data_ptr()


def test_inside_of_accumulation_it_counts_real_steps() -> None:
    tx = optim.multi_steps(optim.chain(optim.sgd(1.0), optim.swa(0)), 2)
    params = {"w": torch.zeros(1)}
    state = tx.init(params)
    for _ in range(5):
        params, state = optim.step(tx, params, {"w": -torch.ones(1)}, state)
    assert optim.averaged_params(state)["w"] == 1  # of 0, 1 and 2


def test_lanes_may_start_at_different_steps() -> None:
    tx = optim.chain(optim.sgd(1.0), optim.swa(0))
    params = {"w": torch.zeros(())}
    states = [optim.set_hyperparams(tx.init(params), start=s, every=e) for s, e in ((1, 2), (3, 1))]

    def run(state: Any) -> Tensor:
        here = params
        for _ in range(5):
            here, state = optim.step(tx, here, {"w": -torch.ones(())}, state)
        return optim.averaged_params(state)["w"]

    assert vmap(run)(tree.stack(states)).tolist() == [3, 4]  # of 1, 3, 5, and of 3, 4, 5


def test_several_averages_are_told_apart() -> None:
    tx = optim.chain(optim.sgd(1.0), optim.ema_params(0.0), optim.swa(0))
    params, state = optim.step(tx, START, START, tx.init(START))
    with pytest.raises(ValueError, match=r"\['ema_params.average', 'swa.average'\], got None"):
        optim.averaged_params(state)
    assert_equal(optim.averaged_params(state, "ema_params.average"), params)
    with pytest.raises(ValueError, match=r"\[\]"):
        optim.averaged_params(optim.adam().init(START))


def test_errors() -> None:
    for make, message in (
        (lambda: optim.ema_params(1.0), r"`decay` must be in \[0, 1\), got 1.0"),
        (lambda: optim.swa(-1), "`start` must be at least 0, got -1"),
        (lambda: optim.swa(0, 0), "`every` must be at least 1, got 0"),
        (lambda: optim.swa(0).update(START, optim.swa(0).init(START)), "`params` must be given"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
