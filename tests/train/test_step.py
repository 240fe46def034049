"""Loss, gradient and step."""

from __future__ import annotations

import functools
from typing import Any

import asserts
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import functionalize, jit, optim, random, train, tree

assert_close = functools.partial(asserts.assert_close, rtol=1e-5, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0.001, 1.0))
def test_steps_are_torchs(seed: int, size: int, lr: float) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    model, tx = functionalize(module), optim.sgd(lr=lr, momentum=0.9)
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    state = train.init(model, tx, random.key(seed))
    module.load_state_dict(state.params)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9)
    x = random.normal(random.key(seed + 1), (size, 4), torch.float64)
    y = random.randint(random.key(seed + 2), (size,), 0, 2, torch.int64)
    for _ in range(5):
        state, info = step(state, (x, y))
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(info["loss"], loss.detach(), rtol=1e-12, atol=1e-12)
    for name, value in module.named_parameters():
        torch.testing.assert_close(state.params[name], value.detach(), rtol=1e-12, atol=1e-12)


def test_step_is_pure_and_detached(task: Any) -> None:
    state = task.begin()
    before, generator = tree.map(torch.clone, state), torch.get_rng_state()
    new, info = task.step(state, task.data)
    assert_close(state, before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(leaf.requires_grad for leaf in tree.leaves((new, info)))
    assert new.count == 1
    assert torch.equal(new.key, state.key)
    assert not torch.equal(new.buffers["1.running_mean"], state.buffers["1.running_mean"])


def test_the_key_of_a_step_is_folded_from_the_count(task: Any) -> None:
    """So that a run can go on from any state, whatever happened before."""
    state = task.begin()
    first, _ = task.step(state, task.data)
    again, _ = task.step(state, task.data)
    assert_close(again, first)
    later, _ = task.step(state._replace(count=state.count + 1), task.data)
    assert not torch.equal(later.params["0.weight"], first.params["0.weight"])


def test_lanes_are_solo_runs(task: Any) -> None:
    many, solo = task.begin_many(3), [task.begin(seed) for seed in range(3)]
    step = vmap(task.step, in_dims=(0, None))
    for _ in range(3):
        many, info = step(many, task.data)
        solo, infos = zip(*(task.step(state, task.data) for state in solo), strict=True)
    assert_close(many, tree.stack(solo))
    assert_close(info, tree.stack(infos))


def test_compiled_steps_are_eager_steps(task: Any) -> None:
    fast, eager = tree.map(torch.clone, task.begin_many()), task.begin_many()
    batched = vmap(task.step, in_dims=(0, None))
    compiled = jit(batched, donate_argnums=0)
    for _ in range(3):
        fast, info = compiled(fast, task.data)
        eager, wanted = batched(eager, task.data)
    assert_close(fast, eager)
    assert_close(info, wanted)


def test_every_lane_of_a_new_state_has_memory_of_its_own(task: Any) -> None:
    """So that it can be given away: nothing is expanded over the lanes."""
    for path, leaf in tree.select(task.begin_many(), "*").items():
        assert 0 not in leaf.stride(), path


def test_learning_rates_in_lanes_are_a_sweep(task: Any) -> None:
    begun, lrs = task.begin_many(3), torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)
    hyperparams = begun.opt_state.hyperparams | {"lr": lrs}
    begun = begun._replace(opt_state=begun.opt_state._replace(hyperparams=hyperparams))
    many, _ = vmap(task.step, in_dims=(0, None))(begun, task.data)
    for state, after in zip(tree.unstack(begun), tree.unstack(many), strict=True):
        assert_close(after, task.step(state, task.data)[0])


def test_differentiating_through_steps() -> None:
    """The derivative of the loss after two steps with respect to the learning rate."""
    model = functionalize(nn.Linear(2, 1).double())
    x = random.normal(random.key(0), (8, 2), torch.float64)
    batch = x, x.sum(1, keepdim=True)
    tx = optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(model, F.mse_loss), tx, differentiable=True)
    begun = train.init(model, tx, random.key(1))

    def final_loss(lr: Tensor) -> Tensor:
        state = begun._replace(opt_state=begun.opt_state._replace(hyperparams={"lr": lr}))
        for _ in range(2):
            state, _ = step(state, batch)
        return step(state, batch)[1]["loss"]

    lr, h = torch.tensor(0.1, dtype=torch.float64), 1e-6
    slope = (final_loss(lr + h) - final_loss(lr - h)) / (2 * h)
    torch.testing.assert_close(torch.func.grad(final_loss)(lr), slope, rtol=1e-6, atol=1e-9)
    taped = lr.clone().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(final_loss(taped), taped)[0], slope, rtol=1e-6, atol=1e-9
    )


def test_several_and_keyword_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1)

        def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
            return self.linear(a if b is None else a + b)

    model = functionalize(Two())
    loss = train.supervised(model, F.mse_loss)
    a, b, y = torch.ones(3, 2), torch.ones(3, 2) * 2, torch.zeros(3, 1)
    given = model.params, model.buffers
    by_position, _ = loss(*given, (a, b, y), random.key(0))
    by_name, _ = loss(*given, ({"a": a, "b": b}, y), random.key(0))
    together, _ = loss(*given, (a + b, y), random.key(0))
    assert by_position == by_name == together


def test_criterion_must_reduce(task: Any) -> None:
    loss = train.supervised(task.model, lambda o, y: F.cross_entropy(o, y, reduction="none"))
    state = task.begin()
    with pytest.raises(
        ValueError, match=r"`criterion` must return a 0-d tensor, got shape \(50,\)"
    ):
        loss(state.params, state.buffers, task.data, random.key(0))


def test_parameter_without_gradient_stays() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model, tx = functionalize(Idle()), optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(model, F.mse_loss), tx)
    state = train.init(model, tx, random.key(0))
    for one_step in (step, jit(step)):
        after, _ = one_step(state, (torch.ones(3, 2), torch.ones(3, 1)))
        assert torch.equal(after.params["idle.weight"], state.params["idle.weight"])
        assert not torch.equal(after.params["used.weight"], state.params["used.weight"])


@given(st.integers(0, 2**32 - 1), st.integers(0, 100), st.integers(1, 60))
def test_epoch_order_is_a_permutation(seed: int, epoch: int, size: int) -> None:
    order = train.epoch_order(random.key(seed), epoch, size)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(size))
    assert torch.equal(order, train.epoch_order(random.key(seed), torch.tensor(epoch), size))


def test_epoch_order_changes_with_epoch_and_run() -> None:
    orders = {
        tuple(train.epoch_order(random.key(seed), epoch, 30).tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16
