"""`lion`: steps by hand, and the sign at its edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fdnn import optim

betas = st.floats(0, 1, exclude_max=True)


@given(gradients=st.lists(st.floats(-10, 10), min_size=1, max_size=9), beta1=betas, beta2=betas)
def test_steps_by_hand(gradients: list[float], beta1: float, beta2: float) -> None:
    lr, decay, theta, m = 0.1, 0.3, 1.5, 0.0
    tx = optim.lion(lr, (beta1, beta2), weight_decay=decay)
    params = {"w": torch.full((2,), theta, dtype=torch.float64)}
    state = tx.init(params)
    for g in gradients:
        mixed = m * beta1 + g * (1 - beta1)
        theta -= lr * ((mixed > 0) - (mixed < 0) + decay * theta)
        m = m * beta2 + g * (1 - beta2)
        grads = {"w": torch.full((2,), g, dtype=torch.float64)}
        params, state = optim.step(tx, params, grads, state)
        assert params["w"].tolist() == pytest.approx([theta] * 2, rel=1e-13)
        assert state.slots["exp_avg"]["w"].tolist() == pytest.approx([m] * 2, rel=1e-13)


def test_where_nothing_ever_came_nothing_moves() -> None:
    tx = optim.lion(0.1)
    params = {"w": torch.ones(2)}
    moved, _ = optim.step(tx, params, {"w": torch.tensor([0.0, -1e-30])}, tx.init(params))
    assert moved["w"].tolist() == [1.0, pytest.approx(1.1)]


def test_a_complex_number_is_two_reals() -> None:
    tx = optim.scale_by_lion()
    grads = {"w": torch.tensor([3 - 4j, 0 + 2j])}
    updates, _ = tx.update(grads, tx.init(grads))
    assert torch.equal(updates["w"], torch.tensor([1 - 1j, 0 + 1j]))


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, -0.1)])
def test_errors(betas: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"`beta[12]` must be in \[0, 1\), got"):
        optim.lion(betas=betas)
