"""Masked tokens: hide some, and learn to tell them from the rest of the sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fdnn import random
from fdnn.losses import cross_entropy
from fdnn.losses.check import in_0_1
from fdnn.model import Model
from fdnn.train.step import Loss
from fdnn.types import Buffers, Key, Params, Scalar

__all__ = ["mask_tokens", "masked_tokens"]


def mask_tokens(
    key: Key,
    tokens: Tensor,
    *,
    mask_token: int,
    num_tokens: int,
    rate: Scalar = 0.15,
    keep: Scalar = 0.1,
    replace: Scalar = 0.1,
    ignore: int | Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    r"""Choose tokens at random, and put others in their place.

    Each token is chosen with probability $r$, on its own. Of a chosen one $t$ becomes
    $t$ with probability $k$, a token drawn at random with probability $p$, and the mask with
    probability $1 - k - p$.

    Args:
        key: a key.
        tokens: $t$, integers of any shape.
        mask_token: the token that stands for a hidden one.
        num_tokens: how many tokens there are, special ones included.
        rate: $r$, in [0, 1].
        keep: $k$, the share of the chosen that stay as they are, so that the model cannot rely on
            seeing which are asked for.
        replace: $p$, the share of the chosen that become random tokens. `keep + replace` is at
            most 1.
        ignore: a token or tokens that are never chosen, nor put in another's place: padding, and
            what marks begin and end.

    Returns:
        `(corrupted, chosen)`: tokens, and booleans of the same shape that tell which were chosen.

    Raises:
        ValueError: a probability is not in [0, 1], `keep + replace` is above 1, `mask_token` or
            one of `ignore` is no token, or no token is left to replace others.
        TypeError: `tokens` are no integers.

    Example:
        >>> tokens = torch.tensor([[5, 3, 8, 7, 6, 4, 9, 0]])
        >>> corrupted, chosen = mask_tokens(
        ...     random.key(1), tokens, mask_token=1, num_tokens=10, rate=0.4, ignore=0
        ... )
        >>> corrupted, chosen.sum()
        (tensor([[5, 1, 8, 6, 1, 4, 9, 0]]), tensor(3))

    References:
        Devlin, Chang, Lee, Toutanova (2019), "BERT: pre-training of deep bidirectional
        transformers for language understanding". Departures: each token is chosen on its own,
        rather than a fixed number of a sequence; a random token is neither the mask nor ignored.
    """
    ignored = _checked(mask_token, num_tokens, rate, keep, replace, ignore)
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise TypeError(f"`tokens` must be integers, got {tokens.dtype}")
    key_choose, key_fate, key_replace = random.split(key, 3)
    chosen = random.uniform(key_choose, tokens.shape) < rate
    for token in ignored:
        chosen = chosen & (tokens != token)
    special = {mask_token, *ignored}
    drawn = random.randint(key_replace, tokens.shape, 0, num_tokens - len(special), torch.int64)
    for token in sorted(special):  # the n-th of those that are not special
        drawn = drawn + (drawn >= token)
    fate = random.uniform(key_fate, tokens.shape)
    instead = torch.where(fate < keep + replace, drawn.to(tokens.dtype), mask_token)
    return torch.where(chosen & (fate >= keep), instead, tokens), chosen


def masked_tokens(
    model: Model,
    *,
    mask_token: int,
    num_tokens: int,
    rate: Scalar = 0.15,
    keep: Scalar = 0.1,
    replace: Scalar = 0.1,
    ignore: int | Sequence[int] = (),
) -> Loss:
    r"""Build the loss of a masked language model: tell chosen tokens from the corrupted sequence.

    With $m_j = 1$ where `mask_tokens` has chosen the token $t_j$, and $z_j$ the model's logits
    there, the loss is $-\sum_j m_j \log \mathrm{softmax}(z_j)_{t_j} / \max(1, \sum_j m_j)$ over all
    tokens of the batch. The corruption is drawn anew in each step.

    Args:
        model: from `functionalize`; it maps tokens to logits, one more dimension of size
            `num_tokens`: `nn.TokenEncoder` with an `nn.Linear` behind it. A model that hides
            padding from attention reads it from the tokens.
        mask_token: as in `mask_tokens`, like all that follow.
        num_tokens: how many tokens there are, special ones included.
        rate: the probability that a token is chosen.
        keep: the share of the chosen that stay as they are.
        replace: the share of the chosen that become random tokens.
        ignore: tokens that are never chosen, nor put in another's place: padding first of all.

    Returns:
        `loss(params, buffers, batch, key) -> (value, buffers)` for `train.make_step`. The first
        element of `batch` is the tokens; labels, if there are any, are not looked at.

    Raises:
        ValueError: as in `mask_tokens`; or, when called, the model's output has another shape.

    Example:
        >>> from collections import OrderedDict
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> from fdnn.nn import TokenEncoder
        >>> encoder = TokenEncoder(50, 16, 2, 1, max_length=8, padding_idx=0)
        >>> net = nn.Sequential(OrderedDict(encoder=encoder, output=nn.Linear(16, 50)))
        >>> model = functionalize(net)
        >>> loss = masked_tokens(model, mask_token=1, num_tokens=50, ignore=0)
        >>> tokens = torch.tensor([[3, 14, 15, 9], [2, 6, 0, 0]])
        >>> value, _ = loss(model.params, model.buffers, (tokens,), random.key(0))
        >>> value.shape
        torch.Size([])

    References:
        Devlin, Chang, Lee, Toutanova (2019), "BERT: pre-training of deep bidirectional
        transformers for language understanding", without its second task, whether two sentences
        follow each other.
    """
    _checked(mask_token, num_tokens, rate, keep, replace, ignore)

    def loss(params: Params, buffers: Buffers, batch: Any, key: Key) -> tuple[Tensor, Buffers]:
        tokens = batch[0]
        key_mask, key_apply = random.split(key)
        corrupted, chosen = mask_tokens(
            key_mask,
            tokens,
            mask_token=mask_token,
            num_tokens=num_tokens,
            rate=rate,
            keep=keep,
            replace=replace,
            ignore=ignore,
        )
        output, buffers = model.apply(params, buffers, corrupted, key=key_apply, train=True)
        wanted = (*tokens.shape, num_tokens)
        if output.shape != wanted:
            raise ValueError(
                f"`model` must return logits of shape {wanted}, got {tuple(output.shape)}"
            )
        target = torch.where(chosen, tokens, _NOT_ASKED).long()
        value = cross_entropy(
            output.reshape(-1, num_tokens),
            target.reshape(-1),
            ignore_index=_NOT_ASKED,
            reduction="sum",
        )
        return value / chosen.sum().clamp_min(1), buffers

    return loss


_NOT_ASKED = -100


def _checked(
    mask_token: int,
    num_tokens: int,
    rate: Scalar,
    keep: Scalar,
    replace: Scalar,
    ignore: int | Sequence[int],
) -> tuple[int, ...]:
    """Check all that is known before the call; return the tokens to ignore."""
    in_0_1(rate=rate, keep=keep, replace=replace)
    known = not isinstance(keep, Tensor) and not isinstance(replace, Tensor)
    if known and keep + replace > 1:
        raise ValueError(f"`keep + replace` must be at most 1, got {keep} + {replace}")
    ignored = (ignore,) if isinstance(ignore, int) else tuple(ignore)
    for name, tokens in (("mask_token", (mask_token,)), ("ignore", ignored)):
        for token in tokens:
            if not 0 <= token < num_tokens:
                raise ValueError(f"`{name}` must be in [0, {num_tokens}), got {token}")
    special = len({mask_token, *ignored})
    if special == num_tokens:
        raise ValueError(
            f"`num_tokens` must be above {special}, the number of special tokens, got {num_tokens}"
        )
    return ignored
