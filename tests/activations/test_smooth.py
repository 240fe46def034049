"""Smooth relus: torch's curves; how far the approximations of gelu are off; a learned beta."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from elementwise import FLOATS, assert_differentiable, assert_same_curve
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap
from torch.func import grad, hessian

from fdnn import activations, random

X = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
CURVES = {
    "gelu": (activations.gelu, F.gelu),
    "gelu_tanh": (
        lambda x: activations.gelu(x, "tanh"),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "swish": (activations.swish, F.silu),
    "swish_tensor": (lambda x: activations.swish(x, torch.ones((), dtype=x.dtype)), F.silu),
    "silu": (activations.silu, F.silu),
    "mish": (activations.mish, F.mish),
    "hardswish": (activations.hardswish, F.hardswish),
}
OWN = {
    "gelu_sigmoid": lambda x: activations.gelu(x, "sigmoid"),
    "swish_soft": lambda x: activations.swish(x, 0.6),
    "swish_sharp": lambda x: activations.swish(x, 3.0),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CURVES)
def test_curve_is_torchs(name: str, dtype: torch.dtype) -> None:
    assert_same_curve(*CURVES[name], dtype)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", [*CURVES, *OWN])
def test_derivatives(name: str) -> None:
    curve = OWN[name] if name in OWN else CURVES[name][0]
    assert_differentiable(curve, (-3.0, 3.0))


@pytest.mark.parametrize("beta", [0.2, 1.0, 1.702, 30.0])
@pytest.mark.parametrize("dtype", FLOATS)
def test_swish_is_silu_rescaled(beta: float, dtype: torch.dtype) -> None:
    """beta swish_beta(x) = silu(beta x)."""
    x = X[::1000].to(dtype)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        activations.swish(x, beta), F.silu(beta * x.double()).to(dtype) / beta,
        rtol=3 * eps * (1 + 8 * beta), atol=eps,
    )  # fmt: skip


@pytest.mark.parametrize("beta", [1.0, 10.0, 1000.0])
def test_swish_comes_to_relu(beta: float) -> None:
    """The largest gap is W(1/e) / beta, at beta x = 1 + W(1/e)."""
    gap = (activations.swish(X / beta, beta) - activations.relu(X / beta)).abs().max().item()
    assert gap * beta == pytest.approx(0.27846454276107, rel=1e-7)


def test_swish_with_beta_0_is_half_of_x() -> None:
    assert torch.equal(activations.swish(X, 0.0), X / 2)


def test_errors_of_gelus_approximations() -> None:
    exact = X * torch.special.ndtr(X)
    torch.testing.assert_close(activations.gelu(X), exact, rtol=1e-13, atol=1e-13)
    for form, largest in (("sigmoid", 0.020335), ("tanh", 4.732e-4)):
        error = (activations.gelu(X, form) - exact).abs().max().item()
        assert error == pytest.approx(largest, rel=1e-4)


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), per_channel=st.booleans())
def test_beta_is_learned(shape: list[int], per_channel: bool) -> None:
    """d swish / d beta = x^2 s (1 - s), summed over where beta serves."""
    x = random.normal(random.key(0), shape, torch.float64)
    beta = random.normal(random.key(1), shape[-1:] if per_channel else (), torch.float64)
    found = grad(lambda beta: activations.swish(x, beta).sum())(beta)
    gate = torch.sigmoid(beta * x)
    wanted = (x**2 * gate * (1 - gate)).sum_to_size(beta.shape)
    torch.testing.assert_close(found, wanted)


def test_beta_in_lanes_and_twice_differentiated() -> None:
    betas = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    x = random.normal(random.key(0), (4,), torch.float64)
    lanes = vmap(activations.swish, in_dims=(None, 0))(x, betas)
    assert torch.equal(lanes, torch.stack([activations.swish(x, beta) for beta in betas]))
    beta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    inputs = x.clone().requires_grad_(), beta
    assert torch.autograd.gradcheck(activations.swish, inputs)
    assert torch.autograd.gradgradcheck(activations.swish, inputs)


def test_huge_inputs_leave_beta_alone() -> None:
    for x in (1e30, -1e30, 1e200):
        x_wide = torch.tensor(x, dtype=torch.float64)
        slope = grad(lambda beta, x=x_wide: activations.swish(x, beta))(torch.ones_like(x_wide))
        assert slope.item() == 0


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_hessian() -> None:
    x = X[::20_000]
    for curve in (*OWN.values(), *(ours for ours, _ in CURVES.values())):
        found = hessian(lambda x, curve=curve: curve(x).sum())(x)
        torch.testing.assert_close(found, torch.diag(vmap(grad(grad(curve)))(x)))


def test_layers_of_torch_agree() -> None:
    x = X[::5000].float()
    layers: dict[nn.Module, Tensor] = {
        nn.GELU("tanh"): activations.gelu(x, "tanh"),
        nn.SiLU(): activations.silu(x),
        nn.Mish(): activations.mish(x),
        nn.Hardswish(): activations.hardswish(x),
    }
    assert all(torch.equal(layer(x), ours) for layer, ours in layers.items())


def test_unknown_approximation_is_named() -> None:
    with pytest.raises(ValueError, match="one of none, tanh, sigmoid, got 'erf'"):
        activations.gelu(X, "erf")
