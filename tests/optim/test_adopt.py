"""`adopt`: steps by hand, the first step, the bound."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from fdnn import optim


@pytest.mark.parametrize("clips", [True, False])
@pytest.mark.parametrize("decoupled", [True, False])
def test_steps_by_hand(clips: bool, decoupled: bool) -> None:
    """Algorithm 2 of the paper (1 without the bound), and the authors' weight decay."""
    lr, beta1, beta2, eps, decay = 0.1, 0.8, 0.9, 0.3, 0.2
    flags: dict[str, Any] = {} if clips else {"clip_value": None}
    tx = optim.adopt(lr, (beta1, beta2), eps, decay, decoupled, **flags)
    params = {"w": torch.tensor([1.5, -0.5, 2.0]).double()}
    state, theta, m = tx.init(params), params["w"], torch.zeros(3, dtype=torch.float64)
    v = m
    bounded = 0
    for t in range(8):
        raw = torch.tensor([0.1 * (1 + t) ** 2, (-1.0) ** t, 0.01]).double()
        g = raw if decoupled else raw + decay * theta
        if t == 0:
            v = g**2
        else:
            normed = g / v.sqrt().clamp(min=eps)
            bounded += (normed.abs() > t**0.25).sum().item()
            normed = normed.clamp(-(t**0.25), t**0.25) if clips else normed
            m = beta1 * m + (1 - beta1) * normed
            theta = theta - lr * (m + (decay * theta if decoupled else 0.0))
            v = beta2 * v + (1 - beta2) * g**2
        params, state = optim.step(tx, params, {"w": raw}, state)
        torch.testing.assert_close(params["w"], theta, rtol=1e-13, atol=0.0)
        torch.testing.assert_close(state.slots["exp_avg_sq"]["w"], v, rtol=1e-13, atol=0.0)
    assert bounded > 3


@pytest.mark.parametrize(
    "tx",
    [
        optim.adopt(weight_decay=0.1, decoupled_weight_decay=True),
        optim.adopt(clip_value=2.0),
        optim.adopt(clip_value=None, eps=0.0),
    ],
)
def test_the_first_step_moves_nothing(tx: Any) -> None:
    params = {"w": torch.tensor([1.0, 2.0, 3.0])}
    grads = {"w": torch.tensor([1e6, 0.0, -2.0])}
    moved, state = optim.step(tx, params, grads, tx.init(params))
    assert torch.equal(moved["w"], params["w"])
    assert torch.equal(state.slots["exp_avg_sq"]["w"], grads["w"] ** 2)
    moved, _ = optim.step(tx, params, grads, state)
    assert not torch.equal(moved["w"], params["w"])


def test_the_bound_is_in_the_state() -> None:
    tx, grads = optim.scale_by_adopt(), {"w": torch.ones(1)}
    state, bounds = tx.init(grads), []
    for _ in range(4):
        _, state = tx.update(grads, state)
        bounds.append(state.hyperparams["clip_value"].item())
    assert bounds == pytest.approx([t**0.25 for t in range(4)], rel=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"betas": (0.9, 1.0)}, "`beta2` must be in [0, 1), got 1.0"),
        ({"eps": -1.0}, "`eps` must be at least 0, got -1.0"),
        ({"clip_value": -1.0}, "`clip_value` must be at least 0, got -1.0"),
        ({"weight_decay": -1.0}, "`weight_decay` must be at least 0, got -1.0"),
        (
            {"weight_decay": -1.0, "decoupled_weight_decay": True},
            "`weight_decay` must be at least 0, got -1.0",
        ),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        optim.adopt(**arguments)


def test_decoupled_decay_needs_params() -> None:
    tx = optim.adopt(weight_decay=0.1, decoupled_weight_decay=True)
    grads = {"w": torch.ones(1)}
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(grads, tx.init(grads))
