"""Streams give what all samples at once give, however the samples are cut into parts."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from asserts import assert_close
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import functionalize, random, tree, uncertainty
from fdnn.uncertainty import Stream, categorical_stream, gaussian_stream, streamed

DOUBLE = {"rtol": 1e-12, "atol": 1e-12}
STREAMS = {
    "probabilities": (categorical_stream(), uncertainty.categorical),
    "logits": (categorical_stream("logits"), lambda o: uncertainty.categorical(o, "logits")),
    "means": (gaussian_stream(0.5), lambda o: uncertainty.gaussian(o, 0.5)),
}
every_stream = pytest.mark.parametrize(("stream", "at_once"), STREAMS.values(), ids=STREAMS)


def draw(samples: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """With a mean that is large against the spread, which a sum of squares would not survive."""
    return 1e3 + random.normal(random.key(seed), (samples, 3, 4), dtype)


def run(stream: Stream, parts: list[Tensor]) -> Any:
    state = stream.init(parts[0][0])
    for part in parts:
        state = stream.update(state, part)
    return state


@every_stream
@given(parts=st.lists(st.integers(1, 5), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_parts_give_what_the_whole_gives(
    stream: Stream, at_once: Any, parts: list[int], seed: int
) -> None:
    outputs = draw(sum(parts) + 1, seed)  # two samples at least, or there is no std
    found = stream.compute(run(stream, list(outputs.split([*parts, 1]))))
    assert_close(found, at_once(outputs), rtol=1e-9, atol=1e-12)


@every_stream
@given(cut=st.integers(1, 8), seed=st.integers(0, 99))
def test_merged_streams_give_what_the_whole_gives(
    stream: Stream, at_once: Any, cut: int, seed: int
) -> None:
    outputs = draw(9, seed)
    a, b = run(stream, [outputs[:cut]]), run(stream, [outputs[cut:]])
    empty = stream.init(outputs[0])
    for state in (stream.merge(a, b), stream.merge(b, a), stream.merge(empty, stream.merge(a, b))):
        assert_close(stream.compute(state), at_once(outputs), rtol=1e-9, atol=1e-12)


def test_variance_is_numpys_one_sample_at_a_time() -> None:
    outputs = draw(50)
    found = gaussian_stream().compute(run(gaussian_stream(), list(outputs.split(1))))
    torch.testing.assert_close(found.mean, torch.as_tensor(outputs.numpy().mean(0)), **DOUBLE)
    exact = torch.as_tensor(outputs.numpy().var(0))
    torch.testing.assert_close(found.variance, exact, rtol=1e-10, atol=0)


def test_single_precision_keeps_a_small_variance() -> None:
    """10 000 samples of mean 1000 and variance 1, in float32."""
    outputs = draw(10_000, dtype=torch.float32)
    found = gaussian_stream().compute(run(gaussian_stream(), list(outputs.split(100))))
    exact = outputs.double()
    torch.testing.assert_close(
        found.variance.double(), exact.var(0, correction=0), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(found.mean.double(), exact.mean(0), rtol=1e-6, atol=0)


@every_stream
def test_state_keeps_its_form(stream: Stream, at_once: Any) -> None:
    outputs = draw(100)
    state = stream.init(outputs[0])
    later = stream.update(state, outputs)
    tree.assert_same_structure(state, later)
    for a, b in zip(tree.leaves(state), tree.leaves(later), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert later.number == 100


def test_of_nothing_it_is_nan() -> None:
    for stream in (categorical_stream(), gaussian_stream()):
        found = stream.compute(stream.init(torch.zeros(3, 4)))
        assert all(part.isnan().all() for part in found)


@every_stream
@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_streamed_is_the_stack(stream: Stream, at_once: Any, chunk_size: int) -> None:
    net = functionalize(
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    )
    x, key = random.normal(random.key(1), (6, 4), torch.float64), random.key(2)
    model = net.settled()

    def sample(key: Tensor) -> Tensor:
        return model.apply(net.params, net.buffers, x, key=key, train=True)[0]

    stacked = uncertainty.mc_dropout(net, net.params, net.buffers, x, key=key, num_samples=10)
    found = streamed(sample, random.split(key, 10), stream=stream, chunk_size=chunk_size)
    assert_close(found, at_once(stacked), rtol=1e-10, atol=1e-12)


def test_streamed_takes_an_ensemble() -> None:
    net, x = functionalize(nn.Linear(4, 3).double()), torch.ones(6, 4).double()
    params, buffers = vmap(net.init)(random.split(random.key(0), 5))

    def member(params: Any, buffers: Any) -> Tensor:
        return net.apply(params, buffers, x)[0]

    found = streamed(member, params, buffers, stream=categorical_stream(), chunk_size=2)
    outputs = uncertainty.deep_ensemble(net, params, buffers, x)
    assert_close(found, uncertainty.categorical(outputs), **DOUBLE)


def test_memory_does_not_grow_with_the_samples() -> None:
    """A chunk's outputs are gone, and nothing but a state is left, when the next chunk comes."""
    stream, held, sizes = gaussian_stream(), [], []

    def update(state: Any, outputs: Tensor) -> Any:
        assert not any(kept() is not None for kept in held[:-1])
        held.append(weakref.ref(outputs))
        sizes.append((len(outputs), sum(leaf.numel() for leaf in tree.leaves(state))))
        return stream.update(state, outputs)

    def sample(key: Tensor) -> Tensor:
        return random.normal(key, (50, 4))

    keys = random.split(random.key(0), 100)
    streamed(sample, keys, stream=stream._replace(update=update), chunk_size=5)
    assert set(sizes) == {(5, 2 * 50 * 4 + 1)} and len(sizes) == 20


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: categorical_stream("modes"), "`average` must be .* got 'modes'"),
        (lambda: gaussian_stream(-1.0), "`tau` must be positive, got -1.0"),
        (
            lambda: streamed(torch.sin, torch.ones(3), stream=gaussian_stream(), chunk_size=0),
            "`chunk_size` must be at least 1, got 0",
        ),
        (
            lambda: streamed(torch.add, torch.ones(3), torch.ones(2), stream=gaussian_stream()),
            r"`members` must be tensors of one length above 0, got \[2, 3\]",
        ),
        (
            lambda: streamed(torch.sin, torch.ones(0, 3), stream=gaussian_stream()),
            r"above 0, got \[0\]",
        ),
    ],
)
def test_errors_name_the_argument(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
