"""What textbooks say of momentum, Adam and weight decay, as facts about the code."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fdnn import optim
from fdnn.types import GradientTransformation, Params

START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def slope(x: Tensor) -> Tensor:
    """The gradient of a function with valleys of different widths."""
    return x * torch.tensor([1.0, 5.0, 0.1], dtype=torch.float64) + torch.sin(3 * x)


def walk(tx: GradientTransformation, steps: int) -> Tensor:
    params: Params = {"w": START}
    state, path = tx.init(params), []
    for _ in range(steps):
        params, state = optim.step(tx, params, {"w": slope(params["w"])}, state)
        path.append(params["w"])
    return torch.stack(path)


@settings(max_examples=15)
@given(momentum=st.floats(0.0, 0.9), gradient=st.floats(0.1, 10.0))
def test_momentum_multiplies_the_terminal_velocity(momentum: float, gradient: float) -> None:
    tx = optim.sgd(lr=0.5, momentum=momentum)
    grads = {"w": torch.tensor([gradient], dtype=torch.float64)}
    state, before = tx.init(grads), 0.0
    for _ in range(300):
        updates, state = tx.update(grads, state)
        speed = -updates["w"].item()
        assert speed >= before * (1 - 1e-15)
        before = speed
    assert speed == pytest.approx(0.5 * gradient / (1 - momentum), rel=1e-12)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_nesterov_is_the_look_ahead_form(beta: float) -> None:
    """The textbook's phi takes the slope at phi + beta m; torch's iterate is that place."""
    lr, steps = 0.02, 60
    phi, m, places = START, torch.zeros_like(START), []
    for _ in range(steps):
        m = beta * m - lr * slope(phi + beta * m)
        phi = phi + m
        places.append(phi + beta * m)
    found = walk(optim.sgd(lr=lr, momentum=beta, nesterov=True), steps)
    torch.testing.assert_close(found, torch.stack(places), rtol=1e-13, atol=1e-14)
    assert not torch.allclose(found, walk(optim.sgd(lr=lr, momentum=beta), steps), atol=1e-2)


@given(
    gradients=st.lists(
        st.floats(1e-3, 1e3).flatmap(lambda x: st.sampled_from([x, -x])), min_size=1
    ),
    lr=st.floats(1e-4, 1.0),
)
def test_the_first_step_of_adam_is_the_learning_rate(gradients: list[float], lr: float) -> None:
    g = torch.tensor(gradients, dtype=torch.float64)
    for name in ("adam", "adamw", "adamax"):
        tx = getattr(optim, name)(lr=lr, eps=0.0)
        updates, _ = tx.update({"w": g}, tx.init({"w": g}), {"w": torch.zeros_like(g)})
        torch.testing.assert_close(updates["w"], -lr * g.sign(), rtol=1e-12, atol=0.0)


def test_l2_and_decoupled_decay_coincide_for_sgd_alone() -> None:
    lr, decay, steps = 0.02, 0.3, 60
    w, shrunk = START, []
    for _ in range(steps):
        w = w * (1 - lr * decay) - lr * slope(w)
        shrunk.append(w)
    penalised = walk(optim.sgd(lr=lr, weight_decay=decay), steps)
    torch.testing.assert_close(penalised, torch.stack(shrunk), rtol=1e-13, atol=1e-15)

    penalised = walk(optim.adam(lr=lr, weight_decay=decay), steps)
    decoupled = walk(optim.adamw(lr=lr, weight_decay=decay), steps)
    flagged = walk(optim.adam(lr=lr, weight_decay=decay, decoupled_weight_decay=True), steps)
    assert torch.equal(flagged, decoupled)
    assert (penalised[-1] - decoupled[-1]).abs().max() > 0.02


@pytest.mark.parametrize("name", ["adadelta", "adagrad", "rmsprop", "adam", "adamax", "nadam"])
@given(unit=st.floats(1e-3, 1e3))
def test_adaptive_steps_do_not_depend_on_the_unit_of_the_loss(name: str, unit: float) -> None:
    gradients = [1.0, -0.3, 0.8, 2.0]

    def steps(factor: float) -> list[float]:
        tx = getattr(optim, name)(lr=0.1, eps=1e-30)
        state, found = tx.init({"w": START[:1]}), []
        for g in gradients:
            grads = {"w": torch.full_like(START[:1], g * factor)}
            updates, state = tx.update(grads, state)
            found.append(updates["w"].item())
        return found

    assert steps(unit) == pytest.approx(steps(1.0), rel=1e-9)
