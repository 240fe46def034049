"""Keyed twins of torch's random operations: the same signature after the key, the same law.

`TWINS` maps an operation to `(draws, twin)`: whether a call with these arguments draws at all,
and what to do if it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fdnn import random
from fdnn.types import Key

__all__ = ["TWINS"]

_SELU_SATURATION = -1.7580993408473766  # -(scale * alpha) of selu, where dropped units go


# --- the dropout family -----------------------------------------------------------------------


def dropout(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero each element with probability `p`, scale the others by 1 / (1 - p)."""
    return _into(input, _drop(key, input, p, input.shape), inplace)


def channel_dropout(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero whole channels of an input of shape (N, C, ...)."""
    shape = input.shape[:2] + (1,) * (input.ndim - 2)
    return _into(input, _drop(key, input, p, shape), inplace)


def dropout1d(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`channel_dropout` of (N, C, L) or (C, L)."""
    return _batched(3, key, input, p, inplace)


def dropout3d(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`channel_dropout` of (N, C, D, H, W) or (C, D, H, W)."""
    return _batched(5, key, input, p, inplace)


def alpha_dropout(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Dropout that keeps the mean and variance of standard normal activations of selu."""
    return _into(input, _drop_to_saturation(key, input, p, input.shape), inplace)


def feature_alpha_dropout(
    key: Key, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels."""
    shape = input.shape[:2] + (1,) * (input.ndim - 2)
    return _into(input, _drop_to_saturation(key, input, p, shape), inplace)


def rrelu(
    key: Key,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Leaky ReLU with a slope drawn for each element."""
    slope = random.uniform(key, input.shape, _drawn_dtype(input), lower, upper).to(input.dtype)
    return _into(input, torch.where(input >= 0, input, input * slope), inplace)


def scaled_dot_product_attention(
    key: Key,
    query: Tensor,
    key_: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention with dropout of the attention weights, in its plain form."""
    if enable_gqa:
        repeats = query.shape[-3] // key_.shape[-3]
        key_, value = key_.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key_.transpose(-2, -1) * factor
    if is_causal:
        sizes = scores.shape[-2:]
        attn_mask = torch.ones(sizes, dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return dropout(key, scores.softmax(-1), dropout_p) @ value


def _attention_twin(key: Key, *args: Any, **kwargs: Any) -> Tensor:
    """Resolve the clash between the random key and attention's own argument `key`."""
    if "key" in kwargs:
        kwargs = {**kwargs, "key_": kwargs["key"]}
        del kwargs["key"]
    return scaled_dot_product_attention(key, *args, **kwargs)


def gumbel_softmax(
    key: Key,
    logits: Tensor,
    tau: float = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
) -> Tensor:
    """Sample from a softmax so that the sample can be differentiated; `hard` gives one-hots."""
    noise = random.gumbel(key, logits.shape, _drawn_dtype(logits)).to(logits.dtype)
    soft = ((logits + noise) / tau).softmax(dim)
    if not hard:
        return soft
    index = soft.argmax(dim, keepdim=True)
    return torch.zeros_like(soft).scatter(dim, index, 1.0) - soft.detach() + soft


# --- tensors made of noise --------------------------------------------------------------------


def rand(key: Key, *size: Any, **options: Any) -> Tensor:
    """Uniform numbers on [0, 1)."""
    shape, dtype, device = _created(key, size, options)
    return _finish(random.uniform(key, shape, dtype), device, options)


def randn(key: Key, *size: Any, **options: Any) -> Tensor:
    """Standard normal numbers."""
    shape, dtype, device = _created(key, size, options)
    return _finish(random.normal(key, shape, dtype), device, options)


def rand_like(key: Key, input: Tensor, **options: Any) -> Tensor:
    """Uniform numbers of the input's shape, dtype and device."""
    return rand(key, input.shape, **{**_like(input), **options})


def randn_like(key: Key, input: Tensor, **options: Any) -> Tensor:
    """Standard normal numbers of the input's shape, dtype and device."""
    return randn(key, input.shape, **{**_like(input), **options})


def randint(key: Key, *args: Any, **options: Any) -> Tensor:
    """Integers from [low, high): `randint(high, size)` or `randint(low, high, size)`."""
    options = {**dict(zip(("low", "high", "size")[3 - len(args) :], args, strict=True)), **options}
    shape = options.pop("size")
    low, high = options.pop("low", 0), options.pop("high")
    wide = random.randint(key, tuple(shape), low, high, torch.int64)
    return _finish(wide.to(options.get("dtype") or torch.int64), options.get("device"), options)


def randint_like(key: Key, input: Tensor, *args: Any, **options: Any) -> Tensor:
    """Integers from [low, high) of the input's shape, dtype and device."""
    return randint(key, *args, size=input.shape, **{**_like(input), **options})


def randperm(key: Key, n: int, **options: Any) -> Tensor:
    """A permutation of 0, ..., n - 1."""
    order = random.permutation(key, n)
    return _finish(order.to(options.get("dtype") or torch.int64), options.get("device"), options)


def normal(key: Key, mean: Any, std: Any = 1.0, size: Any = None, **options: Any) -> Tensor:
    """Normal numbers with the given means and standard deviations."""
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    if tensors:
        size, options = (mean + std).shape, {**_like(tensors[0]), **options}
    noise: Tensor = randn(key, size, **options) * std + mean
    return noise


def bernoulli(key: Key, input: Tensor, p: float | None = None, **options: Any) -> Tensor:
    """Ones with the probabilities in `input` (or `p`), else zeros, in the input's dtype."""
    _refuse(options)
    if p is not None:
        return random.bernoulli(key, p, input.shape).to(input.dtype)
    return random.bernoulli(key, input.to(_drawn_dtype(input))).to(input.dtype)


def multinomial(
    key: Key, input: Tensor, num_samples: int, replacement: bool = False, **options: Any
) -> Tensor:
    """Categories drawn with the weights in the rows of `input`."""
    _refuse(options)
    logits = torch.log(input)
    if replacement:
        shape = (num_samples, *input.shape[:-1])
        return random.categorical(key, logits, shape=shape).movedim(0, -1)
    noisy = logits + random.gumbel(key, input.shape, input.dtype)
    return noisy.topk(num_samples, dim=-1).indices


# --- tensors filled in place ------------------------------------------------------------------


def bernoulli_(key: Key, input: Tensor, p: Any = 0.5, **options: Any) -> Tensor:
    """Fill with ones of probability `p`, else zeros."""
    _refuse(options)
    if isinstance(p, Tensor):
        p = p.to(_drawn_dtype(p))
    return input.copy_(random.bernoulli(key, p, input.shape))


def uniform_(key: Key, input: Tensor, a: Any = 0.0, b: Any = 1.0, **options: Any) -> Tensor:
    """Fill with uniform numbers on [a, b)."""
    low, high = options.pop("from", a), options.pop("to", b)
    _refuse(options)
    return input.copy_(random.uniform(key, input.shape, _drawn_dtype(input), low, high))


def normal_(key: Key, input: Tensor, mean: Any = 0.0, std: Any = 1.0, **options: Any) -> Tensor:
    """Fill with normal numbers."""
    _refuse(options)
    return input.copy_(random.normal(key, input.shape, _drawn_dtype(input)) * std + mean)


def log_normal_(key: Key, input: Tensor, mean: Any = 1.0, std: Any = 2.0, **options: Any) -> Tensor:
    """Fill with exponentials of normal numbers."""
    _refuse(options)
    return input.copy_(torch.exp(random.normal(key, input.shape, _drawn_dtype(input)) * std + mean))


def exponential_(key: Key, input: Tensor, lambd: Any = 1.0, **options: Any) -> Tensor:
    """Fill with exponential numbers of rate `lambd`."""
    _refuse(options)
    tiny = torch.finfo(_drawn_dtype(input)).tiny  # torch's exponential_ never gives 0
    drawn = random.exponential(key, input.shape, _drawn_dtype(input)).clamp_min(tiny)
    return input.copy_(drawn / lambd)


def random_(key: Key, input: Tensor, *bounds: int, **options: Any) -> Tensor:
    """Fill with integers: of [0, to), of [from, to), or of all that the dtype holds exactly."""
    low = options.pop("from", bounds[0] if len(bounds) == 2 else 0)
    high = options.pop("to", bounds[-1] if bounds else None)
    _refuse(options)
    if high is None:
        dtype = input.dtype
        high = (
            2 ** (24 if dtype is torch.float32 else 53)
            if dtype.is_floating_point
            else (2 if dtype is torch.bool else torch.iinfo(dtype).max)
        )
    return input.copy_(random.randint(key, input.shape, low, high, torch.int64))


# --- what they share --------------------------------------------------------------------------


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


def _batched(ndim: int, key: Key, input: Tensor, p: float, inplace: bool) -> Tensor:
    if input.ndim == ndim:
        return channel_dropout(key, input, p, inplace=inplace)
    return _into(input, channel_dropout(key, input.unsqueeze(0), p).squeeze(0), inplace)


def _into(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    return input.copy_(result) if inplace else result


def _drawn_dtype(input: Tensor) -> torch.dtype:
    return input.dtype if input.is_floating_point() else torch.float32


def _like(input: Tensor) -> dict[str, Any]:
    return {"dtype": input.dtype, "device": input.device}


def _created(key: Key, size: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Shape, dtype and device of a tensor to be made with torch's creation arguments."""
    if "size" in options:
        size = (options["size"],)
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    return shape, options.get("dtype") or torch.get_default_dtype(), options.get("device")


def _finish(made: Tensor, device: Any, options: dict[str, Any]) -> Tensor:
    _refuse(options)
    made = made if device is None else made.to(device)
    return made.requires_grad_() if options.get("requires_grad") else made


def _refuse(options: dict[str, Any]) -> None:
    for name in ("generator", "out"):
        if options.get(name) is not None:
            raise ValueError(
                f"`{name}` must not be given to a random operation inside a functional model: "
                "its randomness comes from `key`"
            )


def _in_training(input: Any, p: float = 0.5, training: bool = True, *_: Any, **__: Any) -> bool:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"`p` must be in [0, 1], got {p}")
    return training and p > 0


def _vf_in_training(input: Any, p: float, train: bool) -> bool:
    return train and p > 0


def _rrelu_in_training(
    input: Any,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *_: Any,
    **__: Any,
) -> bool:
    return training


def _attention_drops(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    *_: Any,
    **__: Any,
) -> bool:
    return dropout_p > 0


def _always(*_: Any, **__: Any) -> bool:
    return True


def _positional(twin: Callable[..., Tensor], inplace: bool) -> Callable[..., Tensor]:
    """Adapt a twin to the C signature `(input, p, train)`."""
    return lambda key, input, p, train: twin(key, input, p, train, inplace)


_PYTHON = {
    F.dropout: dropout,
    F.dropout1d: dropout1d,
    F.dropout2d: channel_dropout,
    F.dropout3d: dropout3d,
    F.alpha_dropout: alpha_dropout,
    F.feature_alpha_dropout: feature_alpha_dropout,
}
_COMPILED = {
    "dropout": dropout,
    "feature_dropout": channel_dropout,
    "alpha_dropout": alpha_dropout,
    "feature_alpha_dropout": feature_alpha_dropout,
}
_NOISE = (rand, randn, rand_like, randn_like, randint, randint_like, randperm, normal)
_FILLS = (bernoulli_, uniform_, normal_, log_normal_, exponential_, random_)

TWINS: dict[Any, tuple[Callable[..., bool], Callable[..., Tensor]]] = {
    **{function: (_in_training, twin) for function, twin in _PYTHON.items()},
    **{
        getattr(torch, name + suffix): (_vf_in_training, _positional(twin, bool(suffix)))
        for name, twin in _COMPILED.items()
        for suffix in ("", "_")
    },
    F.rrelu: (_rrelu_in_training, rrelu),
    torch.rrelu: (_rrelu_in_training, rrelu),
    F.gumbel_softmax: (_always, gumbel_softmax),
    F.scaled_dot_product_attention: (_attention_drops, _attention_twin),
    **{getattr(torch, twin.__name__): (_always, twin) for twin in _NOISE},
    **{
        getattr(owner, twin.__name__): (_always, twin)
        for owner in (torch, torch.Tensor)
        for twin in (bernoulli, multinomial)
    },
    **{getattr(torch.Tensor, twin.__name__): (_always, twin) for twin in _FILLS},
}
