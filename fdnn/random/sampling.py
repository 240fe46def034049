"""Draws that choose among things: permutations, samples, categories."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fdnn.random.distributions import gumbel, uniform
from fdnn.random.integers import check_shape, randint, raw_words
from fdnn.random.keys import check, split
from fdnn.types import Key, Shape

__all__ = ["categorical", "choice", "permutation"]


def permutation(key: Key, x: int | Tensor, axis: int = 0, independent: bool = False) -> Tensor:
    """Shuffle: every order is as likely as any other.

    Args:
        key: a key.
        x: a tensor to shuffle along `axis`, or an integer n that stands for `arange(n)`.
        axis: the axis along which slices change places.
        independent: shuffle every vector along `axis` in its own way.

    Returns:
        A shuffled copy.

    Raises:
        ValueError: `key` is no key, or `x` is a 0-d tensor or a negative number, or lacks `axis`.

    Example:
        >>> from fdnn import random
        >>> random.permutation(random.key(0), 5).sort().values
        tensor([0, 1, 2, 3, 4])
    """
    check(key)
    if isinstance(x, int):
        if x < 0:
            raise ValueError(f"`x` must not be negative, got {x}")
        return _shuffle(key, torch.arange(x, device=key.device), 0)
    _check_axis("x", x, axis)
    if independent or x.ndim == 1:
        return _shuffle(key, x, axis)
    order = _shuffle(key, torch.arange(x.shape[axis], device=key.device), 0)
    return x.index_select(axis, order)


def choice(
    key: Key,
    a: int | Tensor,
    shape: Shape = (),
    replace: bool = True,
    p: Tensor | None = None,
    axis: int = 0,
) -> Tensor:
    """Sample from `a`, with or without replacement.

    Args:
        key: a key.
        a: a tensor to sample slices of along `axis`, or an integer n for `arange(n)`.
        shape: shape of the sample.
        replace: whether a slice may come twice.
        p: probabilities, one for each slice; equal if left out.
        axis: the axis of `a` to sample along.

    Returns:
        The slices, with `shape` in the place of `axis`.

    Raises:
        TypeError: `p` is not floating-point.
        ValueError: more draws than slices without replacement, nothing to draw from, `a` is a
            0-d tensor or lacks `axis`, `p` has the wrong shape, or as in `bits`.

    Example:
        >>> from fdnn import random
        >>> random.choice(random.key(1), torch.tensor([10, 20, 30]), (2,)).shape
        torch.Size([2])
    """
    check_shape(shape)
    if isinstance(a, Tensor):
        _check_axis("a", a, axis)
    size = a if isinstance(a, int) else a.shape[axis]
    draws = math.prod(shape)
    if size <= 0 and draws:
        raise ValueError(f"`a` must hold something to draw, got size {size}")
    if not replace and draws > size:
        raise ValueError(f"`shape` asks for {draws} draws without replacement from only {size}")
    if p is not None and p.shape != (size,):
        raise ValueError(f"`p` must have shape ({size},), got {tuple(p.shape)}")
    if p is not None and not p.is_floating_point():
        raise TypeError(f"`p` must be floating-point, got a tensor of {p.dtype}")
    if p is None:
        index = (
            randint(key, (draws,), 0, size).to(torch.int64)
            if replace
            else permutation(key, size)[:draws]
        )
    elif replace:
        cumulative = torch.cumsum(p, 0)
        fraction = cumulative[-1] * (1 - uniform(key, (draws,), p.dtype))
        index = torch.searchsorted(cumulative, fraction)
    else:
        scores = gumbel(key, (size,), p.dtype) + torch.log(p)
        index = torch.sort(scores, descending=True, stable=True).indices[:draws]
    if isinstance(a, int):
        return index.reshape(tuple(shape))
    axis = axis % a.ndim
    return a.index_select(axis, index).reshape(*a.shape[:axis], *shape, *a.shape[axis + 1 :])


def categorical(key: Key, logits: Tensor, axis: int = -1, shape: Shape | None = None) -> Tensor:
    """Draw category numbers with probabilities `softmax(logits)`.

    Args:
        key: a key.
        logits: unnormalised log-probabilities.
        axis: the axis of the categories.
        shape: shape of the result; ends in the shape of `logits` without `axis`, which is the
            default.

    Returns:
        int64, of the given shape.

    Raises:
        TypeError: `logits` are not floating-point.
        ValueError: `shape` does not end so, `logits` lack `axis`, or as in `bits`.

    Example:
        >>> from fdnn import random
        >>> random.categorical(random.key(0), torch.tensor([-100.0, 0.0, -100.0]), shape=(3,))
        tensor([1, 1, 1])
    """
    if not logits.is_floating_point():
        raise TypeError(f"`logits` must be floating-point, got a tensor of {logits.dtype}")
    _check_axis("logits", logits, axis)
    axis = axis % logits.ndim
    batch = logits.shape[:axis] + logits.shape[axis + 1 :]
    shape = batch if shape is None else shape
    check_shape(shape)
    shape = tuple(shape)
    extra = len(shape) - len(batch)
    if extra < 0 or shape[extra:] != tuple(batch):
        raise ValueError(f"`shape` must end in {tuple(batch)}, got {shape}")
    last = len(shape) - logits.ndim + axis + 1
    noise_shape = (*shape[:last], logits.shape[axis], *shape[last:])
    return torch.argmax(gumbel(key, noise_shape, logits.dtype) + logits, dim=last)


def _shuffle(key: Key, x: Tensor, axis: int) -> Tensor:
    """Sort by random words, often enough that ties (equal words) leave no trace."""
    rounds = math.ceil(3 * math.log(max(1, x.numel())) / math.log(2**32 - 1))
    if rounds == 0:
        return x.clone()
    for _ in range(rounds):
        key, subkey = split(key)
        drawn = raw_words(subkey, x.shape)
        order = torch.sort(drawn ^ -(2**31), dim=axis, stable=True).indices  # as if unsigned
        x = torch.gather(x, axis, order)
    return x


def _check_axis(name: str, x: Tensor, axis: int) -> None:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"`{name}` must have the axis {axis}, got a tensor of shape {tuple(x.shape)}"
        )
