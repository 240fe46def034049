"""Gated linear units: which half gates, along which dimension, and what beta scales."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, vmap
from torch.func import grad, hessian

from fdnn import activations, random

Gated = Callable[..., Tensor]
# A unit, and its two factors: the linear half and the gate.
UNITS: dict[str, tuple[Gated, Callable[[Tensor, Tensor], Tensor]]] = {
    "glu": (activations.glu, lambda z1, z2: z1 * torch.sigmoid(z2)),
    "swiglu": (activations.swiglu, lambda z1, z2: F.silu(z1) * z2),
    "geglu": (activations.geglu, lambda z1, z2: F.gelu(z1) * z2),
    "reglu": (activations.reglu, lambda z1, z2: F.relu(z1) * z2),
}
every_unit = pytest.mark.parametrize("name", UNITS)


@every_unit
@given(data=st.data())
def test_halves(name: str, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
    shape[dim] *= 2
    z = random.normal(random.key(0), shape, dtype)
    unit, formula = UNITS[name]
    found = unit(z, dim=dim)
    assert found.dtype == dtype
    wanted = formula(*z.chunk(2, dim)) if z.shape[dim] else z
    torch.testing.assert_close(found, wanted)
    if dim in (-1, z.ndim - 1):
        assert torch.equal(unit(z), found)


@given(shape=st.lists(st.integers(1, 3), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_glu_is_torchs(shape: list[int], seed: int) -> None:
    dim = seed % len(shape)
    shape[dim] *= 2
    z = 3 * random.normal(random.key(seed), shape, torch.float64)
    torch.testing.assert_close(activations.glu(z, dim), F.glu(z, dim), rtol=1e-14, atol=1e-14)
    ours, theirs = (
        grad(lambda z, fn=fn: (fn(z, dim) ** 2).sum())(z) for fn in (activations.glu, F.glu)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_glu_is_torchs_at_the_ends() -> None:
    ends = torch.tensor([-math.inf, -1e30, 0.0, 2.0, 1e30, math.inf, math.nan])
    z = torch.cartesian_prod(ends, ends)
    torch.testing.assert_close(activations.glu(z), F.glu(z), equal_nan=True)
    for narrow in (torch.float32, torch.bfloat16):
        z = random.normal(random.key(0), (50, 20), narrow)
        torch.testing.assert_close(activations.glu(z), F.glu(z))


def test_the_second_half_gates_glu_and_the_first_the_others() -> None:
    open_, shut = torch.tensor([50.0]), torch.tensor([-50.0])
    value = torch.tensor([7.0])
    for name, (unit, _) in UNITS.items():
        for gate, wanted in ((open_, 7.0), (shut, 0.0)):
            halves = (value, gate) if name == "glu" else (gate, value)
            found = unit(torch.cat(halves)).item()
            size = 1.0 if name == "glu" else 50.0  # what passes an open gate, beside the value
            assert found == pytest.approx(wanted * size, abs=1e-12)


@pytest.mark.parametrize("beta", [0.2, 1.0, 2.5])
def test_silu_of_beta_z_is_beta_times_as_much(beta: float) -> None:
    z = random.normal(random.key(0), (7, 80), torch.float64)
    z1, z2 = z.chunk(2, -1)
    assert activations.swiglu(z, beta).shape == (7, 40)
    torch.testing.assert_close(F.silu(beta * z1) * z2, beta * activations.swiglu(z, beta))
    torch.testing.assert_close(z1 * torch.sigmoid(beta * z1) * z2, activations.swiglu(z, beta))


def test_beta_of_swiglu_is_learned_in_lanes() -> None:
    z = random.normal(random.key(0), (5, 8), torch.float64)
    betas = torch.tensor([0.2, 1.0], dtype=torch.float64)

    def loss(beta: Tensor) -> Tensor:
        return activations.swiglu(z, beta).sum()

    slopes = vmap(grad(loss))(betas)
    step = 1e-6
    for beta, slope in zip(betas, slopes, strict=True):
        rise = (loss(beta + step) - loss(beta - step)) / (2 * step)
        assert slope.item() == pytest.approx(rise.item(), rel=1e-6)
    channels = torch.rand(4, dtype=torch.float64, requires_grad=True)
    leaves = z.clone().requires_grad_(), channels
    assert torch.autograd.gradcheck(activations.swiglu, leaves)


@every_unit
def test_derivatives(name: str) -> None:
    z = random.normal(random.key(1), (3, 4), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(UNITS[name][0], z, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(UNITS[name][0], z, check_batched_grad=True)


@every_unit
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_hessian(name: str) -> None:
    """For which torch's own glu lacks a batching rule."""
    unit, z = UNITS[name][0], random.normal(random.key(1), (4,), torch.float64)
    found = hessian(lambda z: unit(z).sum())(z)
    step = 1e-5
    slope = grad(lambda z: unit(z).sum())
    for i, unit_vector in enumerate(torch.eye(4, dtype=torch.float64)):
        rise = (slope(z + step * unit_vector) - slope(z - step * unit_vector)) / (2 * step)
        torch.testing.assert_close(found[:, i], rise, rtol=1e-6, atol=1e-8)


@every_unit
def test_odd_sizes_are_refused(name: str) -> None:
    unit = UNITS[name][0]
    with pytest.raises(ValueError, match=r"`z` must have an even size along `dim` -1, got \(4, 3"):
        unit(torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"along `dim` -1, got \(\)"):
        unit(torch.ones(()))
    assert unit(torch.ones(4, 3), dim=0).shape == (2, 3)
