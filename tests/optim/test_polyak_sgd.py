"""`polyak_sgd`: its formula, optax's trajectories, and the places where a norm is zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fdnn import optim
from fdnn.types import Params

PARAMS = {"x": torch.tensor([[0.5, -1.2], [2.0, 0.3]]).double(), "s": torch.tensor(-0.7).double()}
GRADS = {"x": torch.tensor([3.0]).double(), "s": torch.tensor(4.0).double()}  # of norm 5


def step_of(tx: Any, grads: Params, value: float) -> float:
    state = tx.init(grads)
    updates, state = tx.update(grads, state, grads, value=torch.tensor(value).double())
    size = state.diagnostics["step_size"].double()
    for name, g in grads.items():
        torch.testing.assert_close(updates[name], -size * g, rtol=1e-6, atol=1e-12)
    return size.item()


class TestFormula:
    @pytest.mark.parametrize(
        ("flags", "value", "size"),
        [
            ({}, 10.0, 10 / 25),
            ({}, 100.0, 1.0),
            ({"max_learning_rate": 0.1}, 10.0, 0.1),
            ({"f_min": 5.0}, 10.0, 5 / 25),
            ({"eps": 15.0}, 10.0, 10 / 40),
            ({"scaling": 0.5}, 10.0, 0.5 * 10 / 25),
            ({"scaling": 0.5, "max_learning_rate": 0.1}, 10.0, 0.05),
            ({"scaling": lambda count: 0.5 + count}, 10.0, 0.5 * 10 / 25),
            ({"f_min": 20.0}, 10.0, -10 / 25),
            ({"f_min": 20.0, "variant": "sps+"}, 10.0, 0.0),
            ({"variant": "sps+"}, 10.0, 10 / 25),
        ],
        ids=lambda x: " ".join(x) if isinstance(x, dict) else None,
    )
    def test_by_hand(self, flags: dict[str, Any], value: float, size: float) -> None:
        assert step_of(optim.polyak_sgd(**flags), GRADS, value) == pytest.approx(size)

    def test_a_float_is_a_value_too(self) -> None:
        tx = optim.polyak_sgd()
        updates, _ = tx.update(GRADS, tx.init(GRADS), value=10.0)
        torch.testing.assert_close(updates["x"], -0.4 * GRADS["x"])

    def test_solves_a_quadratic_by_halves(self) -> None:
        params, tx = {"x": torch.tensor([1.0, 2.0, 3.0]).double()}, optim.polyak_sgd()
        state, values = tx.init(params), []
        for _ in range(4):
            value = params["x"].square().sum()
            values.append(value.item())
            params, state = optim.step(tx, params, {"x": 2 * params["x"]}, state, value=value)
        assert values == [14.0, 3.5, 0.875, 0.21875]


class TestAgainstOptax:
    """Under a scaling other than 1 optax scales before it takes the norm: there, its two parts in
    the order of its own formula.
    """

    @pytest.mark.parametrize("variant", ["sps", "sps+"])
    @given(
        grads=st.lists(
            st.floats(-10, 10) | st.sampled_from([0.0, 1e-8, 2e-8]), min_size=3, max_size=3
        ),
        value=st.floats(-2, 2),
        rate=st.floats(0, 3),
        f_min=st.floats(-1, 1),
        eps=st.sampled_from([0.0, 1e-16, 1e-3]),
        scaling=st.sampled_from([1.0, 0.3]),
    )
    def test_one_step(
        self,
        variant: Any,
        grads: list[float],
        value: float,
        rate: float,
        f_min: float,
        eps: float,
        scaling: float,
    ) -> None:
        jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
        ours = optim.polyak_sgd(rate, scaling, f_min, eps, variant)
        mine = {"x": torch.tensor(grads, dtype=torch.float64)}
        found, _ = ours.update(mine, ours.init(mine), value=torch.tensor(value).double())
        with jax.enable_x64(True):
            theirs = optax.chain(
                optax.scale_by_polyak(f_min, rate, eps, variant), optax.sgd(scaling)
            )
            given = {"x": jax.numpy.asarray(grads, dtype=jax.numpy.float64)}
            start = theirs.init(given)
            updates, _ = theirs.update(given, start, given, value=torch.tensor(value).item())
            wanted = torch.tensor(updates["x"].tolist(), dtype=torch.float64)
        torch.testing.assert_close(found["x"], wanted, rtol=1e-12, atol=1e-300)

    def test_trajectory(self) -> None:
        jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")

        def loss(params: Any, log: Callable[[Any], Any]) -> Any:
            x, s = params["x"], params["s"]
            return log(1 + (x - 1) ** 2).sum() + (0.3 * x.sum() + s) ** 2

        with jax.enable_x64(True):
            tx = optax.polyak_sgd(max_learning_rate=0.4, f_min=-0.5, eps=0.1)
            params = {name: jax.numpy.asarray(x.numpy()) for name, x in PARAMS.items()}
            gradient = jax.jit(jax.value_and_grad(lambda params: loss(params, jax.numpy.log)))
            state, theirs = tx.init(params), []
            for _ in range(50):
                value, grads = gradient(params)
                updates, state = tx.update(grads, state, params, value=value)
                params = optax.apply_updates(params, updates)
                theirs.append([*params["x"].flatten().tolist(), params["s"].item()])
        ours, mine = optim.polyak_sgd(0.4, f_min=-0.5, eps=0.1), PARAMS
        state = ours.init(mine)
        for other in theirs:
            grads, value = torch.func.grad_and_value(lambda p: loss(p, torch.log))(mine)
            mine, state = optim.step(ours, mine, grads, state, value=value)
            found = torch.cat([mine["x"].flatten(), mine["s"][None]])
            torch.testing.assert_close(
                found, torch.tensor(other, dtype=torch.float64), rtol=1e-12, atol=1e-12
            )


class TestZeroGradient:
    @pytest.mark.parametrize("size", [0.0, 1e-9])
    def test_no_step_and_no_derivative_that_is_no_number(self, size: float) -> None:
        """optax's threshold; 0 / 0 must not come near a derivative."""
        grads = torch.full((3,), size, dtype=torch.float64, requires_grad=True)
        value = torch.ones((), dtype=torch.float64, requires_grad=True)
        tx = optim.polyak_sgd(max_learning_rate=torch.inf)
        updates, state = tx.update({"x": grads}, tx.init({"x": grads}), value=value)
        assert state.diagnostics["step_size"].item() == 0
        assert not updates["x"].any()
        for slope in torch.autograd.grad(updates["x"].sum(), [grads, value]):
            assert torch.isfinite(slope).all()

    def test_a_small_one_above_the_threshold_counts(self) -> None:
        grads = {"x": torch.tensor([2e-8]).double()}
        assert step_of(optim.polyak_sgd(), grads, 1.0) == 1.0


class TestErrors:
    @pytest.mark.parametrize("name", ["max_learning_rate", "scaling", "eps"])
    def test_range(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"^`{name}` must be at least 0, got -0.1$"):
            optim.polyak_sgd(**{name: -0.1})

    def test_variant(self) -> None:
        with pytest.raises(ValueError, match=r"^`variant` must be 'sps' or 'sps\+', got 'spsmax'$"):
            optim.polyak_sgd(variant="spsmax")  # type: ignore[arg-type]

    def test_no_value(self) -> None:
        tx = optim.polyak_sgd()
        with pytest.raises(ValueError, match=r"`value` must be given to `update`.*value=\.\.\."):
            optim.step(tx, PARAMS, PARAMS, tx.init(PARAMS))

    @pytest.mark.parametrize("value", [torch.ones(2), torch.ones(1)])
    def test_many_values(self, value: Tensor) -> None:
        tx = optim.polyak_sgd()
        with pytest.raises(ValueError, match=r"`value` must be a 0-d tensor, got shape \("):
            optim.step(tx, PARAMS, PARAMS, tx.init(PARAMS), value=value)
