"""The threefry2x32 block cipher: the one source of bits in fdnn.

A counter-based generator has no state: the i-th word of a draw is the cipher of the number i
under the key, so a draw is a pure function of key and shape, and every lane of a vmap can make
its own.

The cipher is a chain of 100 cheap integer operations. Three ways to run that one chain, all with
the same bits:

- inside `torch.compile` it is traced, and fused with whatever consumes the words;
- in eager mode it runs in place on blocks that stay in cache;
- once a process has drawn so much in eager mode that compiling would have paid, it is compiled
  (if a C++ compiler is there), and every later large draw is one kernel.

References:
    Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["random_words", "threefry2x32"]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA  # the key schedule's constant (Salmon et al., section 3.3)

_BLOCK = 2**17  # words: two int32 blocks of this size fit a core's second-level cache
_SMALL = 2**12  # below this a draw is all overhead, and the plain chain is as good as any
_COMPILE_AFTER = 2**25  # eager words after which compiling (some seconds) would have paid


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
    shape = torch.broadcast_shapes(k0.shape, k1.shape, x0.shape, x1.shape)
    # The two sums are fresh and batched wherever key or counter is, so that everything after
    # them may work in place, under vmap as well.
    x0 = (x0 + k0 + torch.zeros_like(k1)).expand(shape).contiguous()
    x1 = (x1 + k1 + torch.zeros_like(k0)).expand(shape).contiguous()
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0.add_(x1)
            low = (x1 >> (32 - rotation)).bitwise_and_((1 << rotation) - 1)
            x1.bitwise_left_shift_(rotation).bitwise_or_(low).bitwise_xor_(x0)
        x0.add_(schedule[(group + 1) % 3])
        x1.add_(schedule[(group + 2) % 3] + (group + 1))
    return x0, x1


def random_words(key: Tensor, count: int, width: int = 32) -> Tensor:
    """Return the first `count` random words of a key.

    Args:
        key: int64 of shape `(2,)`.
        count: how many words, below 2**32.
        width: bits of a word: 32 (the two cipher words xored) or 64 (both, side by side).

    Returns:
        Shape `(count,)`; int32 or int64, of which only the bits have meaning.
    """
    if torch.compiler.is_compiling():
        return _words(key, 0, count, width)
    words: Tensor = torch.ops.fdnn.random_words(key, count, width)
    return words


def _words(keys: Tensor, start: int, stop: int, width: int) -> Tensor:
    """Words `start` to `stop` of each key: shape `(..., stop - start)` for keys `(..., 2)`."""
    halves = keys.to(torch.int32).unsqueeze(-1)  # (..., 2, 1)
    counter = torch.arange(start, stop, dtype=torch.int32, device=keys.device)
    x0, x1 = threefry2x32(halves[..., 0, :], halves[..., 1, :], torch.zeros_like(counter), counter)
    if width == 32:
        return x0.bitwise_xor_(x1)
    return (x0.to(torch.int64) << 32) | (x1.to(torch.int64) & 0xFFFFFFFF)


@torch.library.custom_op("fdnn::random_words", mutates_args=())
def _eager_words(keys: Tensor, count: int, width: int) -> Tensor:
    lanes = math.prod(keys.shape[:-1])
    if lanes * count <= _SMALL:
        return _words(keys, 0, count, width)
    if kernel := _compiled_kernel(lanes * count):
        words: Tensor = kernel(keys.reshape(-1, 2), 0, count, width)
        return words.reshape(*keys.shape[:-1], count)
    step = max(1, _BLOCK // lanes)
    blocks = [_words(keys, i, min(i + step, count), width) for i in range(0, count, step)]
    return torch.cat(blocks, dim=-1) if len(blocks) > 1 else blocks[0]


@_eager_words.register_fake
def _(keys: Tensor, count: int, width: int) -> Tensor:
    dtype = torch.int32 if width == 32 else torch.int64
    return keys.new_empty((*keys.shape[:-1], count), dtype=dtype)


@_eager_words.register_vmap
def _(
    info: object, in_dims: tuple[int | None, ...], keys: Tensor, count: int, width: int
) -> tuple[Tensor, int]:
    batch_dim = in_dims[0]
    assert batch_dim is not None  # vmap calls the rule only if something is batched
    return torch.ops.fdnn.random_words(keys.movedim(batch_dim, 0), count, width), 0


class _Tier:
    """How far this process has come: words drawn so far, and the kernel once compiled.

    It changes how fast bits are made, never which bits.
    """

    drawn = 0
    kernel: Callable[..., Tensor] | None = None
    failed = False


def _compiled_kernel(words: int) -> Callable[..., Tensor] | None:
    _Tier.drawn += words
    if _Tier.failed or _Tier.drawn < _COMPILE_AFTER:
        return None
    if _Tier.kernel is None:
        compiled = torch.compile(_words, fullgraph=True, dynamic=True)
        example = torch.zeros(1, 2, dtype=torch.int64)
        try:
            for lanes, width in itertools.product((1, 2), (32, 64)):
                compiled(example.expand(lanes, 2).contiguous(), 0, 2 * _SMALL, width)
        except Exception:  # no compiler, or a broken one: the blocks serve as well, if slower
            _Tier.failed = True
            return None
        _Tier.kernel = compiled
    return _Tier.kernel
