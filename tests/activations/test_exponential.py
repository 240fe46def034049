"""Exponential units: torch's curves; selu's constants and the fixed point that they are for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from elementwise import FLOATS, assert_differentiable, assert_same_curve
from torch.func import grad

from fdnn import activations

CURVES = {
    "elu": (activations.elu, F.elu),
    "elu_other": (lambda x: activations.elu(x, 0.6), lambda x: F.elu(x, 0.6)),
    "celu": (activations.celu, F.celu),
    "celu_other": (lambda x: activations.celu(x, 0.6), lambda x: F.celu(x, 0.6)),
    "selu": (activations.selu, F.selu),
    "softplus": (activations.softplus, F.softplus),
    "softplus_other": (
        lambda x: activations.softplus(x, 2.0, 5.0),
        lambda x: F.softplus(x, 2.0, 5.0),
    ),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CURVES)
def test_curve_is_torchs(name: str, dtype: torch.dtype) -> None:
    assert_same_curve(*CURVES[name], dtype)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", CURVES)
def test_derivatives(name: str) -> None:
    assert_differentiable(CURVES[name][0], (0.0, 2.5))  # 2.5: threshold / beta


def test_derivative_at_zero_is_the_left_one() -> None:
    zero = torch.zeros((), dtype=torch.float64)
    assert grad(lambda x: activations.elu(x, 0.6))(zero).item() == 0.6
    # torch divides by alpha in float32 here.
    assert grad(lambda x: activations.celu(x, 0.6))(zero).item() == pytest.approx(1, abs=1e-7)
    assert grad(activations.selu)(zero).item() == pytest.approx(1.7580993408473766, rel=1e-15)


def expectation(fn) -> float:
    """E[fn(z)], z standard normal, by Gauss and Legendre on both sides of 0."""
    nodes, weights = np.polynomial.legendre.leggauss(100)
    half = torch.tensor(7.5 * (nodes + 1))  # on [0, 15]
    z = torch.cat([-half, half])
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float((torch.tensor(7.5 * weights).repeat(2) * density * fn(z)).sum())


def test_quadrature() -> None:
    moments = [expectation(lambda z, n=n: z**n) for n in range(5)]
    assert moments == pytest.approx([1, 0, 1, 0, 3], abs=1e-13)


def test_selu_keeps_mean_0_and_variance_1() -> None:
    assert expectation(activations.selu) == pytest.approx(0, abs=1e-13)
    assert expectation(lambda z: activations.selu(z) ** 2) == pytest.approx(1, abs=1e-13)


def test_selu_is_drawn_to_that_fixed_point() -> None:
    for variance in (0.8, 1.5):
        for _ in range(60):
            std = math.sqrt(variance)
            variance = expectation(lambda z, std=std: activations.selu(std * z) ** 2)
        assert variance == pytest.approx(1, abs=1e-3)


def test_selu_explodes_under_he() -> None:
    """In 100 wide layers (the chapter has 1,000): twice LeCun's variance has no fixed point."""
    mean_square = {"LeCun": 1.2, "He": 1.2}
    for _ in range(100):
        for name, gain in (("LeCun", 1.0), ("He", 2.0)):
            std = math.sqrt(gain * mean_square[name])
            mean_square[name] = expectation(lambda z, std=std: activations.selu(std * z) ** 2)
    assert mean_square["LeCun"] == pytest.approx(1, abs=1e-9)
    # Far out the square of selu grows by scale**2 a layer: of positive inputs, half of all.
    assert 1.0507**200 < mean_square["He"] < 100 * 1.0507**200


def test_selu_asymptote() -> None:
    end = activations.selu(torch.tensor(-math.inf, dtype=torch.float64)).item()
    assert end == pytest.approx(-1.758, abs=5e-4)
    assert activations.selu(torch.ones((), dtype=torch.float64)).item() == pytest.approx(
        1.0507009873554805, rel=1e-15
    )


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_softplus_is_log_2_over_beta_from_relu(beta: float) -> None:
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    gap = activations.softplus(x, beta) - activations.relu(x)
    assert gap.max().item() == pytest.approx(math.log(2) / beta, rel=1e-14)
    assert gap.min().item() >= 0


def test_celu_with_alpha_0_is_refused() -> None:
    with pytest.raises(ValueError, match="`alpha` must not be 0, got 0"):
        activations.celu(torch.ones(2), 0.0)
