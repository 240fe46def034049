"""`ademamix`: steps by hand, and the warm-ups of the paper."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fdnn import optim


def in_use(tx: Any, name: str, steps: int) -> list[float]:
    grads = {"w": torch.ones(1)}
    state, found = tx.init(grads), []
    for _ in range(steps):
        _, state = tx.update(grads, state)
        found.append(state.hyperparams[name].item())
    return found


@pytest.mark.parametrize("warmup", [None, 3])
def test_steps_by_hand(warmup: int | None) -> None:
    lr, (b1, b2, b3), alpha, eps, decay = 0.1, (0.8, 0.9, 0.99), 4.0, 1e-3, 0.3
    tx = optim.ademamix(lr, (b1, b2, b3), alpha, eps, decay, warmup, warmup)
    params = {"w": torch.tensor([1.5, -0.5]).double()}
    state, wanted = tx.init(params), params["w"]
    fast = slow = v = torch.zeros(2, dtype=torch.float64)
    for t in range(1, 7):
        share = min(t / warmup, 1.0) if warmup else 1.0
        logs = math.log(b1), math.log(b3)
        beta3 = math.exp(logs[0] * logs[1] / ((1 - share) * logs[1] + share * logs[0]))
        g = torch.tensor([1.0 / t, t - 3.0]).double()
        fast = b1 * fast + (1 - b1) * g
        slow = beta3 * slow + (1 - beta3) * g
        v = b2 * v + (1 - b2) * g**2
        top = fast / (1 - b1**t) + alpha * share * slow
        wanted = wanted - lr * (top / ((v / (1 - b2**t)).sqrt() + eps) + decay * wanted)
        params, state = optim.step(tx, params, {"w": g}, state)
        torch.testing.assert_close(params["w"], wanted, rtol=1e-13, atol=0.0)
        torch.testing.assert_close(state.slots["exp_avg_slow"]["w"], slow, rtol=1e-13, atol=0.0)


@given(beta1=st.floats(0.01, 0.99), beta3=st.floats(0.01, 0.99999), steps=st.integers(1, 12))
def test_the_half_life_grows_linearly(beta1: float, beta3: float, steps: int) -> None:
    tx = optim.scale_by_ademamix((beta1, 0.9, beta3), beta3_warmup=steps)
    found = [1 / math.log(beta) for beta in in_use(tx, "beta3", steps + 2)]
    start, end = 1 / math.log(beta1), 1 / math.log(beta3)
    wanted = [start + (end - start) * min(t / steps, 1.0) for t in range(1, steps + 3)]
    assert found == pytest.approx(wanted, rel=1e-9)


def test_alpha_grows_linearly_from_the_first_step() -> None:
    tx = optim.scale_by_ademamix(alpha=8.0, alpha_warmup=4)
    assert in_use(tx, "alpha", 6) == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]


def test_without_a_fast_mean_the_slow_one_starts_from_none() -> None:
    tx = optim.scale_by_ademamix((0.0, 0.9, 0.99), beta3_warmup=4)
    found = in_use(tx, "beta3", 4)
    assert found[0] == pytest.approx(0.99**4)
    assert found[-1] == pytest.approx(0.99)


def test_own_schedules() -> None:
    def schedule(count: Tensor) -> Tensor:
        return count.double() / 10

    tx = optim.scale_by_ademamix((0.9, 0.99, schedule), schedule)
    assert in_use(tx, "alpha", 3) == in_use(tx, "beta3", 3) == [0.0, 0.1, 0.2]


def test_without_a_slow_mean_it_is_adamw() -> None:
    params = {"w": torch.linspace(-1, 1, 5).double()}
    pair = optim.ademamix(alpha=0.0, weight_decay=0.01), optim.adamw()
    states = [tx.init(params) for tx in pair]
    for t in range(5):
        grads = {"w": params["w"] * t - 0.3}
        ours, theirs = (
            tx.update(grads, state, params) for tx, state in zip(pair, states, strict=True)
        )
        states = [ours[1], theirs[1]]
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-13, atol=0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"betas": (0.9, 0.99, 1.0)}, "`beta3` must be in [0, 1), got 1.0"),
        ({"alpha": -1.0}, "`alpha` must be at least 0, got -1.0"),
        ({"alpha_warmup": 0}, "`alpha_warmup` must be at least 1, or None, got 0"),
        ({"beta3_warmup": -3}, "`beta3_warmup` must be at least 1, or None, got -3"),
        (
            {"alpha": lambda count: 1.0, "alpha_warmup": 5},
            "`alpha` must be a number or a 0-d tensor where it is warmed up",
        ),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        optim.ademamix(**arguments)
