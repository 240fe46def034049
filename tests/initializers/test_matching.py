"""Weights that go with an activation: variances, warnings, and what happens to deep signals."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import activations, initializers, random
from fdnn.initializers import for_activation, matching_variance, variance_mismatch

KEY = random.key(3)
GATE = 5.0  # standard errors
SHAPE = (300, 200)
FAMILIES = {
    "he": [
        *("relu", "elu", "celu", "gelu", "silu", "swish", "mish", "hardswish", "softplus"),
        *("relu_squared", "glu", "swiglu", "geglu", "reglu"),
    ],
    "lecun": ["selu"],
    "glorot": ["tanh", "hardtanh", "sigmoid", "softmax", "linear", "identity"],
}
LEAKY = {"leaky_relu": 0.01, "prelu": 0.25, "rrelu": 11 / 48}


def bits(initializer, shape=SHAPE) -> list[float]:
    return initializer(KEY, shape, torch.float64).flatten().tolist()


def test_every_activation_has_weights() -> None:
    known = {name for names in FAMILIES.values() for name in names} | set(LEAKY)
    assert set(activations.__all__) <= known
    for name in known:
        for_activation(name)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, distribution: str) -> None:
    wanted = bits(getattr(initializers, f"{family}_{distribution}")())
    for name in FAMILIES[family]:
        assert bits(for_activation(name, distribution=distribution)) == wanted, name


@pytest.mark.parametrize("name", LEAKY)
def test_slopes_lessen_the_variance(name: str) -> None:
    for slope, given_slope in ((LEAKY[name], None), (0.2, 0.2), (0.0, 0.0)):
        found = bits(for_activation(name, negative_slope=given_slope, mode="fan_out"))
        assert found == bits(initializers.he_normal(slope, "fan_out"))
    assert matching_variance(name, (1, 1), negative_slope=0.2) == pytest.approx(1.923, abs=5e-4)


@given(
    name=st.sampled_from([*LEAKY, *(name for names in FAMILIES.values() for name in names)]),
    mode=st.sampled_from(["fan_in", "fan_out", "fan_avg"]),
    distribution=st.sampled_from(["normal", "uniform", "truncated_normal"]),
)
def test_variance_is_the_one_told(name: str, mode: str, distribution: str) -> None:
    weight = for_activation(name, mode=mode, distribution=distribution)(KEY, SHAPE)
    told = matching_variance(name, SHAPE, mode=mode)
    # The variance of s^2 is at most that of normal draws.
    error = told * math.sqrt(2 / weight.numel())
    assert abs(weight.double().square().mean().item() - told) < GATE * error


def test_torchs_default_times_6_is_he_and_times_3_lecun() -> None:
    default = initializers.torch_default(nn.Linear(200, 300))["weight"]
    unit = torch.tensor(bits(default), dtype=torch.float64)
    he = torch.tensor(bits(initializers.he_uniform()), dtype=torch.float64)
    lecun = torch.tensor(bits(initializers.lecun_uniform()), dtype=torch.float64)
    torch.testing.assert_close(math.sqrt(6) * unit, he, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(math.sqrt(3) * unit, lecun, rtol=1e-13, atol=1e-15)
    error = math.sqrt(0.8 / unit.numel())  # of the variance of uniform draws, relatively
    assert abs(unit.square().mean().item() * 3 * 200 - 1) < GATE * error


# Mismatches.


@pytest.mark.parametrize(
    ("name", "scale", "found"),
    [
        ("selu", 1.0, None),
        ("selu", 2.0, "2 times what suits selu, so deep signals grow"),
        ("relu", 2.0, None),
        ("relu", 1.0, "0.5 times what suits relu, so deep signals fade"),
        ("relu", 1 / 3, "0.167 times what suits relu"),
        ("relu", 0.0, "0 times what suits relu"),
        ("linear", 2.0, "2 times what suits linear, so deep signals grow"),
        ("tanh", 25 / 9, None),
        ("tanh", 100.0, "100 times what suits tanh, so deep signals saturate"),
        ("sigmoid", 16.0, None),
        ("softmax", 1 / 3, None),
        ("softmax", 2.0, None),
        ("relu_squared", 1.0, None),
    ],
)
def test_mismatch(name: str, scale: float, found: str | None) -> None:
    said = variance_mismatch(name, scale / 300, (300, 300))
    assert said is None if found is None else found in str(said)


@given(
    name=st.sampled_from([*LEAKY, *(name for names in FAMILIES.values() for name in names)]),
    mode=st.sampled_from(["fan_in", "fan_out", "fan_avg"]),
    shape=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    slope=st.floats(0, 1),
)
def test_what_matches_is_no_mismatch(name: str, mode: str, shape: list[int], slope: float) -> None:
    variance = matching_variance(name, shape, mode=mode, negative_slope=slope)
    assert variance_mismatch(name, variance, shape, negative_slope=slope) is None
    assert variance_mismatch(name, variance / 1e4, shape, negative_slope=slope)
    assert variance_mismatch(name, variance * 1e4, shape, negative_slope=slope)


def test_another_family_is_honoured_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="`family` should be 'lecun' for selu, got 'he': the var"):
        drawn = for_activation("selu", "he")
    assert bits(drawn) == bits(initializers.he_normal())
    with pytest.warns(UserWarning, match="deep signals fade"):
        for_activation("relu", "glorot")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bits(for_activation("selu", "glorot")) == bits(initializers.glorot_normal())
        for_activation("selu", "lecun")
        for_activation("tanh", "he")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: for_activation("rellu"), r"`name` must be one of celu, .*, tanh, got 'rellu'"),
        (lambda: for_activation("relu", "xavier"), "one of he, lecun, glorot, got 'xavier'"),
        (lambda: for_activation("relu", mode="in"), "`mode` must be one of .*, got 'in'"),
        (lambda: for_activation("tanh", distribution="flat"), "`distribution` must .* 'flat'"),
        (lambda: matching_variance("relu", (3,)), r"at least 2 dimensions, got \(3,\)"),
        (lambda: matching_variance("relu", (3, 3), mode="in"), "`mode` must be .*, got 'in'"),
        (lambda: variance_mismatch("rellu", 1.0, (3, 3)), "`name` must be .* got 'rellu'"),
    ],
)
def test_mistakes_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# What the variances do to a signal: h -> f(W h), W of variance scale / width. Given h, every
# W h is N(0, scale |h|^2 / width), so the mean square q of a layer of infinite width follows
# q -> E[f(sqrt(scale q) z)^2], and one of n units strays from it by its own sampling error.


class Law(NamedTuple):
    """After some layers: the mean square, and the mean and variance of its logarithm's error."""

    q: float
    drift: float
    variance: float


NODES, WEIGHTS = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(100))
Z = torch.cat([-6.5 * (NODES + 1), 6.5 * (NODES + 1)])
DENSITY = 6.5 * WEIGHTS.repeat(2) * torch.exp(-(Z**2) / 2) / math.sqrt(2 * math.pi)


def law(fn, scale: float, depth: int, width: int) -> Law:
    q, drift, variance = 1.0, 0.0, 0.0
    for _ in range(depth):
        x = (math.sqrt(scale * q) * Z).requires_grad_()
        square = fn(x) ** 2
        (slope,) = torch.autograd.grad((DENSITY * square).sum(), x)
        square = square.detach()
        after = (DENSITY * square).sum().item()
        # d log q' / d log q: how much of a layer's error reaches the next.
        passed = (slope * x.detach()).sum().item() / 2 / after
        own = ((DENSITY * square**2).sum().item() / after**2 - 1) / width
        q, drift, variance = after, passed * drift - own / 2, passed**2 * variance + own
    return Law(q, drift, variance)


WIDTH, DEPTH, LANES = 300, 60, 8


def deep(fn, initializer) -> Tensor:
    """The mean square of the last of DEPTH layers, in LANES networks with one input each."""

    def layer(h: Tensor, key: Tensor) -> Tensor:
        return fn(initializer(key, (WIDTH, WIDTH)) @ h)

    h = random.normal(KEY, (LANES, WIDTH))
    h = h / h.square().mean(1, keepdim=True).sqrt()
    for keys in random.split(random.fold_in(KEY, 1), DEPTH * LANES).reshape(DEPTH, LANES, 2):
        h = vmap(layer)(h, keys)
    return h.double().square().mean(1)


@pytest.mark.parametrize(
    ("name", "scale", "deep_q"),
    [
        ("selu", 1.0, 1.0),
        ("selu", 2.0, 4.4e3),
        ("relu", 2.0, 1.0),
        ("leaky_relu", 2 / (1 + 0.01**2), 1.0),
        ("relu", 1.0, 0.5**DEPTH),
        ("elu", 2.0, 23.0),
        ("silu", 2.0, 1e-17),
    ],
)
def test_depth(name: str, scale: float, deep_q: float) -> None:
    fn = getattr(activations, name)
    predicted = law(fn, scale, DEPTH, WIDTH)
    assert abs(math.log(predicted.q / deep_q)) < 1
    initializer = initializers.variance_scaling(scale, "fan_in", "normal")
    if variance_mismatch(name, scale, (1, 1)) is None:
        assert bits(initializer) == bits(for_activation(name))
    found = deep(fn, initializer).log().mean().item()
    error = math.sqrt(predicted.variance / LANES)
    assert abs(found - math.log(predicted.q) - predicted.drift) < GATE * error
    assert error < 0.5


def test_a_thousand_layers_of_selu() -> None:
    """With He the standard deviation ends at 6.6e21, says a notebook; with LeCun at 1.00."""
    lecun = law(activations.selu, 1.0, 1000, WIDTH)
    assert lecun.q == pytest.approx(1, abs=1e-9)
    he = law(activations.selu, 2.0, 1000, WIDTH)
    # Far out selu is lambda times relu, so He's doubling leaves lambda^2 a layer.
    before = law(activations.selu, 2.0, 999, WIDTH)
    assert he.q / before.q == pytest.approx(1.0507009873554805**2, rel=1e-6)
    off = 2 * math.log(6.6e21) - math.log(he.q) - he.drift
    assert abs(off) < 3 * math.sqrt(he.variance)


def test_second_moments_of_the_docstring() -> None:
    assert law(activations.relu, 2.0, 1, WIDTH).q == pytest.approx(1.0, rel=1e-12)
    assert law(activations.silu, 2.0, 1, WIDTH).q == pytest.approx(0.80, abs=5e-3)
    q = 1e-8  # small, where silu is x / 2
    small = (DENSITY * activations.silu(math.sqrt(2 * q) * Z) ** 2).sum().item()
    assert small / q == pytest.approx(0.5, rel=1e-3)
