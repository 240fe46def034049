"""Straight pieces: torch's values and derivatives, at the kinks too; slopes from a key."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from elementwise import FLOATS, POINTS, assert_differentiable, assert_same_curve, slope
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, vmap
from torch.func import grad

from fdnn import activations, random

ZERO = torch.zeros((), dtype=torch.float64)
CURVES = {
    "relu": (activations.relu, F.relu),
    "leaky": (activations.leaky_relu, F.leaky_relu),
    "leaky_steep": (lambda x: activations.leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2)),
    "prelu": (
        lambda x: activations.prelu(x, torch.full((), 0.25, dtype=x.dtype)),
        lambda x: F.prelu(x, torch.full((1,), 0.25, dtype=x.dtype)),
    ),
    "rrelu": (activations.rrelu, F.rrelu),
    "rrelu_other": (lambda x: activations.rrelu(x, 0.0, 0.5), lambda x: F.rrelu(x, 0.0, 0.5)),
    "rrelu_certain": (
        lambda x: activations.rrelu(x, 0.25, 0.25, key=random.key(0)),
        lambda x: F.leaky_relu(x, 0.25),
    ),
    "hardtanh": (activations.hardtanh, F.hardtanh),
    "hardtanh_other": (
        lambda x: activations.hardtanh(x, -1.5, 0.5),
        lambda x: F.hardtanh(x, -1.5, 0.5),
    ),
    "relu_squared": (activations.relu_squared, lambda x: F.relu(x) ** 2),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CURVES)
def test_curve_is_torchs(name: str, dtype: torch.dtype) -> None:
    assert_same_curve(*CURVES[name], dtype)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", CURVES)
def test_derivatives(name: str) -> None:
    assert_differentiable(CURVES[name][0], (-1.5, -1.0, 0.0, 0.5, 1.0))


@pytest.mark.parametrize(
    ("curve", "at", "wanted"),
    [
        (activations.relu, 0.0, 0.0),
        (activations.leaky_relu, 0.0, 0.01),
        (lambda x: activations.prelu(x, ZERO + 0.25), 0.0, 0.25),
        (activations.rrelu, 0.0, 11 / 48),
        (lambda x: activations.rrelu(x, 0.25, 0.25, key=random.key(0)), 0.0, 0.25),
        (activations.relu_squared, 0.0, 0.0),
        (activations.hardtanh, -1.0, 0.0),
        (activations.hardtanh, 1.0, 0.0),
    ],
)
def test_derivative_at_a_kink(curve, at: float, wanted: float) -> None:
    assert grad(curve)(ZERO + at).item() == pytest.approx(wanted, rel=1e-15)


def test_second_derivative_of_relu_squared() -> None:
    x = torch.tensor([-2.0, 0.0, 1e-3, 5.0], dtype=torch.float64)
    second = vmap(grad(grad(activations.relu_squared)))(x)
    assert second.tolist() == [0.0, 0.0, 2.0, 2.0]


@given(
    shape=st.lists(st.integers(1, 4), max_size=4),
    one=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_prelu_is_torchs(shape: list[int], one: bool, seed: int) -> None:
    channels = shape[1] if len(shape) > 1 and not one else 1
    x_key, weight_key, y_key = random.split(random.key(seed), 3)
    x = random.normal(x_key, shape, torch.float64)
    weight = random.normal(weight_key, (channels,), torch.float64)
    y = random.normal(y_key, shape, torch.float64)

    def run(fn) -> tuple[Tensor, ...]:
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = fn(*leaves)
        first = torch.autograd.grad((out * y).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in first), leaves)
        return out.detach(), *(g.detach() for g in (*first, *second))

    for ours, theirs in zip(run(activations.prelu), run(F.prelu), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_prelu_lanes_of_slopes_alone() -> None:
    """Where torch's own fails."""
    x, weights = random.normal(random.key(0), (5, 4)), torch.rand(3, 4)
    lanes = vmap(activations.prelu, in_dims=(None, 0))(x, weights)
    assert torch.equal(lanes, torch.stack([F.prelu(x, weight) for weight in weights]))


def test_infinite_input_leaves_the_slope_alone() -> None:
    x = torch.tensor([math.inf, -2.0, 1e38])
    weight = torch.tensor([0.25], requires_grad=True)
    (ours,) = torch.autograd.grad(activations.prelu(x, weight).sum(), weight)
    (theirs,) = torch.autograd.grad(F.prelu(x, weight).sum(), weight)
    assert ours.item() == theirs.item() == -2.0


def test_rrelu_with_a_key_is_torchs_training() -> None:
    """With one slope possible, nothing is left to chance. (At NaN torch's derivative is 1.)"""
    x = torch.tensor(POINTS[:-1], dtype=torch.float64)

    def theirs(x: Tensor) -> Tensor:
        return F.rrelu(x, 0.25, 0.25, training=True)

    ours = CURVES["rrelu_certain"][0]
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(slope(ours, x), slope(theirs, x))


def test_rrelu_draws_uniform_slopes() -> None:
    n, lower, upper = 20_000, 0.1, 0.5
    x = random.normal(random.key(1), (n,), torch.float64)
    out = activations.rrelu(x, lower, upper, key=random.key(2))
    assert torch.equal(out[x > 0], x[x > 0])
    slopes = (out / x)[x < 0]
    assert lower <= slopes.min() and slopes.max() < upper
    # Kolmogorov and Smirnov: sqrt(n) sup|F_n - F| is above 3 once in 30 million.
    cdf = (slopes.sort().values - lower) / (upper - lower)
    rank = torch.arange(len(cdf), dtype=torch.float64) / len(cdf)
    assert (cdf - rank).abs().max().item() * math.sqrt(len(cdf)) < 3
    # The derivative is the slope; another key has others.
    derivative = slope(lambda x: activations.rrelu(x, lower, upper, key=random.key(2)), x)
    torch.testing.assert_close(derivative[x < 0], slopes)
    other = activations.rrelu(x, lower, upper, key=random.key(3))
    assert (other == out)[x < 0].double().mean() < 0.01
    # Without a key it is the mean over keys.
    mean = -activations.rrelu(-torch.ones((), dtype=torch.float64), lower, upper).item()
    error = (upper - lower) / math.sqrt(12 * len(slopes))
    assert abs(slopes.mean().item() - mean) < 5 * error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: activations.rrelu(x, 0.5, 0.1), "`lower` must not be above `upper`, got 0.5"),
        (
            lambda x: activations.hardtanh(x, 2.0, 1.0),
            "`min_val` must not be above `max_val`, got 2.0 and 1.0",
        ),
        (
            lambda x: activations.prelu(x, torch.ones(2)),
            r"`weight` must have the shape \(\), \(1,\) or \(3,\) .* \(5, 3\), got \(2,\)",
        ),
        (lambda x: activations.prelu(x, torch.ones(1, 1)), r"got \(1, 1\)"),
        (lambda x: activations.prelu(x[0], torch.ones(3)), r"`x` of shape \(3,\), got \(3,\)"),
    ],
)
def test_mistakes_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.ones(5, 3))
