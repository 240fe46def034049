"""Layer, RMS and group norm, and weight standardization, against torch and the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import grad, vmap

import fdnn
from fdnn import random
from fdnn.normalization import group_norm, layer_norm, rms_norm, weight_standardize

DOUBLE = torch.float64


def draw(seed: int, *shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return (2 * random.normal(random.key(seed), shape, DOUBLE) + 1).to(dtype)


def standardized(x: Tensor, dims: list[int], eps: float) -> Tensor:
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (var + eps).sqrt()


def plain_group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    grouped = x.unflatten(1, (2, -1))
    y = standardized(grouped, list(range(2, grouped.ndim)), 1e-3).flatten(1, 2)
    each = (-1, *[1] * (x.ndim - 2))
    return y * weight.view(each) + bias.view(each)


# The function, torch's module, the formula, and the shapes of the input and of the parameters.
Case = tuple[Callable[..., Tensor], nn.Module, Callable[..., Tensor], tuple[int, ...], Any]
CASES: dict[str, Case] = {
    "layer norm": (
        lambda x, w, b: layer_norm(x, 4, w, b, 1e-3),
        nn.LayerNorm(4, 1e-3),
        lambda x, w, b: standardized(x, [-1], 1e-3) * w + b,
        (3, 2, 4),
        [(4,), (4,)],
    ),
    "layer norm of a matrix": (
        lambda x, w, b: layer_norm(x, (3, 4), w, b),
        nn.LayerNorm((3, 4)),
        lambda x, w, b: standardized(x, [-1, -2], 1e-5) * w + b,
        (5, 3, 4),
        [(3, 4), (3, 4)],
    ),
    "rms norm": (
        lambda x, w: rms_norm(x, [4], w, 1e-3),
        nn.RMSNorm(4, 1e-3),
        lambda x, w: x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * w,
        (3, 2, 4),
        [(4,)],
    ),
    "rms norm by default": (
        lambda x, w: rms_norm(x, (3, 4), w),
        nn.RMSNorm((3, 4)),
        lambda x, w: x / (x.square().mean((-1, -2), keepdim=True) + 2**-52).sqrt() * w,
        (5, 3, 4),
        [(3, 4)],
    ),
    "group norm": (
        lambda x, w, b: group_norm(x, 2, w, b, 1e-3),
        nn.GroupNorm(2, 4, 1e-3),
        plain_group_norm,
        (3, 4, 2, 3),
        [(4,), (4,)],
    ),
    "group norm without positions": (
        lambda x, w, b: group_norm(x, 2, w, b, 1e-3),
        nn.GroupNorm(2, 4, 1e-3),
        plain_group_norm,
        (3, 4),
        [(4,), (4,)],
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def arguments(case: Case, seed: int = 0, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, ...]:
    _, _, _, shape, parameters = case
    return tuple(draw(seed + i, *s, dtype=dtype) for i, s in enumerate((shape, *parameters)))


def module_output(module: nn.Module, x: Tensor, *parameters: Tensor) -> Tensor:
    values = dict(zip(("weight", "bias"), parameters, strict=False))
    return torch.func.functional_call(module, values, x)


def curvature(fn: Callable[..., Tensor], count: int) -> Callable[..., Any]:
    """Derivatives of the squared norm of the derivatives of a sum of cubes."""
    every = tuple(range(count))

    def slope(*args: Tensor) -> Tensor:
        return sum(g.square().sum() for g in grad(lambda *a: fn(*a).pow(3).sum(), every)(*args))

    return grad(slope, every)


@every_case
def test_values_are_torchs_and_the_formulas(case: Case) -> None:
    fn, module, formula, _, _ = case
    args = arguments(case)
    assert_close(fn(*args), module_output(module, *args), rtol=1e-14, atol=1e-14)
    assert_close(fn(*args), formula(*args), rtol=1e-12, atol=1e-12)


@every_case
def test_derivatives_are_the_formulas(case: Case) -> None:
    fn, _, formula, _, _ = case
    args = arguments(case)
    every = tuple(range(len(args)))
    slopes = [grad(lambda *a, f=f: f(*a).pow(3).sum(), every)(*args) for f in (fn, formula)]
    assert_close(*slopes, rtol=1e-11, atol=1e-10)
    curvatures = [curvature(f, len(args))(*args) for f in (fn, formula)]
    assert_close(*curvatures, rtol=1e-9, atol=1e-7)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_dtypes_are_torchs(case: Case, dtype: torch.dtype) -> None:
    fn, module, _, _, _ = case
    args = arguments(case, dtype=dtype)
    assert fn(*args).dtype is dtype
    assert_equal(fn(*args), module_output(module, *args))


@every_case
def test_derivatives_of_lanes_are_those_of_runs_alone(case: Case) -> None:
    fn, _, _, _, _ = case
    lanes = [arguments(case, 10 * i) for i in range(3)]
    bend = curvature(fn, len(lanes[0]))
    stacked = vmap(bend)(*fdnn.tree.stack(lanes))
    assert_close(stacked, fdnn.tree.stack([bend(*args) for args in lanes]), rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("shape", [[100, 200], [3, 100, 200]], ids=str)
def test_layer_norm_of_the_chapters_images(shape: list[int]) -> None:
    images = random.uniform(random.key(0), (32, 3, 100, 200))
    y = layer_norm(images, shape)
    assert_equal(y, nn.LayerNorm(shape, elementwise_affine=False)(images))
    each = y.flatten(-len(shape)).double()
    assert each.mean(-1).abs().max() < 1e-5
    assert (each.var(-1, correction=0) - 1).abs().max() < 1e-3  # 1e-5 / (1 / 12), and rounding
    assert_equal(layer_norm(images[5:6], shape), y[5:6])  # the batch does not matter


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), last=st.integers(1, 4))
@settings(max_examples=25)
def test_any_shape_of_layer_norm(shape: list[int], last: int) -> None:
    x = draw(0, *shape)
    trailing = shape[-min(last, len(shape)) :]
    dims = [-1 - i for i in range(len(trailing))]
    assert_close(layer_norm(x, trailing), standardized(x, dims, 1e-5), rtol=1e-11, atol=1e-11)
    root = (x.square().mean(dims, keepdim=True) + 0.1).sqrt()
    assert_close(rms_norm(x, trailing, eps=0.1), x / root, rtol=1e-12, atol=1e-12)


def test_one_group_and_as_many_groups_as_channels() -> None:
    x = draw(0, 2, 4, 3, 5)
    assert_close(group_norm(x, 1), layer_norm(x, (4, 3, 5)), rtol=1e-12, atol=1e-12)
    instance = nn.functional.instance_norm(x)
    assert_close(group_norm(x, 4), instance, rtol=1e-12, atol=1e-12)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.floats(1e-3, 1e3))
@settings(max_examples=25)
def test_weight_standardize_is_its_formula(shape: list[int], scale: float) -> None:
    shape[1] += 1
    weight = scale * draw(0, *shape)
    dims = list(range(1, len(shape)))
    found = weight_standardize(weight, eps=1e-12)
    assert_close(found, standardized(weight, dims, 1e-12), rtol=1e-10, atol=1e-10)
    assert_close(found.mean(dims), torch.zeros(shape[0], dtype=DOUBLE), rtol=0, atol=1e-9)
    assert (found.var(dims, correction=0) - 1).abs().max() < 1e-3


def test_weight_standardize_in_closed_form() -> None:
    """The biased variance of 0, 2, 4, 6 is 5, their mean 3; `eps` is inside of the root."""
    weight = torch.tensor([[[0.0, 2.0], [4.0, 6.0]]], dtype=DOUBLE)
    wanted = torch.tensor([[[-3.0, -1.0], [1.0, 3.0]]], dtype=DOUBLE)
    for eps in (1e-10, 4.0):
        found = weight_standardize(weight, eps=eps)
        assert_close(found, wanted / math.sqrt(5 + eps), rtol=1e-14, atol=0)


def test_gradient_through_weight_standardize() -> None:
    """It has no part along the mean of an output's weights, and none along the weights."""
    weight, pull = draw(0, 3, 4, 2), draw(1, 3, 4, 2)
    found = grad(lambda w: (weight_standardize(w) * pull).sum())(weight)
    assert found.abs().max() > 0.05
    assert found.sum((1, 2)).abs().max() < 1e-13
    assert (found * weight).sum((1, 2)).abs().max() < 1e-8  # eps


def test_a_constant_weight_is_zero_and_not_nan() -> None:
    for dtype in (torch.float32, torch.float16):
        weight = torch.full((2, 3), 0.5, dtype=dtype)
        assert (weight_standardize(weight) == 0).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: layer_norm(x, 3), r"`normalized_shape` must .* got \[3\] for shape \(2, 4\)"),
        (lambda x: rms_norm(x, (3, 2, 4)), r"`normalized_shape` must .* got \[3, 2, 4\]"),
        (lambda x: layer_norm(x, []), r"`normalized_shape` must .* got \[\]"),
        (lambda x: group_norm(x, 3), "`num_groups` must divide the 4 channels of `x`, got 3"),
        (lambda x: group_norm(x, 0), "`num_groups` must divide the 4 channels of `x`, got 0"),
        (lambda x: group_norm(x[0], 2), r"`x` must have at least 2 dimensions, got shape \(4,\)"),
        (lambda x: weight_standardize(x[0]), r"`weight` must have at least 2 .* got \(4,\)"),
    ],
)
def test_errors(call: Callable[[Tensor], Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(torch.zeros(2, 4))
