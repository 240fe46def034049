"""`fdnn.random` against `jax.random` itself, over seeds, shapes, dtypes and parameters.

Bit for bit wherever only integers and exact operations are involved. Elsewhere the last places
may differ, and `assert_close` says by how many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fdnn import random

jax = pytest.importorskip("jax")
jnp = jax.numpy

FLOATS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
SIGNED = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}

seeds = st.integers(0, 2**32 - 1)
# Few shapes, because JAX compiles for each.
shapes = st.sampled_from([(), (0,), (2, 1, 5), (300,)])
floats = st.sampled_from(sorted(FLOATS))
lengths = st.sampled_from([0, 1, 2, 9, 1700])


def wide(dtype: str) -> Any:
    return jax.enable_x64(dtype.endswith("64"))


def to_numpy(x: Tensor | Any) -> np.ndarray:
    if not isinstance(x, Tensor):
        return np.asarray(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x)
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def assert_same(ours: Tensor, theirs: Any) -> None:
    a, b = to_numpy(ours), to_numpy(theirs)
    assert a.shape == b.shape
    np.testing.assert_array_equal(a, b)


def assert_close(ours: Tensor, theirs: Any, places: float, conditioning: bool = False) -> None:
    """Equal up to `places` units in the last place of max(1, |x|).

    `erfinv` magnifies an error in its argument by exp(x**2 / 2), which `conditioning` grants.
    """
    a, b = to_numpy(ours).astype(np.float64), to_numpy(theirs).astype(np.float64)
    assert a.shape == b.shape
    allowed = places * torch.finfo(ours.dtype).eps * np.maximum(1, np.abs(b))
    if conditioning:
        allowed = allowed * np.exp(b**2 / 2)
    np.testing.assert_array_less(np.abs(a - b), allowed + 1e-300)


@given(st.integers(-(2**63), 2**63 - 1))
def test_key(seed: int) -> None:
    theirs = jax.random.key_data(jax.random.key(seed))
    assert random.key(seed).tolist() == theirs.tolist()
    assert random.key(torch.tensor(seed)).tolist() == theirs.tolist()


@given(seeds, st.sampled_from([0, 1, 2, 5, (2, 3), (), (4, 0), 1000]))
def test_split(seed: int, num: int | tuple[int, ...]) -> None:
    theirs = jax.random.key_data(jax.random.split(jax.random.key(seed), num))
    assert_same(random.split(random.key(seed), num), theirs)


@given(seeds, seeds)
def test_fold_in(seed: int, data: int) -> None:
    theirs = jax.random.key_data(jax.random.fold_in(jax.random.key(seed), np.uint32(data)))
    assert_same(random.fold_in(random.key(seed), data), theirs)
    assert_same(random.fold_in(random.key(seed), torch.tensor(data)), theirs)


@given(seeds, shapes, st.sampled_from(["uint8", "uint16", "uint32", "uint64"]))
def test_bits(seed: int, shape: tuple[int, ...], dtype: str) -> None:
    with wide(dtype):
        theirs = jax.random.bits(jax.random.key(seed), shape, dtype)
        assert_same(random.bits(random.key(seed), shape, getattr(torch, dtype)), theirs)


@given(seeds, shapes, floats)
def test_uniform(seed: int, shape: tuple[int, ...], dtype: str) -> None:
    with wide(dtype):
        theirs = jax.random.uniform(jax.random.key(seed), shape, dtype)
        assert_same(random.uniform(random.key(seed), shape, FLOATS[dtype]), theirs)


@given(seeds, floats, st.integers(-64, 64), st.sampled_from([-8.0, 0.25, 1.0, 2.0, 4.0]))
def test_uniform_between_bounds_where_scaling_is_exact(
    seed: int, dtype: str, low: int, span: float
) -> None:
    with wide(dtype):
        theirs = jax.random.uniform(jax.random.key(seed), (50,), dtype, low, low + span)
        ours = random.uniform(random.key(seed), (50,), FLOATS[dtype], low, low + span)
        assert_same(ours, theirs)


@given(seeds, st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32))
def test_uniform_between_bounds(seed: int, low: float, high: float) -> None:
    # JAX's compiler fuses the product and the sum, which saves it one rounding of the product;
    # the product and both bounds are at most |low| + |high|.
    ours = random.uniform(random.key(seed), (50,), torch.float32, low, high)
    theirs = to_numpy(jax.random.uniform(jax.random.key(seed), (50,), "float32", low, high))
    place = torch.finfo(torch.float32).eps * (abs(low) + abs(high))
    np.testing.assert_array_less(np.abs(ours.numpy() - theirs), place + 1e-40)
    # Rounded twice, it is what we return, to the bit.
    u = to_numpy(jax.random.uniform(jax.random.key(seed), (50,)))
    a, b = np.float32(low), np.float32(high)
    np.testing.assert_array_equal(ours.numpy(), np.maximum(a, u * (b - a) + a))


@given(seeds, st.floats(0, 1), shapes, floats)
def test_bernoulli(seed: int, p: float, shape: tuple[int, ...], dtype: str) -> None:
    with wide(dtype):
        theirs = jax.random.bernoulli(jax.random.key(seed), jnp.asarray(p, dtype), shape)
        ours = random.bernoulli(random.key(seed), torch.tensor(p, dtype=FLOATS[dtype]), shape)
        assert_same(ours, theirs)


@given(seeds, st.floats(0, 1))
def test_bernoulli_of_a_python_number(seed: int, p: float) -> None:
    theirs = jax.random.bernoulli(jax.random.key(seed), p, (40,))
    assert_same(random.bernoulli(random.key(seed), p, (40,)), theirs)


@given(seeds, st.data(), st.sampled_from(sorted(SIGNED)))
def test_randint(seed: int, data: st.DataObject, dtype: str) -> None:
    info = torch.iinfo(getattr(torch, dtype))
    # int8 and int16 have room for bounds outside: both libraries clip them.
    room = 0 if info.bits >= 32 else 100
    bound = st.integers(info.min - room, info.max + room) | st.sampled_from(
        [info.min, info.min + 1, -1, 0, 1, info.max - 1, info.max]
    )
    low, high = data.draw(bound), data.draw(bound)
    with wide(dtype):
        theirs = jax.random.randint(jax.random.key(seed), (60,), low, high, dtype)
        ours = random.randint(random.key(seed), (60,), low, high, getattr(torch, dtype))
        assert_same(ours, theirs)


@given(seeds, st.lists(st.integers(-(2**31), 2**31 - 1), min_size=6, max_size=6))
def test_randint_with_tensor_bounds(seed: int, bounds: list[int]) -> None:
    low, high = np.array(bounds[:3], np.int32), np.array(bounds[3:], np.int32)
    theirs = jax.random.randint(jax.random.key(seed), (4, 3), low, high)
    pair = torch.from_numpy(low), torch.from_numpy(high)
    assert_same(random.randint(random.key(seed), (4, 3), *pair), theirs)


@given(seeds, lengths)
def test_permutation_of_a_range(seed: int, n: int) -> None:
    assert_same(
        random.permutation(random.key(seed), n), jax.random.permutation(jax.random.key(seed), n)
    )


@given(seeds, st.sampled_from([(6,), (2, 3, 4), (40, 50)]), st.data())
def test_permutation_of_a_tensor(seed: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    independent = data.draw(st.booleans())
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    theirs = jax.random.permutation(jax.random.key(seed), x, axis, independent)
    ours = random.permutation(random.key(seed), torch.from_numpy(x), axis, independent)
    assert_same(ours, theirs)


# Probabilities in 64ths, so that their running sums are exact in any order of summation.
weights = st.lists(st.integers(0, 64), min_size=5, max_size=5).filter(lambda w: sum(w) > 0)


@given(seeds, st.booleans(), st.sampled_from([(), (3,), (2, 2), (0,)]), st.none() | weights)
def test_choice_of_a_number(
    seed: int, replace: bool, shape: tuple[int, ...], p: list[int] | None
) -> None:
    theirs = jax.random.choice(
        jax.random.key(seed), 5, shape, replace, None if p is None else jnp.array(p) / 64
    )
    ours = random.choice(
        random.key(seed), 5, shape, replace, None if p is None else torch.tensor(p) / 64
    )
    assert_same(ours, theirs)


@given(seeds, st.booleans(), st.sampled_from([-2, -1, 0, 1]), st.booleans())
def test_choice_of_slices(seed: int, replace: bool, axis: int, weighted: bool) -> None:
    a = np.arange(25.0, dtype=np.float32).reshape(5, 5)
    p = np.array([1, 0, 3, 2, 2], np.float32) / 8 if weighted else None
    theirs = jax.random.choice(jax.random.key(seed), a, (2, 1), replace, p, axis)
    tensor_p = None if p is None else torch.from_numpy(p)
    key = random.key(seed)
    assert_same(random.choice(key, torch.from_numpy(a), (2, 1), replace, tensor_p, axis), theirs)


@given(seeds, st.sampled_from([(5,), (3, 4), (2, 3, 4)]), st.data())
def test_categorical(seed: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    batch = shape[:axis] + shape[axis % len(shape) + 1 :]
    wanted = data.draw(st.sampled_from([None, batch, (6, *batch)]))
    logits = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    theirs = jax.random.categorical(jax.random.key(seed), logits, axis, wanted)
    ours = random.categorical(random.key(seed), torch.from_numpy(logits), axis, wanted)
    assert_same(ours, theirs)


@given(seeds, shapes, floats)
def test_normal(seed: int, shape: tuple[int, ...], dtype: str) -> None:
    with wide(dtype):
        theirs = jax.random.normal(jax.random.key(seed), shape, dtype)
        assert_close(random.normal(random.key(seed), shape, FLOATS[dtype]), theirs, 16, True)


@given(seeds)
def test_complex_normal(seed: int) -> None:
    theirs = np.asarray(jax.random.normal(jax.random.key(seed), (50,), "complex64"))
    ours = random.normal(random.key(seed), (50,), torch.complex64)
    assert_close(ours.real, jnp.asarray(theirs.real), 16, True)
    assert_close(ours.imag, jnp.asarray(theirs.imag), 16, True)


@given(seeds, floats, st.sampled_from([(-2.0, 2.0), (0.5, 1.0), (-3.0, -2.0), (-1.0, 3.0)]))
def test_truncated_normal(seed: int, dtype: str, bounds: tuple[float, float]) -> None:
    with wide(dtype):
        theirs = jax.random.truncated_normal(jax.random.key(seed), *bounds, (200,), dtype)
        ours = random.truncated_normal(random.key(seed), *bounds, (200,), FLOATS[dtype])
        assert_close(ours, theirs, 16, True)


@given(seeds, shapes, floats)
def test_gumbel(seed: int, shape: tuple[int, ...], dtype: str) -> None:
    with wide(dtype):
        theirs = jax.random.gumbel(jax.random.key(seed), shape, dtype)
        assert_close(random.gumbel(random.key(seed), shape, FLOATS[dtype]), theirs, 8)


@given(seeds, shapes, floats)
def test_exponential(seed: int, shape: tuple[int, ...], dtype: str) -> None:
    with wide(dtype):
        theirs = jax.random.exponential(jax.random.key(seed), shape, dtype)
        ours = random.exponential(random.key(seed), shape, FLOATS[dtype])
        # XLA's log1p in float64 is off by up to 64 places.
        assert_close(ours, theirs, 128 if dtype == "float64" else 2)
