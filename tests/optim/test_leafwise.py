"""`Leaves`: arithmetic on many tensors as on one."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fdnn.optim.core import leafwise as module
from fdnn.optim.core.leafwise import Leaves, leafwise

X = {"a": torch.tensor([0.5, 2.0, 3.0]), "b": torch.tensor([[1.5], [4.0]]), "c": torch.tensor(0.7)}
Y = {"a": torch.tensor([1.0, -2.0, 0.3]), "b": torch.tensor([[2.5], [0.1]]), "c": torch.tensor(1.7)}
SCALAR = torch.tensor(0.3, dtype=torch.float64)

FORMULAS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "add a number": lambda x, y: 2.0 + x + 1,
    "add a scalar": lambda x, y: SCALAR + x + SCALAR,
    "subtract": lambda x, y: x - y,
    "subtract numbers": lambda x, y: (x - 1) + (2 - y) + (SCALAR - x),
    "multiply": lambda x, y: x * y * 2 * SCALAR,
    "scalar first": lambda x, y: SCALAR * x + 3 * y,
    "divide": lambda x, y: x / y / 3 / SCALAR,
    "divide by zero": lambda x, y: (x * 2) / 0 + y.abs() / torch.tensor(0.0, dtype=torch.float64),
    "divide a number": lambda x, y: 1.0 / x + SCALAR / x,
    "factors of both": lambda x, y: (x * 0.3) * (y * 0.5) + (x * 0.2) / (y * 4),
    "weighted mean": lambda x, y: x * 0.9 + y * (1 - 0.9),
    "difference of multiples": lambda x, y: x * 0.9 - y * 0.4,
    "used twice": lambda x, y: (lambda z: z + z * z)(x * 3),
    "negative": lambda x, y: -x + -(y * 2),
    "power": lambda x, y: x**2 + (x * 2) ** 0.5,
    "functions": lambda x, y: torch.sqrt(x) + torch.sign(y) + torch.abs(y) + torch.exp(-x),
    "two arguments": lambda x, y: torch.maximum(x, y) + torch.minimum(x * 2, y),
    "methods": lambda x, y: x.clamp(min=1.0) + y.square() + y.abs().log(),
    "comparisons": lambda x, y: torch.where(x > y, x, y) + torch.where(x <= 2, 1.0, 0.0),
    "torch operators": lambda x, y: torch.add(x, y) + torch.mul(x, 2) - torch.div(y, 3),
    "like": lambda x, y: torch.zeros_like(x) + torch.ones_like(y),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_of_all_is_the_formula_of_each(name: str) -> None:
    fn = FORMULAS[name]
    with torch.no_grad():
        together = leafwise(fn, X, Y)
    for path in X:
        wanted = fn(X[path], Y[path]).to(torch.float32)
        torch.testing.assert_close(together[path], wanted, rtol=1e-6, atol=1e-7)
        assert together[path].dtype == torch.float32


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 3), st.floats(-3, 3))
def test_factors_are_carried_along(a: float, b: float, c: float, d: float) -> None:
    def formula(x: Any, y: Any) -> Any:
        return (x * a + y * b) / c - (y * d + x) * a

    with torch.no_grad():
        together = leafwise(formula, X, Y)
    for path in X:
        torch.testing.assert_close(together[path], formula(X[path], Y[path]), rtol=1e-4, atol=1e-4)


def test_arguments_stay_as_they_are() -> None:
    before = {path: x.clone() for path, x in X.items()}
    with torch.no_grad():
        for fn in FORMULAS.values():
            leafwise(fn, X, Y)
    assert all(torch.equal(X[path], x) for path, x in before.items())


def test_only_where_nothing_but_values_is_wanted() -> None:
    seen = []

    def spy(x: Any) -> Any:
        seen.append(type(x))
        return x * 2

    leafwise(spy, X)
    assert Leaves not in seen  # autograd may be wanted
    with torch.no_grad():
        leafwise(spy, X)
        assert seen[-1] is Leaves
        torch.vmap(lambda x: leafwise(spy, {"a": x, "b": x}))(torch.ones(2))
        assert seen[-1] is not Leaves
        leafwise(spy, {"a": torch.ones(1), "b": torch.ones(1, dtype=torch.float64)})
        assert seen[-1] is not Leaves  # of two dtypes
    assert module.runs_plainly() is False


def test_trees_of_different_structure_are_refused() -> None:
    with torch.no_grad(), pytest.raises(ValueError, match="at path 'c': expected a leaf"):
        leafwise(operator.add, X, {"a": X["a"], "b": X["b"]})


def test_what_differs_from_leaf_to_leaf_cannot_be_asked() -> None:
    with torch.no_grad(), pytest.raises(AttributeError, match="`shape` may differ"):
        leafwise(lambda x: x * x.shape[0], X)
