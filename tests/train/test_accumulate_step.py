"""Gradient accumulation in a training step: the whole batch's gradient, part by part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import functionalize, optim, random, train, tree

MODEL = functionalize(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double())
NORMED = functionalize(
    nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 3)
    ).double()
)
TX = optim.sgd(0.1, momentum=0.9)


def batch_of(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = random.normal(random.key(seed), (size, 4), torch.float64)
    return x, random.randint(random.key(seed + 1), (size,), 0, 3, torch.int64)


@given(size=st.integers(1, 13), parts=st.integers(1, 15), seed=st.integers(0, 2**31))
def test_it_is_the_gradient_of_the_whole_batch(size: int, parts: int, seed: int) -> None:
    whole = train.value_and_grad(train.supervised(MODEL, F.cross_entropy))
    args = *MODEL.init(random.key(seed)), batch_of(size, seed), random.key(0)
    wanted, found = whole(*args), train.accumulate(whole, parts)(*args)
    assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "parts"), [(12, 4), (13, 4), (3, 5), (7, 7)])
def test_no_part_is_larger_than_it_must_be(size: int, parts: int) -> None:
    seen: list[int] = []

    def criterion(output: Tensor, target: Tensor) -> Tensor:
        seen.append(len(target))
        return F.cross_entropy(output, target)

    step = train.make_step(train.supervised(MODEL, criterion), TX, num_microbatches=parts)
    step(train.init(MODEL, TX, random.key(0)), batch_of(size))
    assert sum(seen) == size
    assert len(seen) == min(size, parts)
    assert max(seen) == -(-size // parts)
    assert max(seen) - min(seen) <= 1


def test_steps_are_torchs_accumulation_loop() -> None:
    """With batch norm: its statistics go from part to part, each part is normalized alone."""
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    model = functionalize(module)
    step = train.make_step(train.supervised(model, F.cross_entropy), TX, num_microbatches=3)
    state = train.init(model, TX, random.key(0))
    module.load_state_dict({**state.params, **state.buffers})
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    x, y = batch_of(11)
    for _ in range(4):
        state, info = step(state, (x, y))
        optimizer.zero_grad()
        total = 0.0
        for a, b in zip(x.split([3, 4, 4]), y.split([3, 4, 4]), strict=True):
            loss = F.cross_entropy(module(a), b) * len(b) / len(y)
            loss.backward()
            total += loss.item()
        optimizer.step()
        assert info["loss"].item() == pytest.approx(total, rel=1e-12)
    for name, value in module.state_dict().items():
        torch.testing.assert_close({**state.params, **state.buffers}[name], value.detach())
    assert state.buffers["1.num_batches_tracked"] == 12
    assert state.count == state.opt_state.count == 4


def test_every_part_has_a_key_of_its_own() -> None:
    gradient = train.value_and_grad(train.supervised(NORMED, F.cross_entropy))
    params, buffers = NORMED.init(random.key(0))
    (x, y), key = batch_of(6), random.key(3)
    twice = torch.cat([x[:3], x[:3]]), torch.cat([y[:3], y[:3]])
    (value, _), grads = train.accumulate(gradient, 2)(params, buffers, twice, key)
    halves = [
        gradient(params, buffers, (x[:3], y[:3]), random.fold_in(key, number))
        for number in range(2)
    ]
    assert halves[0][0][0] != halves[1][0][0]
    torch.testing.assert_close(value, (halves[0][0][0] + halves[1][0][0]) / 2)
    assert_close(grads, tree.map(lambda a, b: (a + b) / 2, halves[0][1], halves[1][1]), 1e-9, 1e-9)


def steps(parts: int, tx: Any = TX) -> Any:
    return train.make_step(train.supervised(NORMED, F.cross_entropy), tx, num_microbatches=parts)


def test_lanes_are_solo_steps() -> None:
    keys, batch, step = random.split(random.key(0), 2), batch_of(5), steps(2)
    many = vmap(lambda key: train.init(NORMED, TX, key))(keys)
    batched = vmap(step, in_dims=(0, None))
    found = batched(many, batch)
    solo = [step(train.init(NORMED, TX, key), batch) for key in keys]
    assert_close(found, tree.stack(solo), rtol=1e-9, atol=1e-9)


def test_differentiating_through_a_step() -> None:
    batch = batch_of(5)

    def final_loss(lr: Tensor, parts: int) -> Tensor:
        tx, loss = optim.sgd(lr), train.supervised(MODEL, F.cross_entropy)
        step = train.make_step(loss, tx, num_microbatches=parts, differentiable=True)
        state = train.init(MODEL, tx, random.key(0))
        return step(step(state, batch)[0], batch)[1]["loss"]

    lr = torch.tensor(0.1, dtype=torch.float64)
    slope = torch.func.grad(final_loss)
    torch.testing.assert_close(slope(lr, 2), slope(lr, 1), rtol=1e-10, atol=0)
    assert slope(lr, 1) != 0


def test_evaluations_elsewhere_are_accumulated_too() -> None:
    """SAM's second gradient is that of the whole batch."""
    tx, batch = optim.sam(optim.sgd(0.1), rho=0.5), batch_of(7)
    begun = train.init(MODEL, tx, random.key(0))
    loss = train.supervised(MODEL, F.cross_entropy)
    whole, _ = train.make_step(loss, tx)(begun, batch)
    parts, _ = train.make_step(loss, tx, num_microbatches=3)(begun, batch)
    assert_close(parts.params, whole.params, rtol=1e-12, atol=1e-12)


def test_half_precision_is_summed_in_float32() -> None:
    """In bfloat16 alone a sum of 100 equal terms would stop growing."""
    model = functionalize(nn.Linear(1, 1, bias=False).bfloat16())

    def loss(params: Any, buffers: Any, batch: Tensor, key: Tensor) -> tuple[Tensor, Any]:
        return (model.apply(params, buffers, batch)[0] ** 1).float().mean(), buffers

    gradient = train.accumulate(train.value_and_grad(loss), 500)
    args = model.params, {}, torch.full((500, 1), 3.0).bfloat16(), random.key(0)
    _, grads = gradient(*args)
    assert grads["weight"].dtype == torch.bfloat16
    assert grads["weight"].item() == 3.0


def test_batches_with_keyword_inputs() -> None:
    whole = train.value_and_grad(train.supervised(MODEL, F.cross_entropy))
    x, y = batch_of(5)
    args = MODEL.params, {}
    by_name = train.accumulate(whole, 2)(*args, ({"input": x}, y), random.key(0))
    assert_equal(by_name, train.accumulate(whole, 2)(*args, (x, y), random.key(0)))


def test_with_loss_scaling() -> None:
    """One part that overflows has the whole step skipped."""
    policy = train.Policy(compute=torch.float16)
    model = train.mixed_precision(functionalize(nn.Linear(4, 3)), policy)
    tx = train.with_loss_scaling(TX, train.dynamic_loss_scaling(1024.0))
    loss = train.supervised(model, F.cross_entropy)
    step = train.make_step(loss, tx, num_microbatches=3)
    x, y = batch_of(9)
    state = train.init(model, tx, random.key(0))
    moved, info = step(state, (x.float(), y))
    assert info["overflow"] == 0
    assert not torch.equal(moved.params["weight"], state.params["weight"])
    last = x.float().clone()
    last[-1] = 1e4
    kept, info = step(state, (last, y))
    assert info["overflow"] == 1
    assert_equal(kept.params, state.params)


def test_one_part_is_the_gradient_itself() -> None:
    whole = train.value_and_grad(train.supervised(NORMED, F.cross_entropy))
    assert train.accumulate(whole, 1) is whole


def test_errors_name_the_argument() -> None:
    whole = train.value_and_grad(train.supervised(MODEL, F.cross_entropy))
    for call in (lambda: train.accumulate(whole, 0), lambda: steps(0)):
        with pytest.raises(ValueError, match="`num_microbatches` must be at least 1, got 0"):
            call()
    x, y = batch_of(5)
    for batch in ((x, y[:4]), (x, y[0])):
        with pytest.raises(ValueError, match=r"`batch` must have as many examples .*'0': \(5, 4\)"):
            train.accumulate(whole, 2)(MODEL.params, {}, batch, random.key(0))
