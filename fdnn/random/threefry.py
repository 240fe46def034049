"""The threefry2x32 block cipher: the one source of bits in fdnn.

A counter-based generator has no state: the i-th word of a draw is the cipher of the number i
under the key, so a draw is a pure function of key and shape, and every lane of a vmap can make
its own.

The cipher is a chain of 100 cheap integer operations. On the CPU it runs as one compiled loop
(`threefry.c`), an operator of its own to vmap and `torch.compile`; elsewhere, and where there is
no C compiler, as the torch operations below. The bits are the same.

References:
    Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn.random import kernel

__all__ = ["threefry2x32", "words"]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA  # the key schedule's constant (Salmon et al., section 3.3)
_BLOCK = 2**17  # words: two int32 blocks of this size fit a core's second-level cache


def threefry2x32(k0: Tensor, k1: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Encrypt the counters `(x0, x1)` under the key `(k0, k1)` with 20 rounds.

    Args:
        k0: first word of the key, int32 (the bits matter, not the sign).
        k1: second word of the key.
        x0: first word of each counter; all four broadcast against each other.
        x1: second word of each counter.

    Returns:
        The two cipher words, int32.

    Example:
        >>> zero = torch.zeros(1, dtype=torch.int32)
        >>> [hex(word.item() & 0xFFFFFFFF) for word in threefry2x32(zero, zero, zero, zero)]
        ['0x6b200159', '0x99ba4efe']

    References:
        Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3".
    """
    schedule = (k0, k1, k0 ^ k1 ^ _PARITY)
    # The two sums are fresh, full-sized and batched wherever any of the four is, so that
    # everything after them may work in place, under vmap as well.
    blank = torch.zeros_like(k0 ^ k1 ^ x0 ^ x1)
    x0, x1 = x0 + k0 + blank, x1 + k1 + blank
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0.add_(x1)
            low = (x1 >> (32 - rotation)).bitwise_and_((1 << rotation) - 1)
            x1.bitwise_left_shift_(rotation).bitwise_or_(low).bitwise_xor_(x0)
        x0.add_(schedule[(group + 1) % 3])
        x1.add_(schedule[(group + 2) % 3] + (group + 1))
    return x0, x1


def words(
    key: Tensor, count: int, dtype: torch.dtype = torch.int32, start: Tensor | None = None
) -> Tensor:
    """Return `count` random words of a key: the ciphers of the counters from `start` on.

    Args:
        key: int64 of shape `(2,)`.
        count: how many words.
        dtype: int32 for the two cipher words xored, int64 for both side by side (only the bits
            have meaning), float32 for the top 23 bits of the xored ones as a fraction.
        start: the first counter, a 0-d int64 tensor of which the lowest 32 bits count; 0 if
            left out.

    Returns:
        Shape `(count,)`, of `dtype`.
    """
    if torch.compiler.is_compiling() and key.device.type != "cpu":
        return _chain(key, start, count, dtype)
    drawn: Tensor = torch.ops.fdnn.random_words(key, start, count, dtype)
    return drawn


def _chain(keys: Tensor, start: Tensor | None, count: int, dtype: torch.dtype) -> Tensor:
    """`words` in torch operations; keys of shape `(..., 2)` give words of shape `(..., count)`."""
    halves = keys.to(torch.int32).unsqueeze(-1)  # (..., 2, 1)
    counter = torch.arange(count, dtype=torch.int32, device=keys.device)
    if start is not None:
        counter = counter + start.to(torch.int32).unsqueeze(-1)
    x0, x1 = threefry2x32(halves[..., 0, :], halves[..., 1, :], torch.zeros_like(counter), counter)
    if dtype is torch.int64:
        return (x0.to(dtype) << 32) | (x1.to(dtype) & 0xFFFFFFFF)
    word = x0.bitwise_xor_(x1)
    if dtype is torch.float32:
        return (word >> 9).bitwise_and_(2**23 - 1).to(dtype).mul_(2.0**-23)
    return word


def _on_cpu(keys: Tensor, start: Tensor | None, count: int, dtype: torch.dtype) -> Tensor:
    if kernel.available():
        return kernel.fill_words(keys, start, count, dtype)
    return _in_blocks(keys, start, count, dtype)


def _in_blocks(keys: Tensor, start: Tensor | None, count: int, dtype: torch.dtype) -> Tensor:
    step = max(1, _BLOCK // max(1, keys.numel() // 2))
    if count <= step:
        return _chain(keys, start, count, dtype)
    first = keys.new_zeros(()) if start is None else start
    blocks = [_chain(keys, first + i, min(step, count - i), dtype) for i in range(0, count, step)]
    return torch.cat(blocks, dim=-1)


def _shape_only(keys: Tensor, start: Tensor | None, count: int, dtype: torch.dtype) -> Tensor:
    return torch.empty((*keys.shape[:-1], count), dtype=dtype, device=keys.device)


def _batched(
    info: object,
    in_dims: tuple[int | None, ...],
    keys: Tensor,
    start: Tensor | None,
    count: int,
    dtype: torch.dtype,
) -> tuple[Tensor, int]:
    """Vmap's rule: lanes are one more leading dimension."""
    key_dim, start_dim = in_dims[:2]
    if key_dim is not None:
        keys = keys.movedim(key_dim, 0)
    if start is not None:
        if start_dim is not None:
            start = start.movedim(start_dim, 0)
        if key_dim is None:
            keys = keys.expand(*start.shape[:1], *keys.shape)
        if start_dim is None:
            start = start.expand(*keys.shape[:1], *start.shape)
    return torch.ops.fdnn.random_words(keys, start, count, dtype), 0


_LIBRARY = torch.library.Library("fdnn", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "random_words(Tensor keys, Tensor? start, int count, ScalarType dtype) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.impl("random_words", _on_cpu, "CPU")  # type: ignore[no-untyped-call]
_LIBRARY.impl("random_words", _in_blocks, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("fdnn::random_words", _shape_only, lib=_LIBRARY)
torch.library.register_vmap("fdnn::random_words", _batched, lib=_LIBRARY)
