"""`schedule_free`: the three points of the paper, where to evaluate, half precision, errors."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, vmap

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params


def walk(tx: GradientTransformation, params: Params, grads: list[float]) -> tuple[Params, Any]:
    state = tx.init(params)
    for g in grads:
        params, state = optim.step(tx, params, tree.map(lambda p, g=g: p * 0 + g, params), state)
    return params, state


@given(
    gradients=st.lists(st.floats(-10, 10), min_size=1, max_size=15),
    beta=st.floats(0.1, 0.99),
    warmup_steps=st.integers(0, 6),
    r=st.floats(0, 2),
    power=st.floats(0, 2),
    decay=st.floats(0, 0.5),
)
def test_is_the_paper_s_three_sequences(
    gradients: list[float], beta: float, warmup_steps: int, r: float, power: float, decay: float
) -> None:
    inner = optim.sgd(0.2, weight_decay=torch.tensor(decay, dtype=torch.float64))
    tx = optim.schedule_free(inner, beta, warmup_steps, r, power)
    params = {"w": torch.ones(2, dtype=torch.float64)}
    state = tx.init(params)
    x = y = z = 1.0
    total = 0.0
    for t, g in enumerate(gradients, start=1):
        lr = 0.2 * (min(1.0, t / warmup_steps) if warmup_steps else 1.0)
        z -= lr * (g + decay * y)
        weight = t**r * lr**power
        total += weight
        x += weight / total * (z - x)
        y = (1 - beta) * z + beta * x
        params, state = optim.step(tx, params, {"w": torch.full_like(params["w"], g)}, state)
        average = optim.schedule_free_eval_params(state, params)
        for found, wanted in ((params, y), (state.slots["z"], z), (average, x)):
            assert found["w"].tolist() == pytest.approx([wanted] * 2, rel=1e-11, abs=1e-11)
        assert state.diagnostics["scheduled_lr"].item() == pytest.approx(lr, rel=1e-6)


def test_schedules_start_where_torch_s_do() -> None:
    """With count 0 at the first step (optax starts at 1), in the step and in the weights."""
    tx = optim.schedule_free(optim.sgd(lr=lambda count: 1.0 + count.double()), weight_lr_power=1.0)
    params = {"w": torch.zeros(1, dtype=torch.float64)}
    params, state = walk(tx, params, [1.0])
    assert state.slots["z"]["w"].item() == -1.0
    assert state.slots["weight_sum"].item() == 1.0
    params, state = optim.step(tx, params, {"w": torch.ones(1)}, state)
    assert state.slots["z"]["w"].item() == -3.0
    # The average weighs -1 by 1 and -3 by 2.
    average = optim.schedule_free_eval_params(state, params)
    assert average["w"].item() == pytest.approx(-7 / 3)


def test_a_falling_rate_does_not_lower_the_weights() -> None:
    tx = optim.schedule_free(optim.sgd(lr=lambda count: 0.5 ** count.double()))
    _, state = walk(tx, {"w": torch.zeros(1)}, [1.0] * 4)
    assert state.slots["lr_max"].item() == 1.0
    assert state.slots["weight_sum"].item() == 4.0


def test_a_rate_of_zero_weighs_nothing() -> None:
    tx = optim.schedule_free_sgd(lr=lambda count: count.double())
    start = {"w": torch.ones(2)}
    params, state = walk(tx, start, [1.0])
    assert torch.equal(params["w"], start["w"])
    params, state = optim.step(tx, params, {"w": torch.ones(2)}, state)
    assert torch.equal(optim.schedule_free_eval_params(state, params)["w"], torch.zeros(2))


def test_gradients_flow_through_a_rate_of_zero() -> None:
    def end(lr: torch.Tensor) -> torch.Tensor:
        params, state = walk(optim.schedule_free_sgd(lr=lr), {"w": torch.ones(1)}, [1.0, 1.0])
        return optim.schedule_free_eval_params(state, params)["w"].sum()

    assert torch.isfinite(grad(end)(torch.tensor(0.0)))
    # x = 1 - lr and 1 - 2 lr, averaged.
    assert grad(end)(torch.tensor(0.1)).item() == pytest.approx(-1.5, rel=1e-5)


def test_at_first_all_points_are_one() -> None:
    params = {"w": torch.randn(5), "c": torch.randn(3, dtype=torch.complex64)}
    state = optim.schedule_free_sgd().init(params)
    average = optim.schedule_free_eval_params(state, params)
    for name, x in params.items():
        assert torch.equal(average[name], x)
        assert torch.equal(state.slots["z"][name], x)
        assert state.slots["z"][name].data_ptr() != x.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_averages_as_float64_does(dtype: torch.dtype) -> None:
    """After many steps an average moves by less than half precision resolves."""
    gradients = (torch.arange(400.0) * 0.7).cos() + 0.05
    ends = {}
    for kind in (dtype, torch.float64):
        tx = optim.schedule_free_sgd(lr=0.01)
        params = {"w": torch.tensor([3.0, 5.0], dtype=kind), "s": torch.tensor(2.0, dtype=kind)}
        first = tx.init(params)
        params, state = walk(tx, params, gradients.to(dtype).tolist())
        tree.assert_same_structure(first, state)
        ends[kind] = state, optim.schedule_free_eval_params(state, params), params
    state, average, params = ends[dtype]
    _, exact, exact_params = ends[torch.float64]
    assert state.slots["z"]["w"].dtype == state.slots["y"]["w"].dtype == torch.float32
    for name in ("w", "s"):
        # Gradients are rounded to the dtype once; nothing else is, but the result.
        y = state.slots["y"][name].double()
        torch.testing.assert_close(y, exact_params[name], rtol=1e-5, atol=0.0)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(params[name].double(), y, rtol=eps, atol=0.0)
        assert average[name].dtype == dtype
        assert torch.equal(average[name], exact[name].to(dtype))
        assert not torch.equal(average[name], torch.full_like(average[name], 3.0))


def test_compiled_half_precision_is_as_exact() -> None:
    """The compiler leaves out roundings to half precision and back."""
    tx = optim.schedule_free_sgd(lr=0.01)
    start = {"w": torch.tensor([3.0, 5.0]).bfloat16()}
    step = torch.compile(lambda p, s, g: optim.step(tx, p, g, s), fullgraph=True, dynamic=False)
    params, state = start, tx.init(start)
    for t in range(200):
        grads = tree.map(lambda p, t=t: torch.full_like(p, 1 / (1 + t)), params)
        params, state = step(params, state, grads)
    eager = walk(tx, start, [1 / (1 + t) for t in range(200)])[1]
    for slot in ("y", "z"):
        torch.testing.assert_close(state.slots[slot], eager.slots[slot], rtol=1e-5, atol=0.0)


def test_full_precision_needs_no_second_copy() -> None:
    params = {"half": torch.ones(2).half(), "whole": torch.ones(2)}
    state = optim.schedule_free_sgd().init(params)
    assert list(state.slots["y"]) == ["half"]


def test_parameters_that_someone_else_changed_count() -> None:
    """In half precision too: not the exact value of what they were."""
    tx, params = optim.schedule_free_sgd(lr=0.01), {"w": torch.ones(2).half()}
    params, state = walk(tx, params, [1.0] * 3)
    params, state = optim.step(tx, {"w": torch.full((2,), 4.0).half()}, params, state)
    assert (params["w"] > 3).all()
    torch.testing.assert_close(state.slots["y"]["w"], params["w"].float(), rtol=1e-3, atol=0.0)


class TestEvalParams:
    def test_in_a_chain_and_in_groups(self) -> None:
        """Whatever the names became; leaves of other groups stay as they are."""
        params = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
        inner = {
            "x": optim.schedule_free_sgd(0.5),
            "y": optim.schedule_free_adamw(0.1, (0.8, 0.9)),
            "z": optim.sgd(0.1),
        }
        groups = optim.partition(inner, {"x": "a", "y": "b", "z": "c"})
        tx = optim.chain(optim.clip_by_global_norm(100.0), groups)
        found, state = walk(tx, params, [1.0, 0.5, -2.0])
        average = optim.schedule_free_eval_params(state, found)
        for name, label in zip("abc", "xyz", strict=True):
            alone, own = walk(inner[label], {name: params[name]}, [1.0, 0.5, -2.0])
            wanted = alone if label == "z" else optim.schedule_free_eval_params(own, alone)
            torch.testing.assert_close(average[name], wanted[name])
        assert not torch.equal(average["a"], found["a"])

    def test_beside_parts_of_the_same_names(self) -> None:
        def same(updates: Any, slots: Any, *args: Any, **_: Any) -> Any:
            return updates, slots, {}

        other = optim.Part("other", lambda params: {"z": params}, same, {"beta": 0.5}, slots=("z",))
        tx = optim.schedule_free_sgd(0.5)
        params = {"w": torch.ones(2)}
        alone, own = walk(tx, params, [1.0, 2.0])
        found, state = walk(optim.chain(other, tx), params, [1.0, 2.0])
        assert "schedule_free.z" in state.slots
        torch.testing.assert_close(
            optim.schedule_free_eval_params(state, found),
            optim.schedule_free_eval_params(own, alone),
        )

    def test_inside_another_optimizer(self) -> None:
        params = {"w": torch.ones(2)}
        alone, own = walk(optim.schedule_free_sgd(0.5), params, [1.0, 2.0])
        found, state = walk(optim.lookahead(optim.schedule_free_sgd(0.5), 9), params, [1.0, 2.0])
        torch.testing.assert_close(
            optim.schedule_free_eval_params(state, found),
            optim.schedule_free_eval_params(own, alone),
        )

    def test_of_many_runs(self) -> None:
        params = {"w": torch.arange(6.0).reshape(3, 2)}
        tx = optim.schedule_free_sgd(0.5)
        found, state = vmap(lambda p: walk(tx, p, [1.0, 2.0]))(params)
        average = vmap(optim.schedule_free_eval_params)(state, found)
        torch.testing.assert_close(average["w"], params["w"] - (0.5 + 1.5) / 2)
        with pytest.raises(ValueError, match=r"got \(3,\) of them stacked: use vmap"):
            optim.schedule_free_eval_params(state, found)

    def test_of_another_optimizer(self) -> None:
        params = {"w": torch.ones(1)}
        with pytest.raises(ValueError, match=r"must be of `schedule_free`, got .* \['exp_avg'"):
            optim.schedule_free_eval_params(optim.adam().init(params), params)


def test_weight_decay_acts_at_y() -> None:
    tx = optim.schedule_free_adamw(lr=0.1, weight_decay=0.5)
    params = {"w": torch.tensor([2.0], dtype=torch.float64)}
    params, state = walk(tx, params, [1.0, 1.0])
    y, z = params["w"].item(), state.slots["z"]["w"].item()
    assert abs(y - z) > 0.01
    _, state = optim.step(tx, params, {"w": torch.zeros(1, dtype=torch.float64)}, state)
    assert state.slots["z"]["w"].item() == pytest.approx(z - 0.1 * 0.5 * y, rel=1e-12)


def test_what_is_inside_is_found() -> None:
    tx = optim.schedule_free_adamw(lr=0.1, warmup_steps=4)
    params, state = walk(tx, {"w": torch.ones(1)}, [1.0])
    found = optim.diagnostics(state)
    assert found["lr"] == 0.1
    assert found["scheduled_lr"].item() == pytest.approx(0.025)
    changed = optim.set_hyperparams(state, lr=0.4)
    _, after = optim.step(tx, params, params, changed)
    assert after.slots["lr_max"].item() == pytest.approx(0.2)  # the second step of four


def test_extra_arguments_reach_the_inner_optimizer() -> None:
    heard: list[Any] = []

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        heard.append(extra)
        return grads, state

    listener = GradientTransformation(lambda params: {}, update)
    tx = optim.schedule_free(optim.chain(listener, optim.sgd(0.1)))
    params = {"w": torch.ones(1)}
    optim.step(tx, params, params, tx.init(params), value=3.0)
    assert heard == [{"value": 3.0}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0.0}, "`beta` must be a constant in (0, 1), got 0.0"),
        ({"beta": 1.0}, "`beta` must be a constant in (0, 1), got 1.0"),
        ({"beta": lambda count: 0.9}, "`beta` must be a constant in (0, 1), got <function"),
        ({"warmup_steps": -1}, "`warmup_steps` must be at least 0, got -1"),
        ({"r": -0.5}, "`r` must be at least 0, got -0.5"),
        ({"weight_lr_power": -2}, "`weight_lr_power` must be at least 0, got -2"),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        optim.schedule_free(optim.sgd(), **arguments)


def test_the_inner_optimizer_must_have_a_learning_rate() -> None:
    params = {"w": torch.ones(1)}
    with pytest.raises(ValueError, match=r"`inner` must have one hyperparameter `lr`.*\['beta1'"):
        optim.schedule_free(optim.scale_by_adam()).init(params)


def test_params_are_needed() -> None:
    tx, grads = optim.schedule_free_sgd(), {"w": torch.ones(1)}
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(grads, tx.init(grads))
