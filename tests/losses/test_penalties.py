"""Penalties: their factor, their gradients, and the identity with weight decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, vmap

from fdnn import losses, optim, random, tree
from fdnn.types import Tree

PARAMS = {
    "0.weight": torch.tensor([[1.0, -2.0], [0.0, 3.0]], dtype=torch.float64),
    "0.bias": torch.tensor([4.0, -5.0], dtype=torch.float64),
}


def test_values() -> None:
    assert losses.l1_penalty(PARAMS) == 15
    assert losses.l2_penalty(PARAMS) == 55 / 2
    assert losses.elastic_penalty(PARAMS, 2.0, 4.0) == 30 + 110
    assert losses.l2_penalty({"a": [torch.ones(2)], "b": (torch.ones(3), {})}) == 5 / 2


@pytest.mark.parametrize(
    "where", ["*.weight", ["0.weight"], lambda path, leaf: leaf.ndim > 1], ids=["glob", "list", "f"]
)
def test_where(where: Any) -> None:
    assert losses.l1_penalty(PARAMS, where) == 6
    assert losses.l2_penalty(PARAMS, where) == 7
    assert losses.elastic_penalty(PARAMS, 1.0, 1.0, where) == 13
    slope = torch.func.grad(losses.l2_penalty)(PARAMS, where)
    assert torch.equal(slope["0.bias"], torch.zeros(2).double())
    with pytest.raises(ValueError, match="`where` matches no path with 'weights'"):
        losses.l1_penalty(PARAMS, "weights")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex128])
def test_gradients(dtype: torch.dtype) -> None:
    """The parameter itself, and its sign: 0 at 0."""
    imaginary = 2j if dtype.is_complex else 0
    params = {"w": torch.tensor([1.5, -2.0, 0.0]).to(dtype) + imaginary}
    assert torch.equal(torch.func.grad(losses.l2_penalty)(params)["w"], params["w"])
    w = torch.view_as_real(params["w"]) if dtype.is_complex else params["w"]
    slope = torch.func.grad(losses.l1_penalty)(params)["w"]
    found = torch.view_as_real(slope) if dtype.is_complex else slope
    assert slope.dtype == dtype and torch.equal(found, w.sign())


def test_complex_numbers_are_two_reals() -> None:
    params = {"w": torch.tensor([3 - 4j, 1j])}
    reals = {"w": torch.tensor([3.0, -4.0, 0.0, 1.0])}
    for penalty in (losses.l1_penalty, losses.l2_penalty):
        assert penalty(params) == penalty(reals) and not penalty(params).is_complex()


def test_narrow_types_are_summed_in_float32() -> None:
    params = {"w": torch.full((300, 300), 1.0, dtype=torch.float16)}
    assert losses.l1_penalty(params) == 90_000  # float16 ends at 65504
    assert losses.l2_penalty(params) == 45_000
    assert losses.l2_penalty(PARAMS).dtype == torch.float64
    mixed = losses.l1_penalty({"a": params["w"], "b": PARAMS["0.bias"]})
    assert mixed == 90_009 and mixed.dtype == torch.float64


@pytest.mark.parametrize("empty", [{}, (), {"a": {}}], ids=str)
def test_empty_trees(empty: Any) -> None:
    assert losses.l1_penalty(empty) == 0 and losses.l2_penalty(empty) == 0
    assert losses.elastic_penalty(empty, 1.0, 1.0).shape == ()
    assert losses.l1_penalty(PARAMS, lambda path, leaf: False) == 0


def trajectory(tx: Any, penalty: Any, steps: int = 50) -> list[Tree]:
    """Parameters of a small network on noise, after each step."""

    def normal(seed: int, *shape: int) -> Tensor:
        return random.normal(random.key(seed), shape, torch.float64)

    x, y = normal(0, 16, 4), normal(1, 16)
    params = {"w": normal(2, 4, 6), "v": normal(3, 6), "b": normal(4, 6)}

    def loss(params: Any) -> Tensor:
        output = torch.tanh(x @ params["w"] + params["b"]) @ params["v"]
        return losses.mse_loss(output, y) + penalty(params)

    state, places = tx.init(params), []
    for _ in range(steps):
        params, state = optim.step(tx, params, torch.func.grad(loss)(params), state)
        places.append(params)
    return places


def gap(a: list[Tree], b: list[Tree]) -> float:
    apart = tree.map(lambda x, y: (x - y).abs().max(), a, b)
    return max(value.item() for value in tree.leaves(apart))


def nothing(params: Tree) -> float:
    return 0.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_l2_penalty_is_weight_decay(momentum: float) -> None:
    """And the sum of squares, not halved, is not (D4 of the chapter): it decays twice as fast."""
    wd = 0.05
    decayed = trajectory(optim.sgd(0.05, momentum=momentum, weight_decay=wd), nothing)
    plain = optim.sgd(0.05, momentum=momentum)
    penalized = trajectory(plain, lambda params: wd * losses.l2_penalty(params))
    assert gap(penalized, decayed) < 1e-12

    def unhalved(params: Tree) -> Tensor:
        return wd * sum(leaf.square().sum() for leaf in tree.leaves(params))

    assert gap(trajectory(plain, unhalved), decayed) > 1e-2
    twice = trajectory(optim.sgd(0.05, momentum=momentum, weight_decay=2 * wd), nothing)
    assert gap(trajectory(plain, unhalved), twice) < 1e-12


def test_decay_of_some_leaves() -> None:
    decayed = trajectory(
        optim.chain(
            optim.add_decayed_weights(0.05, lambda path, leaf: path != "b"), optim.sgd(0.05)
        ),
        nothing,
    )
    penalized = trajectory(optim.sgd(0.05), lambda p: 0.05 * losses.l2_penalty(p, ["w", "v"]))
    assert gap(penalized, decayed) < 1e-12


def test_adam_decays_through_the_gradient_and_adamw_does_not() -> None:
    penalized = trajectory(optim.adam(0.01), lambda params: 0.05 * losses.l2_penalty(params))
    assert gap(penalized, trajectory(optim.adam(0.01, weight_decay=0.05), nothing)) < 1e-10
    assert gap(penalized, trajectory(optim.adamw(0.01, weight_decay=0.05), nothing)) > 1e-3


def test_l1_penalty_is_add_l1() -> None:
    added = trajectory(optim.chain(optim.add_l1(0.02), optim.sgd(0.05)), nothing)
    penalized = trajectory(optim.sgd(0.05), lambda params: 0.02 * losses.l1_penalty(params))
    assert gap(penalized, added) < 1e-12


def test_elastic_factors_sweep() -> None:
    factors = torch.tensor([0.0, 0.1, 2.0], dtype=torch.float64)
    found = vmap(lambda f: losses.elastic_penalty(PARAMS, f, 3 * f))(factors)
    expected = factors * 15 + 3 * factors * 27.5
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="`l1` must be at least 0, got -1"):
        losses.elastic_penalty(PARAMS, -1, 0)
    with pytest.raises(ValueError, match="`l2` must be at least 0, got -1"):
        losses.elastic_penalty(PARAMS, 0, -1)
