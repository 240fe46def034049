"""Gradient accumulation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, vmap

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params


def draw(seed: int, dtype: torch.dtype = torch.float64) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(3, 2, generator=generator, dtype=torch.float64).to(dtype),
        "s": torch.randn((), generator=generator, dtype=torch.float64).to(dtype),
    }


START = draw(100)


def walk(tx: GradientTransformation, grads: list[Params]) -> tuple[Params, Any]:
    params, state = START, tx.init(START)
    for g in grads:
        params, state = optim.step(tx, params, g, state)
    return params, state


class Counting:
    """A hand-written transformation that counts how often Python calls it."""

    def __init__(self) -> None:
        self.calls = 0

    def pair(self) -> GradientTransformation:
        def update(updates: Any, state: Any, params: Any = None) -> Any:
            self.calls += 1
            return tree.map(torch.neg, updates), state

        return GradientTransformation(lambda params: {}, update)


@given(st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_k_micro_steps_are_one_step_on_their_mean(k: int, steps: int, mean: bool) -> None:
    """And what is left over waits."""
    inner = optim.adamw(lr=lambda count: 0.1 / (1 + count.double()), weight_decay=0.1)
    grads = [draw(i) for i in range(steps * k + k - 1)]
    whole = [
        tree.map(lambda *g: sum(g) / (k if mean else 1), *grads[i * k : (i + 1) * k])
        for i in range(steps)
    ]
    found, state = walk(optim.multi_steps(inner, k, mean), grads)
    expected, inner_state = walk(inner, whole)
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert_close(state.slots["inner"], inner_state, rtol=1e-12, atol=1e-12)
    assert state.count == len(grads)
    assert state.slots["inner"].count == steps
    assert state.diagnostics["mini_step"] == (k - 1 if grads else 0)


def test_micro_steps_move_nothing_and_are_seen() -> None:
    params = draw(0)
    tx = optim.multi_steps(optim.adam(0.1), 3)
    state, seen = tx.init(params), []
    for _ in range(6):
        updates, state = tx.update(params, state, params)
        found = optim.diagnostics(state)
        seen.append((found["mini_step"].item(), found["has_updated"].item()))
        assert any(u.any() for u in updates.values()) == bool(found["has_updated"])
    assert seen == [(1, 0), (2, 0), (0, 1)] * 2
    assert {"lr", "beta1", "every_k"} <= set(found)


def test_eagerly_the_optimizer_runs_on_real_steps_only() -> None:
    counting = Counting()
    walk(optim.multi_steps(counting.pair(), 4), [draw(i) for i in range(8)])
    assert counting.calls == 2


def test_schedules_count_real_steps() -> None:
    tx = optim.multi_steps(optim.sgd(lr=lambda count: 1.0 + count), 2)
    params = {"w": torch.zeros(1)}
    state, path = tx.init(params), []
    for _ in range(6):
        params, state = optim.step(tx, params, {"w": -torch.ones(1)}, state)
        path.append(params["w"].item())
    assert path == [0, 1, 1, 3, 3, 6]


def test_the_number_of_micro_steps_follows_a_schedule_of_real_steps() -> None:
    """As `MultiStepsState.gradient_step` of optax: 1, 2, 3, ... micro-steps."""
    tx = optim.multi_steps(optim.sgd(lr=1.0), lambda count: count + 1)
    _, state = walk(tx, [draw(i) for i in range(9)])
    assert (state.slots["inner"].count, state.diagnostics["mini_step"]) == (3, 3)
    assert "every_k" not in state.hyperparams


def test_the_number_of_micro_steps_can_be_changed_and_vmapped() -> None:
    params, g = {"w": torch.zeros(1)}, {"w": -torch.ones(1)}
    tx = optim.multi_steps(optim.sgd(lr=1.0), 4)
    states = [optim.set_hyperparams(tx.init(params), every_k=k) for k in (1, 2, 4)]

    def run(state: Any) -> Tensor:
        here = params
        for _ in range(4):
            here, state = optim.step(tx, here, g, state)
        return here["w"]

    assert vmap(run)(tree.stack(states)).flatten().tolist() == [4, 2, 1]
    # Made smaller than what has been gathered already: the next micro-step is the last.
    state = tx.update(g, tx.update(g, tx.update(g, tx.init(params))[1])[1])[1]
    updates, state = tx.update(g, optim.set_hyperparams(state, every_k=2))
    assert updates["w"] == 1
    assert state.diagnostics["mini_step"] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """In bfloat16 a sum of ones would stop at 256."""
    params = {"w": torch.zeros(1, dtype=dtype)}
    tx = optim.multi_steps(optim.sgd(lr=1.0), 1000, use_grad_mean=False)
    state = tx.init(params)
    assert state.slots["acc_grads"]["w"].dtype == torch.float32
    for _ in range(1000):
        updates, state = tx.update({"w": torch.ones(1, dtype=dtype)}, state, params)
    assert updates["w"].item() == -1000
    assert updates["w"].dtype == dtype


def test_transforms_select() -> None:
    """Under vmap and grad every lane's values are those of the run made alone."""
    tx = optim.multi_steps(optim.adam(0.1), 2)
    grads = [[draw(10 * lane + i) for i in range(3)] for lane in range(3)]
    found = vmap(lambda *g: walk(tx, list(g)))(
        *[tree.stack(list(g)) for g in zip(*grads, strict=True)]
    )
    assert_close(found, tree.stack([walk(tx, g) for g in grads]), rtol=1e-12, atol=1e-12)
    slopes = grad(lambda g: walk(tx, [g, grads[0][1], grads[0][2]])[0]["s"])(grads[0][0])
    leaf = tree.map(lambda x: x.clone().requires_grad_(), grads[0][0])
    end = walk(tx, [leaf, grads[0][1], grads[0][2]])[0]["s"]
    assert_close(slopes["s"], torch.autograd.grad(end, leaf["s"])[0], rtol=1e-12, atol=0.0)
    assert slopes["s"] != 0


def test_extra_arguments_reach_the_optimizer() -> None:
    def update(updates: Any, state: Any, params: Any = None, *, value: Tensor) -> Any:
        return tree.map(lambda u: u * value, updates), state

    tx = optim.multi_steps(GradientTransformation(lambda params: {}, update), 2)
    params = {"w": torch.ones(1)}
    _, state = tx.update(params, tx.init(params), params, value=torch.tensor(3.0), other=None)
    updates, _ = tx.update(params, state, params, value=torch.tensor(5.0), other=None)
    assert updates["w"] == 5


def test_groups_and_chains() -> None:
    """Inside a partition, and before and after other parts, names stay apart."""
    tx = optim.chain(
        optim.clip_by_global_norm(10.0),
        optim.partition(
            {"a": optim.multi_steps(optim.sgd(1.0), 2), "b": optim.sgd(1.0)}, {"a": "w", "b": "s"}
        ),
    )
    params = tree.map(torch.zeros_like, draw(0))
    state = tx.init(params)
    assert set(state.slots) == {"a.inner", "a.acc_grads", "a.mini_step"}
    updates, state = tx.update(draw(1), state, params)
    assert not updates["w"].any()
    assert_equal(updates["s"], -draw(1)["s"])
    assert optim.diagnostics(state)["a.mini_step"] == 1


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_errors(k: Any) -> None:
    with pytest.raises(ValueError, match=f"`every_k_schedule` must be .* got {k}"):
        optim.multi_steps(optim.sgd(), k)


def test_is_optaxs() -> None:
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")

    def theirs(x: Params) -> Any:
        return {name: jax.numpy.asarray(leaf.numpy()) for name, leaf in x.items()}

    grads = [draw(i) for i in range(12)]
    with jax.enable_x64(True):
        other = optax.MultiSteps(
            optax.sgd(0.1, momentum=0.9), lambda count: count + 1, accumulator_dtype="float64"
        )
        params, update = theirs(START), jax.jit(other.update)
        state = other.init(params)
        for g in grads:
            updates, state = update(theirs(g), state, params)
            params = optax.apply_updates(params, updates)
        expected = {n: torch.tensor(x.tolist(), dtype=torch.float64) for n, x in params.items()}
    ours = optim.multi_steps(optim.sgd(0.1, momentum=0.9), lambda count: count + 1)
    found, mine = walk(ours, grads)
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert int(state.gradient_step) == mine.slots["inner"].count == 4
    assert int(state.mini_step) == mine.slots["mini_step"] == 2
