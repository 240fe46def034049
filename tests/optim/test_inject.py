"""`inject_hyperparams`: for factories of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from asserts import assert_equal
from torch import Tensor
from torch.func import grad, vmap

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params

START = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64), "s": torch.tensor(0.5).double()}


def heavy_ball(
    lr: Any, decay: Any = 0.9, power: int = 2, flip: bool = False, shape: Any = torch.sign
) -> GradientTransformation:
    """As a user of optax would write it: everything in closures."""
    assert power in (1, 2)  # decides what Python does

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        drive = tree.map(lambda u: shape(u) * u.abs() ** power, updates)
        trace = tree.map(lambda t, d: t * decay + d, state, drive)
        return tree.map(lambda t: t * (lr if flip else -lr), trace), trace

    return GradientTransformation(tree.zeros_like, update)


def walk(tx: GradientTransformation, steps: int = 4) -> tuple[Params, Any]:
    params, state = START, tx.init(START)
    for t in range(steps):
        grads = tree.map(lambda p, t=t: torch.sin(p + t), params)
        params, state = optim.step(tx, params, grads, state)
    return params, state


injected: Callable[..., Any] = optim.inject_hyperparams(heavy_ball, static_args="shape")


def test_the_same_bits_as_without() -> None:
    """optax's differ (its issues 583, 1532): it rounds to the dtype of parameters."""
    found, state = walk(injected(0.1, decay=0.7))
    assert_equal(found, walk(heavy_ball(0.1, decay=0.7))[0])
    assert {n: x.item() for n, x in state.hyperparams.items()} == {"lr": 0.1, "decay": 0.7}
    assert set(state.slots) == {"inner"}


def test_schedules_follow_the_one_count() -> None:
    """From 0 (in optax it once began at 1, its issue 415)."""
    found, state = walk(injected(lr=lambda count: 0.1 / (1 + count.double())))
    params, trace = START, tree.zeros_like(START)
    for t in range(4):
        updates, trace = heavy_ball(0.1 / (1 + t)).update(
            tree.map(lambda p, t=t: torch.sin(p + t), params), trace
        )
        params = optim.apply_updates(params, updates)
    assert_equal(found, params)
    assert state.hyperparams["lr"].item() == 0.1 / 4


def test_they_can_be_changed_vmapped_and_differentiated() -> None:
    tx = injected(lr=0.1)
    states = [optim.set_hyperparams(tx.init(START), lr=lr) for lr in (0.1, 0.2)]
    found = vmap(lambda state: optim.step(tx, START, START, state)[0])(tree.stack(states))
    for lane, lr in zip(tree.unstack(found), (0.1, 0.2), strict=True):
        assert_equal(lane, optim.step(heavy_ball(lr), START, START, tree.zeros_like(START))[0])

    def end(lr: Tensor) -> Tensor:
        return walk(injected(lr=lr), 1)[0]["s"]

    slope = grad(end)(torch.tensor(0.1).double())
    assert slope.item() == pytest.approx(-(torch.sin(START["s"]).item() ** 2))


def test_what_stays_as_it_is() -> None:
    """Integers by annotation (optax makes arrays of them, its issue 412), booleans, named ones."""
    tx = injected(0.1, power=1, flip=True, shape=torch.sign)
    assert set(tx.init(START).hyperparams) == {"lr", "decay"}
    # A callable that the factory itself brings is no schedule (in optax it is, its issue 1373).
    unnamed = optim.inject_hyperparams(heavy_ball)(0.1)
    assert set(unnamed.init(START).hyperparams) == {"lr", "decay"}
    assert_equal(walk(unnamed)[0], walk(heavy_ball(0.1))[0])


def test_chains_of_the_factory_take_its_hyperparameters() -> None:
    """A block of fdnn keeps its own in the state: not those that it was initialised with."""

    def factory(lr: Any, beta: Any) -> GradientTransformation:
        return optim.multi_steps(optim.chain(heavy_ball(1.0, beta), optim.sgd(lr)), 2)

    tx = optim.inject_hyperparams(factory)(lr=lambda count: 0.1 * (1 + count), beta=0.5)
    _, state = walk(tx, 3)
    assert state.slots["inner"].slots["inner"].hyperparams["lr"].item() == pytest.approx(0.3)
    state = optim.set_hyperparams(state, lr=7.0)
    fixed = optim.inject_hyperparams(factory)(lr=0.1, beta=0.5)
    _, state = walk(fixed, 1)
    changed = state._replace(hyperparams={**state.hyperparams, "lr": torch.tensor(0.3).double()})
    slow, fast = (fixed.update(START, each, START)[0]["w"] for each in (state, changed))
    torch.testing.assert_close(fast, 3 * slow)


def test_fdnns_own_need_none() -> None:
    """The same trajectory, and the hyperparameters are in the state either way."""
    found, state = walk(optim.inject_hyperparams(optim.adam)(lr=0.1))
    expected, plain = walk(optim.adam(lr=0.1))
    assert_equal(found, expected)
    assert {"lr": 0.1}.items() <= {n: x.item() for n, x in plain.hyperparams.items()}.items()
    assert state.hyperparams["lr"] == plain.hyperparams["lr"]


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"`static_args` must name arguments .* got \['form'\]"):
        optim.inject_hyperparams(heavy_ball, static_args="form")
    with pytest.raises(TypeError, match="lr"):
        injected()
