"""`lookahead`: the paper's two loops, and what optax's users missed in it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params


def walk(tx: GradientTransformation, params: Params, grads: list[float]) -> list[tuple[Any, Any]]:
    state, path = tx.init(params), []
    for g in grads:
        params, state = optim.step(tx, params, tree.map(lambda p, g=g: p * 0 + g, params), state)
        path.append((params, state))
    return path


def listener(heard: list[Any]) -> GradientTransformation:
    """Plain gradient steps that note what else they are told."""

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        heard.append(extra)
        return tree.map(lambda g: -g, grads), state

    return GradientTransformation(lambda params: {}, update)


@given(
    gradients=st.lists(st.floats(-10, 10), min_size=1, max_size=20),
    period=st.integers(1, 6),
    share=st.floats(0, 1),
)
def test_is_the_paper_s_two_loops(gradients: list[float], period: int, share: float) -> None:
    tx = optim.lookahead(optim.sgd(0.1), period, share)
    slow = fast = 1.0
    path = walk(tx, {"w": torch.ones(2, dtype=torch.float64)}, gradients)
    for t, (g, (params, state)) in enumerate(zip(gradients, path, strict=True), start=1):
        fast -= 0.1 * g
        if t % period == 0:
            slow += share * (fast - slow)
            fast = slow
        assert params["w"].tolist() == pytest.approx([fast] * 2, rel=1e-12, abs=1e-13)
        assert state.slots["slow_params"]["w"].tolist() == pytest.approx([slow] * 2, rel=1e-12)


def test_a_whole_slow_step_is_the_inner_optimizer() -> None:
    grads, params = [1.0, -0.5, 2.0, 0.3], {"w": torch.ones(3, dtype=torch.float64)}
    alone = walk(optim.adam(0.1), params, grads)[-1][0]
    found = walk(optim.lookahead(optim.adam(0.1), 2, 1.0), params, grads)[-1][0]
    torch.testing.assert_close(found, alone, rtol=1e-14, atol=0.0)


def test_the_inner_state_is_kept_and_counts_on() -> None:
    """So that a schedule inside does not start anew with every synchronization."""
    tx = optim.lookahead(optim.sgd(lr=lambda count: 0.5 ** count.double(), momentum=0.9), 2)
    path = walk(tx, {"w": torch.ones(1)}, [1.0] * 5)
    inner = [state.slots["inner"] for _, state in path]
    assert [state.count.item() for state in inner] == [1, 2, 3, 4, 5]
    assert [state.hyperparams["lr"].item() for state in inner] == [1, 0.5, 0.25, 0.125, 0.0625]
    assert inner[2].slots["momentum_buffer"]["w"].item() == pytest.approx(1 + 0.9 + 0.81)


def test_what_is_inside_is_found() -> None:
    state = optim.lookahead(optim.adam(0.1)).init({"w": torch.ones(1)})
    assert optim.diagnostics(state)["lr"] == 0.1
    changed = optim.set_hyperparams(state, lr=0.3, slow_step_size=0.8)
    assert changed.slots["inner"].hyperparams["lr"] == 0.3
    assert changed.hyperparams["slow_step_size"] == 0.8


def test_extra_arguments_reach_the_inner_optimizer() -> None:
    heard: list[Any] = []
    tx = optim.chain(optim.clip_by_global_norm(1.0), optim.lookahead(listener(heard)))
    params = {"w": torch.ones(1)}
    optim.step(tx, params, params, tx.init(params), value=3.0)
    assert heard == [{"value": 3.0}]


def test_the_parameters_keep_their_type_and_memory() -> None:
    params = {"w": torch.ones(2)}
    tx = optim.lookahead(optim.sgd(0.1), 1)
    state = tx.init(params)
    assert state.slots["slow_params"]["w"].data_ptr() != params["w"].data_ptr()
    moved, _ = optim.step(tx, params, params, state)
    tree.assert_same_structure(params, moved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_slow_weights_are_finer_than_half_precision(dtype: torch.dtype) -> None:
    """Steps of 1/100 of what the dtype resolves add up."""
    ulp = torch.finfo(dtype).eps
    tx = optim.lookahead(optim.sgd(1.0), sync_period=1, slow_step_size=0.01)
    path = walk(tx, {"w": torch.ones(1, dtype=dtype)}, [-ulp] * 50)
    slow = [state.slots["slow_params"]["w"] for _, state in path]
    assert {x.dtype for x in slow} == {torch.float32}
    assert slow[0].item() == pytest.approx(1 + 0.01 * ulp, abs=ulp * 1e-3)
    assert slow[-1].item() == pytest.approx(1 + 0.4 * ulp, abs=0.02 * ulp)
    assert all(params["w"].dtype == dtype for params, _ in path)


def test_sweep_over_periods() -> None:
    params, periods = {"w": torch.ones(2, dtype=torch.float64)}, torch.tensor([1, 2, 3])

    def end(period: Tensor) -> Any:
        return walk(optim.lookahead(optim.sgd(0.1), period), params, [1.0, 2.0, 3.0])[-1]

    found = vmap(end)(periods)
    for lane, period in enumerate((1, 2, 3)):
        alone = walk(optim.lookahead(optim.sgd(0.1), period), params, [1.0, 2.0, 3.0])[-1]
        for x, y in zip(tree.leaves(found), tree.leaves(alone), strict=True):
            torch.testing.assert_close(x[lane], y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sync_period": 0}, "`sync_period` must be at least 1, got 0"),
        ({"sync_period": 2.5}, "`sync_period` must be a whole number of steps, got 2.5"),
        ({"slow_step_size": 1.5}, "`slow_step_size` must be in [0, 1], got 1.5"),
        ({"slow_step_size": -1}, "`slow_step_size` must be at least 0, got -1"),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        optim.lookahead(optim.sgd(), **arguments)


def test_params_are_needed() -> None:
    tx, grads = optim.lookahead(optim.sgd()), {"w": torch.ones(1)}
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(grads, tx.init(grads))
