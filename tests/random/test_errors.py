"""What `fdnn.random` refuses: the message names the argument, the rule and the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.func import vmap

from fdnn import random

KEY = random.key(0)
NO_KEYS = {
    "a seed": (0, "got 0;"),
    "floats": (torch.zeros(2), "got torch.float32 of shape (2,);"),
    "one word": (torch.tensor(5), "got torch.int64 of shape ();"),
    "many keys": (random.split(KEY, 3), "got torch.int64 of shape (3, 2);"),
}

# Every function of a key, called with nothing wrong but the key.
DRAWS: dict[str, Callable[[Any], Any]] = {
    "bernoulli": lambda key: random.bernoulli(key),
    "bernoulli_tensor": lambda key: random.bernoulli(key, torch.tensor(0.5)),
    "bits": lambda key: random.bits(key),
    "categorical": lambda key: random.categorical(key, torch.zeros(3)),
    "choice": lambda key: random.choice(key, 5),
    "choice_of_slices": lambda key: random.choice(key, torch.zeros(3), (2,), replace=False),
    "choice_weighted": lambda key: random.choice(key, 3, p=torch.ones(3) / 3),
    "exponential": lambda key: random.exponential(key),
    "fold_in": lambda key: random.fold_in(key, 1),
    "gumbel": lambda key: random.gumbel(key),
    "normal": lambda key: random.normal(key),
    "normal_complex": lambda key: random.normal(key, (), torch.complex64),
    "permutation": lambda key: random.permutation(key, 5),
    "permutation_of_a_tensor": lambda key: random.permutation(key, torch.arange(4)),
    "permutation_of_one": lambda key: random.permutation(key, torch.zeros(1)),
    "randint": lambda key: random.randint(key, (), 0, 5),
    "randint_wide": lambda key: random.randint(key, (), 0, 5, torch.int64),
    "split": lambda key: random.split(key),
    "truncated_normal": lambda key: random.truncated_normal(key, -1.0, 1.0),
    "uniform": lambda key: random.uniform(key),
    "uniform_between": lambda key: random.uniform(key, (), torch.float64, 1.0, 2.0),
}


def test_every_function_of_a_key_is_here() -> None:
    covered = {name for name in random.__all__ if any(draw.startswith(name) for draw in DRAWS)}
    assert covered == set(random.__all__) - {"key", "threefry2x32"}


@pytest.mark.parametrize("kind", NO_KEYS)
@pytest.mark.parametrize("name", DRAWS)
def test_what_is_no_key(name: str, kind: str) -> None:
    value, found = NO_KEYS[kind]
    rule = "`key` must be a key (int64 of shape (2,)) from `fdnn.random.key`, "
    with pytest.raises(ValueError, match=re.escape(rule + found)):
        DRAWS[name](value)


def test_a_stack_of_keys_is_told_to_vmap() -> None:
    keys = random.split(KEY, 3)
    with pytest.raises(ValueError, match="vmap over a stack of keys"):
        random.normal(keys)
    assert vmap(random.normal)(keys).shape == (3,)


FLOATS = "torch.float64, torch.float32, torch.float16, torch.bfloat16"
UNSIGNED = "torch.uint8, torch.uint16, torch.uint32, torch.uint64"
SIGNED = "torch.int8, torch.int16, torch.int32, torch.int64"
ROW = torch.zeros(3)
SHAPED: dict[str, Callable[[Any], Any]] = {
    "bernoulli": lambda shape: random.bernoulli(KEY, 0.5, shape),
    "bernoulli_tensor": lambda shape: random.bernoulli(KEY, ROW, shape),
    "bits": lambda shape: random.bits(KEY, shape),
    "categorical": lambda shape: random.categorical(KEY, ROW, shape=shape),
    "choice": lambda shape: random.choice(KEY, 5, shape),
    "choice_rare": lambda shape: random.choice(KEY, ROW, shape, replace=False),
    "exponential": lambda shape: random.exponential(KEY, shape),
    "gumbel": lambda shape: random.gumbel(KEY, shape),
    "normal": lambda shape: random.normal(KEY, shape),
    "randint": lambda shape: random.randint(KEY, shape, 0, 5),
    "randint_tensor": lambda shape: random.randint(KEY, shape, ROW.int(), 5),
    "truncated_normal": lambda shape: random.truncated_normal(KEY, -1.0, 1.0, shape),
    "uniform": lambda shape: random.uniform(KEY, shape),
    "uniform_tensor": lambda shape: random.uniform(KEY, shape, torch.float32, ROW, 1.0),
}


@pytest.mark.parametrize("shape", [5, (2, -1, 3), [-3], (2.0, 3), {3}])
@pytest.mark.parametrize("name", SHAPED)
def test_what_is_no_shape(name: str, shape: Any) -> None:
    message = f"`shape` must be a sequence of sizes of 0 or more, got {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        SHAPED[name](shape)


@pytest.mark.parametrize("shape", [(2**32,), (2**16, 2**16, 2)])
def test_more_numbers_than_counters(shape: tuple[int, ...]) -> None:
    message = f"`shape` must hold fewer than 2**32 numbers, got {shape}"
    for draw in (random.bits, random.uniform, random.normal):
        with pytest.raises(ValueError, match=re.escape(message)):
            draw(KEY, shape)


def test_more_keys_than_counters() -> None:
    with pytest.raises(
        ValueError, match=re.escape("`num` must be below 2**32, got (65536, 65536)")
    ):
        random.split(KEY, (2**16, 2**16))


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: random.key(0.5), TypeError, "`seed` must be an integer, got 0.5"),
    (lambda: random.key("0"), TypeError, "`seed` must be an integer, got '0'"),
    (
        lambda: random.key(torch.tensor(1.0)),
        TypeError,
        "`seed` must be an integer, got a tensor of torch.float32",
    ),
    (
        lambda: random.key(torch.tensor(True)),
        TypeError,
        "`seed` must be an integer, got a tensor of torch.bool",
    ),
    (
        lambda: random.key(torch.arange(3)),
        ValueError,
        "`seed` must be 0-d, got shape (3,); vmap over it",
    ),
    (lambda: random.split(KEY, -1), ValueError, "`num` must not be negative, got -1"),
    (lambda: random.split(KEY, (2, -3)), ValueError, "`num` must not be negative, got (2, -3)"),
    (lambda: random.split(KEY, 2.0), TypeError, "`num` must be an integer or a shape, got 2.0"),
    (lambda: random.fold_in(KEY, 1.5), TypeError, "`data` must be an integer, got 1.5"),
    (
        lambda: random.fold_in(KEY, torch.tensor(1j)),
        TypeError,
        "`data` must be an integer, got a tensor of torch.complex64",
    ),
    (
        lambda: random.fold_in(KEY, torch.arange(2)),
        ValueError,
        "`data` must be 0-d, got shape (2,); vmap over it",
    ),
    (
        lambda: random.bits(KEY, (), torch.int32),
        ValueError,
        f"`dtype` must be one of {UNSIGNED}, got torch.int32",
    ),
    (
        lambda: random.randint(KEY, (), 0, 5, torch.uint8),
        ValueError,
        f"`dtype` must be one of {SIGNED}, got torch.uint8",
    ),
    (lambda: random.randint(KEY, (), 0.0, 5), TypeError, "`minval` must be an integer, got 0.0"),
    (lambda: random.randint(KEY, (), 0, 5.5), TypeError, "`maxval` must be an integer, got 5.5"),
    (
        lambda: random.randint(KEY, (3,), 0, torch.ones(3)),
        TypeError,
        "`maxval` must be an integer, got a tensor of torch.float32",
    ),
    (
        lambda: random.randint(KEY, (3,), torch.zeros(4).long(), 5),
        ValueError,
        "`minval` must broadcast to `shape` (3,), got shape (4,)",
    ),
    (
        lambda: random.uniform(KEY, (3,), torch.float32, torch.zeros(2, 3)),
        ValueError,
        "`minval` must broadcast to `shape` (3,), got shape (2, 3)",
    ),
    (
        lambda: random.uniform(KEY, (3,), torch.float32, 0.0, torch.zeros(2)),
        ValueError,
        "`maxval` must broadcast to `shape` (3,), got shape (2,)",
    ),
    (
        lambda: random.truncated_normal(KEY, torch.zeros(2), 1.0, (3,)),
        ValueError,
        "`lower` must broadcast to `shape` (3,), got shape (2,)",
    ),
    (
        lambda: random.truncated_normal(KEY, 0.0, torch.ones(2), (3,)),
        ValueError,
        "`upper` must broadcast to `shape` (3,), got shape (2,)",
    ),
    (
        lambda: random.bernoulli(KEY, torch.tensor(1)),
        TypeError,
        "`p` must be floating-point, got a tensor of torch.int64",
    ),
    (
        lambda: random.bernoulli(KEY, torch.zeros(2), (3,)),
        ValueError,
        "`p` must broadcast to `shape` (3,), got shape (2,)",
    ),
    (lambda: random.permutation(KEY, -1), ValueError, "`x` must not be negative, got -1"),
    (
        lambda: random.permutation(KEY, torch.tensor(3)),
        ValueError,
        "`x` must have the axis 0, got a tensor of shape ()",
    ),
    (
        lambda: random.permutation(KEY, torch.zeros(2, 3), 2),
        ValueError,
        "`x` must have the axis 2, got a tensor of shape (2, 3)",
    ),
    (lambda: random.choice(KEY, 0), ValueError, "`a` must hold something to draw, got size 0"),
    (
        lambda: random.choice(KEY, torch.zeros(2, 0), axis=1),
        ValueError,
        "`a` must hold something to draw, got size 0",
    ),
    (
        lambda: random.choice(KEY, torch.tensor(1.0)),
        ValueError,
        "`a` must have the axis 0, got a tensor of shape ()",
    ),
    (
        lambda: random.choice(KEY, torch.zeros(2), axis=-2),
        ValueError,
        "`a` must have the axis -2, got a tensor of shape (2,)",
    ),
    (
        lambda: random.choice(KEY, 5, (2, 3), replace=False),
        ValueError,
        "`shape` asks for 6 draws without replacement from only 5",
    ),
    (
        lambda: random.choice(KEY, 5, p=torch.ones(4) / 4),
        ValueError,
        "`p` must have shape (5,), got (4,)",
    ),
    (
        lambda: random.choice(KEY, 2, p=torch.tensor([0, 1])),
        TypeError,
        "`p` must be floating-point, got a tensor of torch.int64",
    ),
    (
        lambda: random.categorical(KEY, torch.arange(3)),
        TypeError,
        "`logits` must be floating-point, got a tensor of torch.int64",
    ),
    (
        lambda: random.categorical(KEY, torch.tensor(1.0)),
        ValueError,
        "`logits` must have the axis -1, got a tensor of shape ()",
    ),
    (
        lambda: random.categorical(KEY, torch.zeros(2, 3), 2),
        ValueError,
        "`logits` must have the axis 2, got a tensor of shape (2, 3)",
    ),
    (
        lambda: random.categorical(KEY, torch.zeros(4, 3), shape=(4, 2)),
        ValueError,
        "`shape` must end in (4,), got (4, 2)",
    ),
    (
        lambda: random.categorical(KEY, torch.zeros(4, 3), shape=()),
        ValueError,
        "`shape` must end in (4,), got ()",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), CASES, ids=[case[2] for case in CASES])
def test_the_message_names_argument_rule_and_value(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("dtype", [torch.int32, torch.float8_e4m3fn, torch.bool])
@pytest.mark.parametrize("name", ["uniform", "normal", "exponential", "gumbel"])
def test_what_is_no_float(name: str, dtype: torch.dtype) -> None:
    message = re.escape(f"`dtype` must be one of {FLOATS}, got {dtype}")
    with pytest.raises(ValueError, match=message):
        getattr(random, name)(KEY, (2,), dtype)
    with pytest.raises(ValueError, match=message):
        random.truncated_normal(KEY, -1.0, 1.0, (2,), dtype)
