"""Every draw under every transform: the registry `DRAWS` crossed with what a draw promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, vmap

from fdnn import random

KEY = random.key(20)
KEYS = random.split(KEY, 6)


class Draw(NamedTuple):
    """`call(key, *tensors)`; `places` is how far compiled code may be off, in the last place."""

    call: Callable[..., Tensor]
    tensors: tuple[Tensor, ...] = ()
    places: float = 0


def draw(name: str, *args: Any, places: float = 0, **kwargs: Any) -> Draw:
    """A function of `fdnn.random`; its tensor arguments are the draw's `tensors`."""
    tensors = tuple(arg for arg in args if isinstance(arg, Tensor))

    def call(key: Tensor, *given: Tensor) -> Tensor:
        rest = iter(given)
        chosen = [next(rest) if isinstance(arg, Tensor) else arg for arg in args]
        return getattr(random, name)(key, *chosen, **kwargs)

    return Draw(call, tensors, places)


def cipher(key: Tensor, counter: Tensor) -> Tensor:
    k0, k1 = key.to(torch.int32)
    return torch.stack(random.threefry2x32(k0, k1, counter, counter + 1))


GRID = torch.arange(12.0).reshape(4, 3)
LOW, HIGH = torch.tensor([[-1.0], [0.5]]), torch.tensor([1.0, 2.0, 7.0])
P = torch.tensor([0.1, 0.0, 0.6, 0.3])
SHAPE = (2, 3)
FEW, MANY = 4, 64  # last places: of a sum or product fused or not; of erfinv, log and log1p

DRAWS: dict[str, Draw] = {
    "key": Draw(lambda key, seed: random.key(seed + key[0]), (torch.tensor(5),)),
    "threefry2x32": Draw(cipher, (torch.arange(4, dtype=torch.int32),)),
    "split": draw("split", 3),
    "split_shape": draw("split", (2, 2)),
    "fold_in": draw("fold_in", 7),
    "fold_in_tensor": draw("fold_in", torch.tensor(7)),
    **{f"bits_{n}": draw("bits", SHAPE, getattr(torch, f"uint{n}")) for n in (8, 16, 32, 64)},
    "uniform": draw("uniform", SHAPE),
    "uniform_64": draw("uniform", SHAPE, torch.float64),
    "uniform_16": draw("uniform", SHAPE, torch.float16),
    "uniform_brain": draw("uniform", SHAPE, torch.bfloat16),
    "uniform_between": draw("uniform", SHAPE, torch.float32, -3.0, 0.7, places=FEW),
    "uniform_tensors": draw("uniform", SHAPE, torch.float32, LOW, HIGH, places=FEW),
    "normal": draw("normal", SHAPE, places=MANY),
    "normal_64": draw("normal", SHAPE, torch.float64, places=MANY),
    "normal_16": draw("normal", SHAPE, torch.float16, places=FEW),
    "normal_brain": draw("normal", SHAPE, torch.bfloat16, places=FEW),
    "normal_complex": draw("normal", SHAPE, torch.complex64, places=MANY),
    "truncated_normal": draw("truncated_normal", -1.0, 2.0, SHAPE, places=MANY),
    "truncated_normal_tensors": draw("truncated_normal", LOW, HIGH, places=MANY),
    "exponential": draw("exponential", SHAPE, places=MANY),
    "gumbel": draw("gumbel", SHAPE, places=MANY),
    "bernoulli": draw("bernoulli", 0.3, (40,)),
    "bernoulli_tensor": draw("bernoulli", torch.rand(2, 20, generator=torch.Generator())),
    "randint": draw("randint", SHAPE, -5, 1000),
    "randint_8": draw("randint", SHAPE, -200, 100, torch.int8),
    "randint_64": draw("randint", SHAPE, 0, 10**15, torch.int64),
    "randint_tensors": draw("randint", SHAPE, LOW.int(), 1000 * HIGH.int()),
    "permutation": draw("permutation", 9),
    "permutation_rows": draw("permutation", GRID.repeat(3, 1)),
    "permutation_columns": draw("permutation", GRID.repeat(1, 3), -1, True),
    "choice": draw("choice", 1000, (3,)),
    "choice_rare": draw("choice", GRID.flatten(), (2, 2), False),
    "choice_weighted": draw("choice", 4, (12,), True, P),
    "choice_weighted_rare": draw("choice", GRID.repeat(1, 3), (5,), False, torch.ones(9) / 9, 1),
    "categorical": draw("categorical", GRID / 9, 0, (10, 3)),
}
every_draw = pytest.mark.parametrize("name", DRAWS)


def place(x: Tensor) -> float:
    return torch.finfo(x.dtype).eps if x.is_floating_point() or x.is_complex() else 0.0


def assert_same(found: Tensor, expected: Tensor, places: float = 0) -> None:
    """Equal to the bit, or up to so many last places of max(1, |x|)."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if not places:
        assert found.equal(expected)
        return
    allowed = places * place(expected) * expected.abs().clamp(min=1)
    assert ((found - expected).abs() <= allowed).all()


def run(name: str, key: Tensor) -> Tensor:
    """The draw under one key. torch's unsigned tensors compare, stack and batch as signed ones."""
    drawn = DRAWS[name].call(key, *DRAWS[name].tensors)
    signed = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
    return drawn.view(signed[drawn.dtype]) if drawn.dtype in signed else drawn


def test_every_function_is_registered() -> None:
    covered = {name for name in random.__all__ if any(draw.startswith(name) for draw in DRAWS)}
    assert covered == set(random.__all__)


@every_draw
def test_same_key_same_bits_and_nothing_touched(name: str) -> None:
    key, tensors = KEY.clone(), [x.clone() for x in DRAWS[name].tensors]
    state = torch.get_rng_state()
    first = run(name, key)
    kept = first.clone()
    assert run(name, key).equal(first)
    assert torch.get_rng_state().equal(state)
    assert key.equal(KEY)
    for given_tensor, before in zip(DRAWS[name].tensors, tensors, strict=True):
        assert given_tensor.equal(before)
    # A result is the caller's own: writing to it changes neither key, nor arguments, nor draws.
    first.zero_()
    assert run(name, key).equal(kept)


@pytest.mark.parametrize("shape", [(1,), (1, 3)])
@pytest.mark.parametrize("independent", [False, True])
def test_what_has_one_order_is_copied_too(shape: tuple[int, ...], independent: bool) -> None:
    x = torch.ones(shape)
    random.permutation(KEY, x, 0, independent).zero_()
    random.choice(KEY, x, (1,), False).zero_()
    assert x.equal(torch.ones(shape))


@every_draw
def test_global_generator_and_default_dtype_do_not_matter(name: str) -> None:
    expected = run(name, KEY)
    torch.manual_seed(123)
    torch.set_default_dtype(torch.float64)
    try:
        assert_same(run(name, KEY), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@every_draw
def test_different_keys_differ(name: str) -> None:
    drawn = [tuple(run(name, key).flatten().tolist()) for key in KEYS]
    assert len(set(drawn)) == len(drawn)


@every_draw
def test_vmap_over_keys_is_a_loop(name: str) -> None:
    loop = torch.stack([run(name, key) for key in KEYS])
    lanes = vmap(lambda key: run(name, key))(KEYS)
    assert_same(lanes, loop)
    in_chunks = vmap(lambda key: run(name, key), chunk_size=4)(KEYS)
    assert_same(in_chunks, loop)
    nested = vmap(vmap(lambda key: run(name, key)), in_dims=1, out_dims=1)(KEYS.reshape(2, 3, 2))
    assert_same(nested, loop.reshape(2, 3, *loop.shape[1:]))


TENSORS = sorted(name for name in DRAWS if DRAWS[name].tensors)


@pytest.mark.parametrize("name", TENSORS)
def test_vmap_over_arguments_is_a_loop(name: str) -> None:
    call, tensors, _ = DRAWS[name]
    # Other values of the same kind: turned along the first axis (a number: itself and one more).
    turned = [x.roll(1, 0) if x.ndim else x + 1 for x in tensors]
    stacked = [torch.stack(pair) for pair in zip(tensors, turned, strict=True)]
    loop = torch.stack([call(KEY, *tensors), call(KEY, *turned)])
    batched = (0,) * len(tensors)
    assert_same(vmap(call, (None, *batched))(KEY, *stacked), loop)
    both = torch.stack([call(KEYS[0], *tensors), call(KEYS[1], *turned)])
    assert_same(vmap(call, (0, *batched))(KEYS[:2], *stacked), both)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(0, 40), st.integers(1, 7))
def test_lanes_are_solo_runs(seed: int, lanes: int, size: int, chunk_size: int) -> None:
    keys = random.split(random.key(seed), lanes)
    batched = vmap(lambda key: random.uniform(key, (size,)), chunk_size=chunk_size)(keys)
    assert batched.equal(torch.stack([random.uniform(key, (size,)) for key in keys]))


@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_fold_in_walks_through_split(seed: int, n: int) -> None:
    key = random.key(seed)
    assert vmap(random.fold_in, (None, 0))(key, torch.arange(n)).equal(random.split(key, n))


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(0, 30))
def test_a_longer_draw_begins_with_the_shorter(seed: int, a: int, b: int) -> None:
    key, (short, long) = random.key(seed), sorted((a, b))
    assert random.bits(key, (long,))[:short].equal(random.bits(key, (short,)))
    assert random.uniform(key, (2, 3 * long)).flatten().equal(random.uniform(key, (6 * long,)))


def test_vmap_of_an_unbatched_key_repeats_the_draw() -> None:
    repeated = vmap(lambda x: x + random.uniform(KEY, SHAPE))(torch.zeros(3, 1))
    assert repeated.equal(random.uniform(KEY, SHAPE).expand(3, *SHAPE))


# Derivatives: a draw is differentiable in its bounds, and never in its key.


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_gradient_of_uniform() -> None:
    u = random.uniform(KEY, (50,), torch.float64)

    def total(low: Tensor, high: Tensor) -> Tensor:
        return random.uniform(KEY, (50,), torch.float64, low, high).sum()

    bounds = torch.tensor(-1.5, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    low, high = grad(total, (0, 1))(*bounds)
    close(low, (1 - u).sum())
    close(high, u.sum())


def test_gradient_of_truncated_normal() -> None:
    bounds = torch.tensor([-0.5, 0.3], dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)

    def total(low: Tensor, high: Tensor) -> Tensor:
        drawn = random.truncated_normal(KEY, low, high, (50, 2), torch.float64)
        return drawn.square().sum()

    gradients = grad(total, (0, 1))(*bounds)
    assert all(g.isfinite().all() and g.all() for g in gradients)
    assert torch.autograd.gradcheck(total, [b.requires_grad_() for b in bounds])


@pytest.mark.parametrize("name", ["uniform", "truncated_normal"])
def test_gradient_lanes_are_solo_gradients(name: str) -> None:
    def total(bound: Tensor, key: Tensor) -> Tensor:
        if name == "uniform":
            return random.uniform(key, (20,), torch.float64, bound, 3.0).square().sum()
        return random.truncated_normal(key, bound, 3.0, (20,), torch.float64).square().sum()

    bounds = torch.linspace(-1, 1, len(KEYS), dtype=torch.float64)
    solo = [grad(total)(bound, key) for bound, key in zip(bounds, KEYS, strict=True)]
    close(vmap(grad(total))(bounds, KEYS), torch.stack(solo))
    # One draw for all lanes: the bounds alone are batched.
    shared = torch.stack([grad(total)(bound, KEY) for bound in bounds])
    close(vmap(grad(total), (0, None))(bounds, KEY), shared)


def test_drawing_inside_a_gradient() -> None:
    x = torch.ones(5, dtype=torch.float64)

    def noisy(x: Tensor, key: Tensor) -> Tensor:
        dropped = torch.where(random.bernoulli(key, 0.5, x.shape), x, 0)
        return (dropped * random.normal(key, x.shape, x.dtype)).sum()

    for key in KEYS:
        kept = random.bernoulli(key, 0.5, x.shape)
        expected = torch.where(kept, random.normal(key, x.shape, x.dtype), 0)
        assert grad(noisy)(x, key).equal(expected)
    lanes = vmap(grad(noisy), (None, 0))(x, KEYS)
    assert lanes.equal(torch.stack([grad(noisy)(x, key) for key in KEYS]))


# Compiled: few compilations, each of many draws.

# inductor takes a second for each draw: one of every kind.
KINDS = [
    "split",
    "bits_8",
    "uniform_tensors",
    "truncated_normal_tensors",
    "bernoulli_tensor",
    "randint",
    "permutation_rows",
    "choice_weighted",
    "categorical",
]


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def draw_all(key: Tensor, names: list[str]) -> dict[str, Tensor]:
    return {name: run(name, random.fold_in(key, i)) for i, name in enumerate(names)}


@pytest.mark.usefixtures("fresh_dynamo")
def test_traced_whole_is_eager() -> None:
    names = list(DRAWS)
    state = torch.get_rng_state()
    solo = torch.compile(draw_all, fullgraph=True, dynamic=False, backend="aot_eager")
    loop = [draw_all(key, names) for key in KEYS[:2]]
    for key, expected in zip(KEYS, loop, strict=False):
        found = solo(key, names)
        for name in names:
            assert_same(found[name], expected[name])
    lanes = vmap(draw_all, (0, None))
    found = torch.compile(lanes, fullgraph=True, dynamic=False, backend="aot_eager")(
        KEYS[:2], names
    )
    for name in names:
        assert_same(found[name], torch.stack([x[name] for x in loop]))
    assert torch.get_rng_state().equal(state)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_is_eager() -> None:
    compiled = torch.compile(vmap(draw_all, (0, None)), fullgraph=True, dynamic=False)
    state = torch.get_rng_state()
    found = compiled(KEYS, KINDS)
    assert torch.get_rng_state().equal(state)
    solo = [draw_all(key, KINDS) for key in KEYS]
    for name in KINDS:
        assert_same(found[name], torch.stack([x[name] for x in solo]), DRAWS[name].places)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiled_gradient_is_eager() -> None:
    def total(bound: Tensor, key: Tensor) -> Tensor:
        first = random.uniform(key, (20,), torch.float64, bound, 3.0).square().sum()
        return first + random.truncated_normal(key, bound, 3.0, (20,), torch.float64).sum()

    bounds = torch.linspace(-1, 1, len(KEYS), dtype=torch.float64)
    lanes = vmap(grad(total))
    compiled = torch.compile(lanes, fullgraph=True, dynamic=False, backend="aot_eager")
    close(compiled(bounds, KEYS), lanes(bounds, KEYS))


@pytest.mark.usefixtures("fresh_dynamo")
@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_compiled_for_any_shape(seed: int, size: int) -> None:
    def pair(key: Tensor, size: int) -> Tensor:
        return random.uniform(key, (size,))

    compiled = torch.compile(pair, fullgraph=True, backend="aot_eager")
    key = random.key(seed)
    assert compiled(key, size).equal(pair(key, size))
