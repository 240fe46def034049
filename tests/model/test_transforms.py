"""`apply` alone, under grad, vmap, vmap(grad), compiled, and compiled and vmapped."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import asserts
import pytest
import torch
from asserts import assert_equal
from torch import Tensor, vmap

from fdnn import Model, functionalize, jit, random, tree

LANES = 3


def differentiated(model: Model, case: Any) -> Callable[..., Any]:
    """A function of (params, buffers, key): gradient, loss, output and buffers in train mode."""

    def loss(params: Any, buffers: Any, key: Tensor) -> tuple[Tensor, Any]:
        output, buffers = model.apply(
            params, buffers, *case.inputs, key=key, train=True, **case.kwargs
        )
        return sum((leaf.square() * 0.5 + leaf).mean() for leaf in tree.leaves(output)), (
            output,
            buffers,
        )

    return torch.func.grad_and_value(loss, has_aux=True)


def lanes_of(model: Model) -> tuple[Any, Any, Tensor]:
    keys = random.split(random.key(1), LANES)
    params, buffers = vmap(model.init)(keys)
    return params, buffers, random.split(random.key(2), LANES)


assert_close = functools.partial(asserts.assert_close, rtol=1e-4, atol=2e-6)


def solo(fn: Callable[..., Any], lanes: tuple[Any, Any, Tensor]) -> Any:
    return tree.stack([fn(*lane) for lane in tree.unstack(lanes)])


def test_call_is_pure(case: Any) -> None:
    module = case.make(0.5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    training = module.training
    model = functionalize(module)
    fn, given = differentiated(model, case), (model.params, model.buffers, random.key(3))
    arguments = tree.map(torch.clone, (given, case.inputs))
    generator = torch.get_rng_state()
    first, second = fn(*given), fn(*given)
    assert torch.equal(torch.get_rng_state(), generator)
    assert_equal((given, case.inputs), arguments)
    assert_equal(second, first)
    assert_equal(dict(module.state_dict()), before)
    assert module.training is training
    assert all(parameter.grad is None for parameter in module.parameters())


def test_key_decides(stochastic: Any) -> None:
    model = functionalize(stochastic.make(0.5))
    one, other = (
        model.apply(
            model.params,
            model.buffers,
            *stochastic.inputs,
            key=random.key(seed),
            train=True,
            **stochastic.kwargs,
        )[0]
        for seed in (0, 1)
    )
    assert not any(map(torch.equal, tree.leaves(one)[:1], tree.leaves(other)[:1]))


def test_draw_without_a_key_is_an_error(stochastic: Any) -> None:
    model = functionalize(stochastic.make(0.5))
    with pytest.raises(ValueError, match="`key` must be given"):
        model.apply(
            model.params, model.buffers, *stochastic.inputs, train=True, **stochastic.kwargs
        )


def test_grad_is_autograds(case: Any) -> None:
    model = functionalize(case.make(0.5))
    params, buffers = model.init(random.key(0))
    key = random.key(5)
    grads, _ = differentiated(model, case)(params, buffers, key)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    output, _ = model.apply(leaves, buffers, *case.inputs, key=key, train=True, **case.kwargs)
    loss = sum((leaf.square() * 0.5 + leaf).mean() for leaf in tree.leaves(output))
    taped = torch.autograd.grad(
        loss, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    assert_close(grads, dict(zip(leaves, taped, strict=True)))


def test_lane_of_a_vmapped_call_is_the_solo_call(case: Any) -> None:
    model = functionalize(case.make(0.5))
    fn, lanes = differentiated(model, case), lanes_of(model)
    generator = torch.get_rng_state()
    assert_close(vmap(fn)(*lanes), solo(fn, lanes))
    assert torch.equal(torch.get_rng_state(), generator)


def test_vmap_without_grad(case: Any) -> None:
    model = functionalize(case.make(0.5))
    lanes = lanes_of(model)

    def forward(params: Any, buffers: Any, key: Tensor) -> Any:
        return model.apply(params, buffers, *case.inputs, key=key, train=True, **case.kwargs)

    assert_close(vmap(forward)(*lanes), solo(forward, lanes))


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_chunk_size_changes_nothing(case: Any, chunk_size: int) -> None:
    model = functionalize(case.make(0.5))
    fn, lanes = differentiated(model, case), lanes_of(model)
    assert_close(vmap(fn, chunk_size=chunk_size)(*lanes), vmap(fn)(*lanes))


def test_samples_of_one_model(stochastic: Any) -> None:
    """Monte Carlo: one model, many keys."""
    model = functionalize(stochastic.make(0.5))
    keys = random.split(random.key(2), LANES)

    def forward(key: Tensor) -> Any:
        return model.apply(
            model.params,
            model.buffers,
            *stochastic.inputs,
            key=key,
            train=True,
            **stochastic.kwargs,
        )[0]

    assert_close(vmap(forward)(keys), tree.stack([forward(key) for key in keys]))


def test_compiled(case: Any) -> None:
    model = functionalize(case.make(0.5))
    fn, lanes = differentiated(model, case), lanes_of(model)
    lane = tree.unstack(lanes)[1]
    assert_close(jit(fn)(*lane), fn(*lane))


def test_compiled_and_vmapped(case: Any) -> None:
    model = functionalize(case.make(0.5))
    fn, lanes = differentiated(model, case), lanes_of(model)
    assert_close(jit(vmap(fn))(*lanes), solo(fn, lanes))
