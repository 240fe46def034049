"""Keys: where randomness comes from, and how one key becomes many.

A key is used once. To draw twice, `split` it, or `fold_in` what distinguishes the draws (a step
count, a layer's number). Keys are int64 tensors of shape `(2,)` that hold the two 32-bit words
which `jax.random.key_data` shows for the same seed; they stack, vmap and checkpoint like any
other tensor.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from fdnn.random.threefry import words
from fdnn.types import Key

__all__ = ["fold_in", "key", "split"]

_WORD = 0xFFFFFFFF


def key(seed: int | Tensor, *, device: torch.device | str | None = None) -> Key:
    """Make a key from a seed.

    Args:
        seed: an integer, or a 0-d integer tensor (vmap over a vector of seeds gives a vector of
            keys). As in JAX by default, its lowest 32 bits count.
        device: where the key lives, and with it all that is drawn from it.

    Returns:
        A key: int64, shape `(2,)`.

    Raises:
        TypeError: `seed` is not an integer.
        ValueError: `seed` is a tensor that is not 0-d.

    Example:
        >>> key(42)
        tensor([ 0, 42])
    """
    low = _low_word("seed", seed, device)
    return torch.stack([torch.zeros_like(low), low])


def split(key: Key, num: int | Sequence[int] = 2) -> Tensor:
    """Derive `num` fresh keys; the given one should not be used again.

    Args:
        key: a key.
        num: how many, or a shape.

    Returns:
        Keys of shape `(num, 2)` (or `(*num, 2)`): unpack them, or vmap over them.

    Raises:
        TypeError: `num` is neither an integer nor a sequence of integers.
        ValueError: `key` is no key, or `num` is negative or asks for 2**32 keys or more.

    Example:
        >>> first, second = split(key(0))
        >>> first
        tensor([1797259609, 2579123966])
    """
    check(key)
    try:
        shape = tuple(map(operator.index, num if isinstance(num, Sequence) else (num,)))
    except TypeError:
        raise TypeError(f"`num` must be an integer or a shape, got {num!r}") from None
    if any(size < 0 for size in shape):
        raise ValueError(f"`num` must not be negative, got {num}")
    if math.prod(shape) >= 2**32:
        raise ValueError(f"`num` must be below 2**32, got {num}")
    return _as_keys(words(key, math.prod(shape), torch.int64)).reshape(*shape, 2)


def fold_in(key: Key, data: int | Tensor) -> Key:
    """Derive the key that belongs to a number: a step count, an epoch, a layer.

    `fold_in(key, i)` is the i-th key of `split(key, n)`: use one or the other on a given key.

    Args:
        key: a key.
        data: an integer or 0-d integer tensor, of which the lowest 32 bits count.

    Returns:
        A key.

    Raises:
        TypeError: `data` is not an integer.
        ValueError: `key` is no key, or `data` is a tensor that is not 0-d.

    Example:
        >>> fold_in(key(0), 1)
        tensor([ 928981903, 3453687069])
    """
    check(key)
    drawn = words(key, 1, torch.int64, _low_word("data", data, key.device))
    return _as_keys(drawn).squeeze(-2)


def _low_word(name: str, value: int | Tensor, device: torch.device | str | None) -> Tensor:
    """The lowest 32 bits of an integer, as a 0-d int64 tensor."""
    if not isinstance(value, Tensor):
        try:
            word = operator.index(value) & _WORD
        except TypeError:
            raise TypeError(f"`{name}` must be an integer, got {value!r}") from None
        return torch.full((), word, dtype=torch.int64, device=device)
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"`{name}` must be an integer, got a tensor of {value.dtype}")
    if value.ndim:
        raise ValueError(f"`{name}` must be 0-d, got shape {tuple(value.shape)}; vmap over it")
    return value.to(device=device, dtype=torch.int64) & _WORD


def _as_keys(pairs: Tensor) -> Tensor:
    """Cipher words side by side, as keys: shape `(*pairs.shape, 2)`."""
    return torch.stack([(pairs >> 32) & _WORD, pairs & _WORD], dim=-1)


def check(key: Key) -> None:
    """Raise unless `key` is one key."""
    if not isinstance(key, Tensor) or key.shape != (2,) or key.dtype != torch.int64:
        found = f"{key.dtype} of shape {tuple(key.shape)}" if isinstance(key, Tensor) else repr(key)
        raise ValueError(
            f"`key` must be a key (int64 of shape (2,)) from `fdnn.random.key`, got {found}; "
            "vmap over a stack of keys"
        )
