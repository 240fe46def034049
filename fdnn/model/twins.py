"""Which random operation of torch has which keyed twin.

`TWINS` maps an operation to `(draws, twin)`: whether a call with these arguments draws at all,
and what to do if it does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fdnn.model import noise, stochastic

__all__ = ["TWINS"]


def _in_training(input: Any, p: float = 0.5, training: bool = True, *_: Any, **__: Any) -> bool:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"`p` must be in [0, 1], got {p}")
    return training and p > 0


def _vf_in_training(input: Any, p: float, train: bool) -> bool:
    return _in_training(input, p, train)


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
    return _in_training(query, dropout_p)


def _regions_wanted(*_: Any, _random_samples: Tensor | None = None, **__: Any) -> bool:
    return _random_samples is None


def _always(*_: Any, **__: Any) -> bool:
    return True


def _positional(twin: Callable[..., Tensor], inplace: bool) -> Callable[..., Tensor]:
    """Adapt a twin to the C signature `(input, p, train)`."""
    return lambda key, input, p, train: twin(key, input, p, train, inplace)


_PYTHON = {
    F.dropout: stochastic.dropout,
    F.dropout1d: stochastic.dropout1d,
    F.dropout2d: stochastic.channel_dropout,
    F.dropout3d: stochastic.dropout3d,
    F.alpha_dropout: stochastic.alpha_dropout,
    F.feature_alpha_dropout: stochastic.feature_alpha_dropout,
}
_COMPILED = {
    "dropout": stochastic.dropout,
    "feature_dropout": stochastic.channel_dropout,
    "alpha_dropout": stochastic.alpha_dropout,
    "feature_alpha_dropout": stochastic.feature_alpha_dropout,
}
_POOLS: dict[Callable[..., Any], int] = {
    F.fractional_max_pool2d: 2,
    F.fractional_max_pool2d_with_indices: 2,
    F.fractional_max_pool3d: 3,
    F.fractional_max_pool3d_with_indices: 3,
}
_MADE = (
    "rand",
    "randn",
    "rand_like",
    "randn_like",
    "randint",
    "randint_like",
    "randperm",
    "normal",
)
_FILLS = ("bernoulli_", "uniform_", "normal_", "log_normal_", "exponential_", "random_")

TWINS: dict[Any, tuple[Callable[..., bool], Callable[..., Tensor]]] = {
    **{function: (_in_training, twin) for function, twin in _PYTHON.items()},
    **{
        getattr(torch, name + suffix): (_vf_in_training, _positional(twin, bool(suffix)))
        for name, twin in _COMPILED.items()
        for suffix in ("", "_")
    },
    F.rrelu: (_rrelu_in_training, stochastic.rrelu),
    torch.rrelu: (_rrelu_in_training, stochastic.rrelu),
    torch.rrelu_: (_rrelu_in_training, functools.partial(stochastic.rrelu, inplace=True)),
    **{
        function: (
            _regions_wanted,
            functools.partial(stochastic.fractional_max_pool, function, dims),
        )
        for function, dims in _POOLS.items()
    },
    F.gumbel_softmax: (_always, stochastic.gumbel_softmax),
    F.scaled_dot_product_attention: (_attention_drops, stochastic.attention),
    **{getattr(torch, name): (_always, getattr(noise, name)) for name in _MADE},
    **{getattr(Tensor, name): (_always, getattr(noise, name)) for name in _FILLS},
    **{
        getattr(owner, name): (_always, getattr(noise, name))
        for owner in (torch, Tensor)
        for name in ("bernoulli", "multinomial")
    },
}
