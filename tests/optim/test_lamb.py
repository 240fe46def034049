"""`lamb` and `scale_by_trust_ratio`: steps by hand, zero norms, complex leaves."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.func import grad

from fdnn import optim


def test_steps_by_hand() -> None:
    """Algorithm 2 of the paper, with its bias correction, leaf by leaf."""
    lr, beta1, beta2, eps, decay = 0.1, 0.8, 0.9, 1e-3, 0.3
    tx = optim.lamb(lr, (beta1, beta2), eps, decay)
    params = {"w": torch.tensor([3.0, -1.0]).double(), "s": torch.tensor(20.0).double()}
    state, wanted = tx.init(params), dict(params)
    m = {name: torch.zeros_like(x) for name, x in params.items()}
    v = dict(m)
    for t in range(1, 6):
        grads = {"w": torch.tensor([1.0, -2.0 / t]).double(), "s": torch.tensor(0.5 - t).double()}
        for name, g in grads.items():
            m[name] = beta1 * m[name] + (1 - beta1) * g
            v[name] = beta2 * v[name] + (1 - beta2) * g**2
            r = m[name] / (1 - beta1**t) / ((v[name] / (1 - beta2**t)).sqrt() + eps)
            r = r + decay * wanted[name]
            wanted[name] = wanted[name] - lr * wanted[name].norm() / r.norm() * r
        params, state = optim.step(tx, params, grads, state)
        torch.testing.assert_close(params, wanted, rtol=1e-13, atol=0.0)


def test_the_first_step_is_the_share_lr_of_the_length() -> None:
    tx = optim.lamb(lr=0.25)
    params = {"w": torch.full((4,), 50.0), "tiny": torch.full((9,), 1e-6)}
    grads = {"w": torch.randn(4), "tiny": torch.randn(9)}
    updates, _ = tx.update(grads, tx.init(params), params)
    for name, x in params.items():
        assert updates[name].norm().item() == pytest.approx(0.25 * x.norm().item(), rel=1e-5)


def test_zero_norms_leave_the_update_alone() -> None:
    tx = optim.scale_by_trust_ratio(trust_coefficient=7.0)
    params = {"new": torch.zeros(2), "still": torch.ones(2), "none": torch.ones(0)}
    updates = {"new": torch.tensor([3.0, 4.0]), "still": torch.zeros(2), "none": torch.ones(0)}
    found, _ = tx.update(updates, tx.init(params), params)
    for name, u in updates.items():
        assert torch.equal(found[name], u)


def test_gradients_flow_through_zero_norms() -> None:
    tx = optim.scale_by_trust_ratio()

    def moved(scale: torch.Tensor) -> torch.Tensor:
        params = {"w": torch.zeros(2), "u": torch.ones(2)}
        updates = {"w": torch.ones(2) * scale, "u": torch.zeros(2) * scale}
        found, _ = tx.update(updates, tx.init(params), params)
        return found["w"].sum() + found["u"].sum()

    assert grad(moved)(torch.tensor(3.0)).item() == 2.0


def test_small_norms_count_as_min_norm() -> None:
    tx = optim.scale_by_trust_ratio(min_norm=10.0, eps=2.0)
    params, updates = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([0.0, 6.0])}
    found, _ = tx.update(updates, tx.init(params), params)
    torch.testing.assert_close(found["w"], updates["w"] * 10 / 12)


def test_complex_leaves_have_one_length() -> None:
    tx = optim.scale_by_trust_ratio()
    params, updates = {"w": torch.tensor([3 + 4j])}, {"w": torch.tensor([0 + 2j])}
    found, _ = tx.update(updates, tx.init(params), params)
    torch.testing.assert_close(found["w"], torch.tensor([0 + 5j]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_norm": -1}, "`min_norm` must be at least 0, got -1"),
        ({"trust_coefficient": -0.1}, "`trust_coefficient` must be at least 0, got -0.1"),
        ({"eps": -1e-8}, "`eps` must be at least 0, got -1e-08"),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        optim.scale_by_trust_ratio(**arguments)


def test_params_are_needed() -> None:
    grads = {"w": torch.ones(1)}
    for tx in (optim.lamb(), optim.scale_by_trust_ratio()):
        with pytest.raises(ValueError, match="`params` must be given to `update`"):
            tx.update(grads, tx.init(grads))
