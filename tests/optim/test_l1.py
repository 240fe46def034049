"""The L1 penalty: subgradient and soft threshold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from asserts import assert_equal
from torch import Tensor
from torch.func import vmap

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params

TARGET = torch.tensor([2.0, -1.5, 0.3, -0.2, 0.0], dtype=torch.float64)
L1 = 0.5
OPTIMUM = torch.tensor([1.5, -1.0, 0.0, 0.0, 0.0], dtype=torch.float64)


def descend(tx: GradientTransformation, steps: int = 400) -> tuple[Tensor, Any]:
    """Minimize (p - target)^2 / 2 + l1 |p|, whose minimum is the soft threshold of the target."""
    params = {"w": torch.full_like(TARGET, 0.7)}
    state = tx.init(params)
    for _ in range(steps):
        params, state = optim.step(tx, params, {"w": params["w"] - TARGET}, state)
    return params["w"], state


class TestProximal:
    @pytest.mark.parametrize(
        "inner",
        [
            optim.sgd(lr=0.1),
            optim.sgd(lr=0.7),
            optim.sgd(lr=lambda count: 0.5 / (1 + 0.01 * count)),
        ],
        ids=["slow", "fast", "scheduled"],
    )
    def test_finds_the_lasso_whatever_the_learning_rate(
        self, inner: GradientTransformation
    ) -> None:
        found, _ = descend(optim.proximal_l1(inner, L1))
        torch.testing.assert_close(found, OPTIMUM, rtol=1e-6, atol=0.0)
        assert (found[2:] == 0).all()

    def test_momentum_weakens_it(self) -> None:
        """Steps are 1 / (1 - momentum) times as long, thresholds are not."""
        found, _ = descend(optim.proximal_l1(optim.sgd(lr=0.05, momentum=0.5), 2 * L1), 2000)
        torch.testing.assert_close(found, OPTIMUM, rtol=1e-9, atol=0.0)

    def test_the_subgradient_hovers_instead(self) -> None:
        found, _ = descend(optim.chain(optim.add_l1(L1), optim.sgd(lr=0.1)))
        torch.testing.assert_close(found, OPTIMUM, rtol=0.0, atol=0.1 * L1 + 1e-9)
        assert (found[2:4] != 0).all()

    def test_threshold_is_the_rate_in_use_times_l1(self) -> None:
        tx = optim.proximal_l1(optim.sgd(lr=lambda count: 0.1 * (1 + count)), 2.0)
        params = {"w": torch.tensor([5.0, -5.0])}
        state = tx.init(params)
        seen = []
        for _ in range(3):
            params, state = optim.step(tx, params, tree.zeros_like(params), state)
            seen.append(params["w"].tolist())
        assert torch.allclose(
            torch.tensor(seen), torch.tensor([[4.8, -4.8], [4.4, -4.4], [3.8, -3.8]])
        )

    def test_one_learning_rate_for_both(self) -> None:
        """Set, swept or scheduled under the one name `lr`."""
        tx = optim.proximal_l1(optim.sgd(lr=0.1), 1.0)
        params = {"w": torch.tensor([1.0, -0.25])}
        state = tree.stack([tx.init(params)] * 3)
        assert list(state.hyperparams) == ["lr", "l1"]
        state = optim.set_hyperparams(state, lr=torch.tensor([0.0, 0.5, 0.25]))
        still = tree.zeros_like(params)
        found, _ = vmap(lambda s: optim.step(tx, params, still, s))(state)
        assert found["w"].tolist() == [[1.0, -0.25], [0.5, 0.0], [0.75, 0.0]]

    @pytest.mark.parametrize(
        "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
    )
    def test_zeros_are_zeros(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        p, g = (torch.randn(500, generator=generator).to(dtype) for _ in range(2))
        inner = optim.adam(lr=0.3)
        tx = optim.proximal_l1(inner, 1.0)
        found, _ = optim.step(tx, {"w": p}, {"w": g}, tx.init({"w": p}))
        free, _ = optim.step(inner, {"w": p}, {"w": g}, inner.init({"w": p}))
        small = free["w"].abs().double() <= 0.3 * 0.999
        assert small.sum() > 50
        assert (found["w"][small] == 0).all()
        assert (found["w"][free["w"].abs() > 0.31] != 0).all()

    def test_without_a_penalty_nothing_changes_by_a_bit(self) -> None:
        params, grads = {"w": torch.tensor([0.1, -0.7])}, {"w": torch.tensor([0.33, 0.2])}
        inner = optim.adam(lr=0.3)
        for tx in (optim.proximal_l1(inner, 0.0), optim.proximal_l1(inner, 9.0, lambda *_: False)):
            assert_equal(
                optim.step(tx, params, grads, tx.init(params))[0],
                optim.step(inner, params, grads, inner.init(params))[0],
            )

    def test_mask_and_mask(self) -> None:
        """`mask` spares leaves the threshold, `masked` the whole step."""
        params: Params = {"weight": torch.full((2,), 0.05), "bias": torch.full((2,), 0.05)}
        grads = tree.map(torch.ones_like, params)
        tx = optim.proximal_l1(optim.sgd(lr=0.1), 9.0, mask="weight")
        found, _ = optim.step(tx, params, grads, tx.init(params))
        assert_equal(found, {"weight": torch.zeros(2), "bias": torch.full((2,), 0.05) - 0.1})
        tx = optim.masked(optim.proximal_l1(optim.sgd(lr=0.1), 9.0), "weight")
        found, _ = optim.step(tx, params, grads, tx.init(params))
        assert_equal(found, {"weight": torch.zeros(2), "bias": torch.full((2,), 0.05)})

    def test_in_groups(self) -> None:
        params = {"a": torch.tensor([0.4]), "b": torch.tensor([0.4])}
        tx = optim.partition(
            {
                "sparse": optim.proximal_l1(optim.sgd(lr=0.1), 1.0),
                "plain": optim.sgd(lr=0.2),
            },
            {"sparse": "a", "plain": "b"},
        )
        found, state = optim.step(tx, params, tree.zeros_like(params), tx.init(params))
        torch.testing.assert_close(found, {"a": torch.tensor([0.3]), "b": torch.tensor([0.4])})
        assert list(state.hyperparams) == ["sparse.lr", "sparse.l1", "plain.lr"]

    def test_clipping_in_front(self) -> None:
        tx = optim.chain(optim.clip(0.5), optim.proximal_l1(optim.sgd(lr=1.0), 0.25))
        params = {"w": torch.tensor([1.0, -1.0])}
        found, _ = optim.step(tx, params, {"w": torch.tensor([9.0, 0.0])}, tx.init(params))
        assert found["w"].tolist() == [0.25, -0.75]

    def test_complex_parts_have_thresholds_of_their_own(self) -> None:
        params = {"z": torch.tensor([0.5 - 2j])}
        tx = optim.proximal_l1(optim.sgd(lr=1.0), 1.0)
        found, _ = optim.step(tx, params, tree.zeros_like(params), tx.init(params))
        assert found["z"].tolist() == [-1j]


class TestAddL1:
    def test_subgradient(self) -> None:
        params = {"w": torch.tensor([2.0, 0.0, -3.0]), "b": torch.tensor([1.0])}
        tx = optim.add_l1(0.5, mask="w")
        found, _ = tx.update(tree.map(torch.ones_like, params), tx.init(params), params)
        assert_equal(found, {"w": torch.tensor([1.5, 1.0, 0.5]), "b": torch.tensor([1.0])})

    def test_is_the_gradient_of_the_penalty(self) -> None:
        w = torch.tensor([2.0, -3.0, 0.1])
        penalty = torch.func.grad(lambda w: 0.3 * w.abs().sum())(w)
        tx = optim.add_l1(0.3)
        torch.testing.assert_close(tx.update(0 * w, tx.init(w), w)[0], penalty)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optim.add_l1(-1), "`l1` must be at least 0, got -1"),
        (lambda: optim.proximal_l1(optim.sgd(), math.nan), "`l1` must be at least 0, got nan"),
        (
            lambda: optim.proximal_l1(optim.scale(-0.1), 1.0),
            r"`inner` must have one hyperparameter called 'lr' .*, got \['step_size'\]",
        ),
        (
            lambda: optim.proximal_l1(optim.chain(optim.add_l1(0.1), optim.sgd()), 1.0),
            r"`inner` must have .* none called 'l1', got \['l1', 'lr'\]",
        ),
        (
            lambda: optim.proximal_l1(
                optim.partition({"a": optim.sgd(), "b": optim.sgd()}, {"a": "w", "b": "*"}), 1.0
            ),
            r"`inner` must have one .*, got \['a.lr', 'b.lr'\]",
        ),
    ],
)
def test_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_params_forgotten() -> None:
    tx, grads = optim.proximal_l1(optim.sgd(), 1.0), {"w": torch.ones(1)}
    with pytest.raises(ValueError, match="`params` must be given to `update`"):
        tx.update(grads, tx.init(grads))
