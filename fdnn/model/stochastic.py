"""Keyed twins of torch's random functions of activations: the dropout family and its kin.

Each has the signature of its original after the key, and its law. The flag `training` is true
wherever a twin is called: `fdnn.model.twins` says when.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn import activations, random
from fdnn.model.noise import refuse, wide
from fdnn.types import Key

__all__ = [
    "alpha_dropout",
    "attention",
    "channel_dropout",
    "dropout",
    "dropout1d",
    "dropout3d",
    "feature_alpha_dropout",
    "fractional_max_pool",
    "gumbel_softmax",
    "rrelu",
]

# Where dropped units go: what selu tends to, -(scale * alpha).
_SELU_SATURATION = activations.selu(torch.tensor(-torch.inf, dtype=torch.float64)).item()


def dropout(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero each element with probability `p`, scale the others by 1 / (1 - p)."""
    return _into(input, _drop(key, input, p, input.shape), inplace)


def channel_dropout(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero whole channels of an input of shape (N, C, ...)."""
    return _into(input, _drop(key, input, p, _channels(input)), inplace)


def dropout1d(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`channel_dropout` of (N, C, L) or (C, L)."""
    return _drop_batched(key, input, p, inplace, ndim=3)


def dropout3d(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`channel_dropout` of (N, C, D, H, W) or (C, D, H, W)."""
    return _drop_batched(key, input, p, inplace, ndim=5)


def alpha_dropout(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Dropout that keeps the mean and variance of standard normal activations of selu."""
    return _into(input, _drop_to_saturation(key, input, p, input.shape), inplace)


def feature_alpha_dropout(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels."""
    return _into(input, _drop_to_saturation(key, input, p, _channels(input)), inplace)


def rrelu(
    key: Key,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
    **options: Any,
) -> Tensor:
    """Leaky ReLU with a slope drawn for each element."""
    refuse(options)
    return _into(input, activations.rrelu(input, lower, upper, key=key), inplace)


def attention(
    own: Key,
    /,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention with dropout of the attention weights, in its plain form; `own` is the key."""
    if is_causal and attn_mask is not None:
        raise ValueError("`attn_mask` must be None if `is_causal`")
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.transpose(-2, -1) * factor
    if is_causal:
        sizes = scores.shape[-2:]
        attn_mask = torch.ones(sizes, dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = scores.softmax(-1) if attn_mask is None else _masked_softmax(scores)
    return dropout(own, weights, dropout_p) @ value


def _masked_softmax(scores: Tensor) -> Tensor:
    """Softmax with zeros, as torch's attention has it, where a whole row is masked."""
    masked = scores.detach().amax(-1, keepdim=True) == -math.inf
    return scores.masked_fill(masked, 0.0).softmax(-1).masked_fill(masked, 0.0)


def gumbel_softmax(
    key: Key,
    logits: Tensor,
    tau: float = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
) -> Tensor:
    """Sample from a softmax so that the sample can be differentiated; `hard` gives one-hots."""
    noise = random.gumbel(key, logits.shape, wide(logits.dtype)).to(logits.dtype)
    soft = ((logits + noise) / tau).softmax(dim)
    if not hard:
        return soft
    index = soft.argmax(dim, keepdim=True)
    return torch.zeros_like(soft).scatter(dim, index, 1.0) - soft.detach() + soft


def fractional_max_pool(
    function: Callable[..., Any], dims: int, key: Key, input: Tensor, *args: Any, **options: Any
) -> Any:
    """Max pooling by torch's `function`, over `dims` dimensions, its region sizes drawn here."""
    batch = input.shape[: -dims - 1] or (1,)
    samples = random.uniform(key, (*batch, input.shape[-dims - 1], dims), input.dtype)
    return function(input, *args, **{**options, "_random_samples": samples})


def _drop(key: Key, input: Tensor, p: float, shape: Any) -> Tensor:
    if p == 1.0:
        return torch.zeros_like(input)
    return torch.where(random.bernoulli(key, 1 - p, shape), input / (1 - p), 0.0)


def _drop_to_saturation(key: Key, input: Tensor, p: float, shape: Any) -> Tensor:
    if p == 1.0:
        return torch.zeros_like(input)
    a = 1 / math.sqrt((1 - p) * (1 + p * _SELU_SATURATION**2))
    b = -a * _SELU_SATURATION * p
    kept: Tensor = torch.where(random.bernoulli(key, 1 - p, shape), input, _SELU_SATURATION)
    return kept * a + b


def _drop_batched(key: Key, input: Tensor, p: float, inplace: bool, ndim: int) -> Tensor:
    if input.ndim not in (ndim - 1, ndim):
        raise ValueError(
            f"`input` must have {ndim - 1} or {ndim} dimensions, got shape {tuple(input.shape)}"
        )
    shape = _channels(input, batch_dims=input.ndim - ndim + 1)
    return _into(input, _drop(key, input, p, shape), inplace)


def _channels(input: Tensor, batch_dims: int = 1) -> tuple[int, ...]:
    """The shape of one number for each channel, which comes after the batch dimensions."""
    spatial_dims = input.ndim - batch_dims - 1
    return tuple(input.shape[: batch_dims + 1]) + (1,) * spatial_dims


def _into(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    return input.copy_(result) if inplace else result
