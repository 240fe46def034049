"""The cipher: published answers, and the C loop against the torch operations, word for word."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap

from fdnn import random
from fdnn.random import kernel, threefry

WORD = 0xFFFFFFFF
# Key, counter and cipher of threefry2x32 with 20 rounds, from the kat_vectors of Random123
# (Salmon et al.).
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((WORD, WORD), (WORD, WORD), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]

words32 = st.integers(0, WORD)
keys = st.tuples(words32, words32)
# Also where the counter passes 2**32, and from numbers of which only the low 32 bits count.
starts = st.integers(0, WORD) | st.integers(2**32 - 100, 2**32) | st.integers(-(2**63), 2**63 - 1)
DTYPES = [torch.int32, torch.int64, torch.float32]
dtypes = st.sampled_from(DTYPES)
needs_compiler = pytest.mark.skipif(not kernel.available(), reason="needs a C compiler")


def int32(*words: int) -> Tensor:
    return torch.tensor(words, dtype=torch.int64).to(torch.int32)


def unsigned(words: Tensor) -> list[int]:
    return [word & WORD for word in words.tolist()]


def in_torch(key: Tensor, start: int, count: int, dtype: torch.dtype) -> Tensor:
    return threefry._in_blocks(key, torch.tensor(start), count, dtype)


def in_c(key: Tensor, start: int, count: int, dtype: torch.dtype) -> Tensor:
    return kernel.fill_words(key, torch.tensor(start), count, dtype)


@pytest.mark.parametrize(("key", "counter", "cipher"), KNOWN)
def test_published_answers(
    key: tuple[int, int], counter: tuple[int, int], cipher: tuple[int, int]
) -> None:
    found = random.threefry2x32(*(int32(word) for word in (*key, *counter)))
    assert unsigned(torch.cat(found)) == list(cipher)


def test_words_are_the_cipher_of_the_counter() -> None:
    high, low = KNOWN[0][2]
    key = torch.zeros(2, dtype=torch.int64)
    for draw in (in_torch, *([in_c] if kernel.available() else [])):
        assert draw(key, 0, 1, torch.float32).item() == ((high ^ low) >> 9) / 2**23
        assert unsigned(draw(key, 0, 1, torch.int32)) == [high ^ low]
        assert draw(key, 0, 1, torch.int64).item() & (2**64 - 1) == high << 32 | low


@given(keys, st.integers(0, 2**32 - 5), dtypes)
def test_words_of_any_counter(key: tuple[int, int], start: int, dtype: torch.dtype) -> None:
    counter = int32(*range(start, start + 5))
    x0, x1 = random.threefry2x32(int32(key[0]), int32(key[1]), int32(0), counter)
    xored = x0 ^ x1
    expected = {
        torch.int32: xored,
        torch.int64: x0.to(torch.int64) << 32 | x1.to(torch.int64) & WORD,
        torch.float32: torch.tensor([(word >> 9) / 2**23 for word in unsigned(xored)]),
    }[dtype]
    assert threefry.words(torch.tensor(key), 5, dtype, torch.tensor(start)).equal(expected)


@needs_compiler
@given(keys, starts, st.integers(0, 400), dtypes, st.sampled_from([1, 64, threefry._BLOCK]))
def test_c_is_torch_word_for_word(
    key: tuple[int, int], start: int, count: int, dtype: torch.dtype, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threefry, "_BLOCK", max(block, count // 10))
        expected = in_torch(torch.tensor(key), start, count, dtype)
    assert in_c(torch.tensor(key), start, count, dtype).equal(expected)
    assert expected.shape == (count,)
    assert expected.dtype == dtype


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_c_is_torch_beyond_a_block_and_past_the_last_counter(dtype: torch.dtype) -> None:
    key, count, start = torch.tensor([7, 2**31]), threefry._BLOCK + 7, 2**32 - threefry._BLOCK
    assert in_c(key, start, count, dtype).equal(in_torch(key, start, count, dtype))


@needs_compiler
@given(
    st.lists(keys, min_size=1, max_size=5),
    st.sampled_from([0, 1, 3, 50]),
    dtypes,
    st.sampled_from([1, 64, threefry._BLOCK]),
    st.data(),
)
def test_lanes_of_keys_and_counters(
    lanes: list[tuple[int, int]], count: int, dtype: torch.dtype, block: int, data: st.DataObject
) -> None:
    first = data.draw(st.lists(starts, min_size=len(lanes), max_size=len(lanes)))
    stacked, start = torch.tensor(lanes), torch.tensor(first)
    solo = [in_c(torch.tensor(k), s, count, dtype) for k, s in zip(lanes, first, strict=True)]
    assert kernel.fill_words(stacked, start, count, dtype).equal(torch.stack(solo))
    turned = stacked.T.contiguous().T  # other strides: vmap passes on whatever it is given
    assert kernel.fill_words(turned, start, count, dtype).equal(torch.stack(solo))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threefry, "_BLOCK", block)
        assert threefry._in_blocks(stacked, start, count, dtype).equal(torch.stack(solo))


def test_counters_pass_two_to_the_32nd() -> None:
    key = random.key(3)
    start = torch.tensor(2**32 - 2)
    around = threefry.words(key, 5, torch.int64, start)
    assert around[2:].equal(threefry.words(key, 3, torch.int64))
    assert around.unique().numel() == 5


@given(st.tuples(*[st.sampled_from([(), (1,), (4,), (3, 1), (3, 4)])] * 4), st.integers(0, 2**32))
def test_the_cipher_broadcasts(shapes: tuple[tuple[int, ...], ...], seed: int) -> None:
    drawn = [random.bits(random.fold_in(random.key(seed), i), s) for i, s in enumerate(shapes)]
    given_words = [x.view(torch.int32) for x in drawn]
    before = [x.clone() for x in given_words]
    whole = torch.broadcast_tensors(*given_words)
    flat = [
        random.threefry2x32(*pair) for pair in zip(*(x.reshape(-1) for x in whole), strict=True)
    ]
    for i, found in enumerate(random.threefry2x32(*given_words)):
        assert found.equal(torch.stack([word[i] for word in flat]).reshape(whole[0].shape))
    assert all(x.equal(y) for x, y in zip(given_words, before, strict=True))


@pytest.mark.parametrize("in_dims", [(0, 0, None, None), (None, 0, None, 0), (None, None, 0, None)])
def test_the_cipher_vmaps_over_any_word(in_dims: tuple[int | None, ...]) -> None:
    given_words = [int32(5, 2**31, 77) if dim == 0 else int32(9).squeeze() for dim in in_dims]
    lanes = vmap(random.threefry2x32, in_dims)(*given_words)
    for found, expected in zip(lanes, random.threefry2x32(*given_words), strict=True):
        assert found.equal(expected)


def look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not looked for a compiler yet."""
    monkeypatch.setattr(kernel, "_functions", functools.cache(kernel._functions.__wrapped__))


@pytest.mark.parametrize("compiler", ["missing", "broken", "not C", "none"])
def test_without_a_compiler_the_bits_are_the_same(
    compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def draws() -> dict[str, Tensor]:
        key = random.key(11)
        return {
            "split": random.split(key, 3),
            "fold_in": vmap(random.fold_in, (None, 0))(key, torch.arange(4)),
            "uniform": random.uniform(key, (5, 7)),
            "double": random.uniform(key, (9,), torch.float64),
            "lanes": vmap(lambda key: random.bits(key, (6,)))(random.split(key, 4)),
        }

    expected = draws()
    silent = tmp_path / "silent"  # succeeds, and writes something else than a library
    silent.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho text > "$2"\n')
    silent.chmod(0o755)
    commands = {"missing": "/nonexistent/cc", "broken": "false", "not C": str(silent), "none": ""}
    monkeypatch.setenv("CC", commands[compiler])
    if compiler == "none":
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    look_again(monkeypatch)
    assert not kernel.available()
    found = draws()
    assert all(found[name].equal(expected[name]) for name in expected)
    with pytest.raises(RuntimeError, match="no working C compiler"):
        in_c(random.key(0), 0, 1, torch.int32)


@needs_compiler
def test_the_compiler_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = kernel.subprocess.run
    look_again(monkeypatch)
    monkeypatch.setattr(
        kernel.subprocess, "run", lambda *args, **kwargs: calls.append(args) or run(*args, **kwargs)
    )
    assert random.fold_in(random.key(0), 1).equal(random.split(random.key(0))[1])
    assert len(calls) == 1


@pytest.mark.parametrize("utility", ["test_schema", "test_faketensor", "test_aot_dispatch_static"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_operator_keeps_torchs_contract(dtype: torch.dtype, utility: str) -> None:
    arguments = (random.key(0), torch.tensor(3), 10, dtype)
    operator = torch.ops.fdnn.random_words.default
    torch.library.opcheck(operator, arguments, test_utils=utility)
