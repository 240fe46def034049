"""Steps that are skipped: on a condition, or because of gradients that are not finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params

START = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64), "s": torch.tensor(0.5).double()}
BAD = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def gradients(i: int, bad: float | None = None) -> Params:
    w = torch.tensor([0.3 + i, -1.0], dtype=torch.float64)
    if bad is not None:
        w = torch.stack([w[0], torch.tensor(bad, dtype=torch.float64)])
    return {"w": w, "s": torch.tensor(float(i)).double()}


def walk(tx: GradientTransformation, grads: list[Params]) -> tuple[Params, Any]:
    params, state = START, tx.init(START)
    for g in grads:
        params, state = optim.step(tx, params, g, state)
    return params, state


def spelled(pattern: list[bool]) -> str:
    return "".join(map(str, pattern))


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("make", [optim.skip_not_finite, lambda tx: optim.apply_if_finite(tx, 2)])
@given(st.lists(st.booleans(), max_size=8).filter(lambda p: "TrueTrueTrue" not in spelled(p)))
def test_a_bad_step_is_as_if_it_had_not_been(make: Any, bad: float, pattern: list[bool]) -> None:
    inner = optim.adam(lr=lambda count: 0.1 / (1 + count.double()))
    grads = [gradients(i, bad if is_bad else None) for i, is_bad in enumerate(pattern)]
    found, state = walk(make(inner), grads)
    expected, inner_state = walk(inner, [g for g, x in zip(grads, pattern, strict=True) if not x])
    assert_equal((found, state.slots["inner"]), (expected, inner_state))
    seen = optim.diagnostics(state)
    assert seen["total_notfinite"] == sum(pattern)
    assert seen["notfinite_count"] == next(
        (i for i, x in enumerate(pattern[::-1]) if not x), len(pattern)
    )
    assert state.count == len(pattern)
    if pattern:
        assert seen["applied"] == (not pattern[-1])


def test_too_many_in_a_row_are_let_through() -> None:
    """As in optax: the one after `max_consecutive_errors` skipped ones."""
    bad = [gradients(i, float("nan")) for i in range(3)]
    tx = optim.apply_if_finite(optim.sgd(0.1), 2)
    params, state = walk(tx, bad[:2])
    assert_equal(params, START)
    params, state = walk(tx, bad)
    assert torch.isnan(params["w"][1])
    assert state.diagnostics["applied"] == 1
    params, _ = walk(optim.skip_not_finite(optim.sgd(0.1)), bad * 5)
    assert_equal(params, START)


def test_a_bad_step_in_one_lane() -> None:
    """Lanes skip on their own, and a NaN that is not used leaves no trace in derivatives."""
    tx = optim.skip_not_finite(optim.adam(0.1))
    grads = tree.stack([gradients(1), gradients(1, float("nan"))])
    found, state = vmap(lambda g: walk(tx, [g]))(grads)
    assert_equal(tree.unstack(found)[1], START)
    assert_equal(tree.unstack(found)[0], walk(tx, [gradients(1)])[0])
    assert state.diagnostics["applied"].tolist() == [1, 0]

    def end(scale: Tensor, g: Params) -> Tensor:
        params, _ = walk(tx, [gradients(2), tree.map(lambda x: x * scale, g)])
        return params["s"]

    slopes = vmap(torch.func.grad(end), in_dims=(None, 0))(torch.ones(()).double(), grads)
    assert slopes[0] != 0
    assert slopes[1] == 0


def test_bad_micro_steps_are_left_out_of_the_mean() -> None:
    """What optax's `MultiSteps(..., should_skip_update_fn=skip_not_finite)` does."""
    good = [gradients(1), gradients(4)]
    tx = optim.skip_not_finite(optim.multi_steps(optim.sgd(0.1), 2))
    found, state = walk(tx, [good[0], gradients(2, float("inf")), good[1]])
    mean = tree.map(lambda a, b: (a + b) / 2, *good)
    assert_close(found, walk(optim.sgd(0.1), [mean])[0], rtol=1e-14, atol=0.0)
    seen = optim.diagnostics(state)
    assert (seen["has_updated"], seen["applied"], seen["total_notfinite"]) == (1, 1, 1)


def test_on_a_condition_a_block_passes_on_and_an_optimizer_stays() -> None:
    """A raw gradient must never become a step (optax's does)."""
    odd = lambda count: count % 2 == 1  # noqa: E731
    block = optim.conditionally_transform(optim.scale_by_momentum(0.9), odd)
    updates, state = block.update(gradients(1), block.init(START), START)
    assert_equal(updates, gradients(1))
    assert state.slots["inner"].count == state.diagnostics["transformed"] == 0
    _, state = block.update(gradients(2), state, START)
    assert state.slots["inner"].count == state.diagnostics["transformed"] == 1
    assert_equal(state.slots["inner"].slots["momentum_buffer"], gradients(2))

    whole = optim.conditionally_transform(optim.sgd(0.1, momentum=0.9), odd)
    found, state = walk(whole, [gradients(i) for i in range(4)])
    expected, inner = walk(optim.sgd(0.1, momentum=0.9), [gradients(1), gradients(3)])
    assert_equal((found, state.slots["inner"]), (expected, inner))
    # The same behind another condition, or in groups.
    nested = optim.conditionally_transform(whole, lambda count: True)
    assert_equal(walk(nested, [gradients(i) for i in range(4)])[0], expected)


def test_conditions_may_see_the_extra_arguments() -> None:
    tx = optim.conditionally_transform(
        optim.maximize(), lambda count, *, value: value > 1, forward_extra_args=True
    )
    state = tx.init(START)
    for value, sign in ((0.5, 1), (2.0, -1)):
        updates, state = tx.update(START, state, START, value=torch.tensor(value))
        assert_equal(updates, tree.map(lambda x, s=sign: x * s, START))


def test_errors() -> None:
    with pytest.raises(ValueError, match="`max_consecutive_errors` must be at least 0, got -1"):
        optim.apply_if_finite(optim.sgd(), -1)


def test_is_optaxs() -> None:
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")

    def theirs(x: Params) -> Any:
        return {name: jax.numpy.asarray(leaf.numpy()) for name, leaf in x.items()}

    nan = float("nan")
    grads = [gradients(i, x) for i, x in enumerate([None, nan, None, nan, nan, None, nan, nan])]
    with jax.enable_x64(True):
        other = optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), 2)
        params, update = theirs(START), jax.jit(other.update)
        state = other.init(params)
        for g in grads:
            updates, state = update(theirs(g), state, params)
            params = optax.apply_updates(params, updates)
        expected = {n: torch.tensor(x.tolist(), dtype=torch.float64) for n, x in params.items()}
    found, mine = walk(optim.apply_if_finite(optim.sgd(0.1, momentum=0.9), 2), grads)
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert int(state.total_notfinite) == mine.slots["total_notfinite"] == 5
    assert int(state.notfinite_count) == mine.slots["notfinite_count"] == 2
