"""How torch itself resets each type of layer, as initializers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fdnn import random
from fdnn.initializers.building import initializer
from fdnn.initializers.distributions import constant, normal, ones, uniform, zeros
from fdnn.initializers.scaling import glorot_normal, glorot_uniform
from fdnn.types import Initializer, Key

__all__ = ["torch_default"]

Initializers = dict[str, Initializer]


def torch_default(module: nn.Module) -> Initializers:
    """Say how torch draws a module's own parameters when it is built.

    With fan_in that of the weight (for a transposed convolution, as torch counts it):

    - Linear, Conv, ConvTranspose: weight and bias U(-1/sqrt(fan_in), 1/sqrt(fan_in));
      Bilinear: the same with in1_features
    - RNN, LSTM, GRU and their cells: everything U(-1/sqrt(hidden_size), 1/sqrt(hidden_size))
    - Embedding, EmbeddingBag: N(0, 1), the row `padding_idx` zero
    - batch, instance, group, layer and RMS norm: weight 1, bias 0; PReLU: its `init`
    - MultiheadAttention: input projections Glorot uniform, bias_k and bias_v Glorot normal,
      the other biases 0, that of its child as "out_proj.bias"
    - Transformer: "dotted.name" of every parameter below it with two dimensions or more, Glorot
      uniform

    torch resets a module after its children, so a dotted entry goes before the child's own. Only
    shapes and settings are read, so a module on the meta device serves.

    Args:
        module: any module. Its children are not visited, except as said.

    Returns:
        An initializer for each parameter that torch's rule covers and `module` has (those that
        are `None`, parametrized or the user's own are absent). Empty for a type that has no rule
        here, for a lazy module, and for a subclass whose own reset method takes the rule's place.

    Example:
        >>> rules = torch_default(nn.Linear(4, 2))
        >>> sorted(rules)
        ['bias', 'weight']
        >>> bool(rules["weight"](random.key(0), (2, 4)).abs().max() <= 0.5)
        True
        >>> sorted(torch_default(nn.MultiheadAttention(4, 2)))
        ['in_proj_bias', 'in_proj_weight', 'out_proj.bias']
        >>> torch_default(nn.ReLU())
        {}

    References:
        The `reset_parameters` methods of `torch.nn`. That of linear layers is
        `kaiming_uniform_(a=sqrt(5))`, whose bound is 1/sqrt(fan_in).
    """
    for types, reset, rule in _RULES:
        if isinstance(module, types):
            if getattr(type(module), reset) is not getattr(types[0], reset):
                return {}
            present = {name for name, _ in module.named_parameters(remove_duplicate=False)}
            return {name: init for name, init in rule(module).items() if name in present}
    return {}


def _symmetric(fan: int) -> Initializer:
    bound = 1 / math.sqrt(fan) if fan > 0 else 0.0
    return uniform(-bound, bound)


def _linear(module: nn.Linear) -> Initializers:
    return dict.fromkeys(("weight", "bias"), _symmetric(module.in_features))


def _bilinear(module: nn.Bilinear) -> Initializers:
    return dict.fromkeys(("weight", "bias"), _symmetric(module.in1_features))


def _convolution(module: Any) -> Initializers:
    channels = module.out_channels if module.transposed else module.in_channels  # shape[1]
    fan_in = channels // module.groups * math.prod(module.kernel_size)
    return dict.fromkeys(("weight", "bias"), _symmetric(fan_in))


def _recurrent(module: nn.RNNBase | nn.RNNCellBase) -> Initializers:
    names = (name for name, _ in module.named_parameters(recurse=False))
    return dict.fromkeys(names, _symmetric(module.hidden_size))


def _embedding(module: nn.Embedding | nn.EmbeddingBag) -> Initializers:
    padding = module.padding_idx
    if padding is None:
        return {"weight": normal()}

    def sample(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        row = torch.arange(shape[0], device=key.device).unsqueeze(1)
        return torch.where(row == padding, 0.0, random.normal(key, shape, dtype))

    return {"weight": initializer(sample)}


def _norm(module: nn.Module) -> Initializers:
    return {"weight": ones, "bias": zeros}


def _prelu(module: nn.PReLU) -> Initializers:
    return {"weight": constant(module.init)}


def _attention(module: nn.MultiheadAttention) -> Initializers:
    projections = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    rules = dict.fromkeys(projections, glorot_uniform())
    rules |= dict.fromkeys(("bias_k", "bias_v"), glorot_normal())
    if module.in_proj_bias is not None:
        rules |= {"in_proj_bias": zeros, "out_proj.bias": zeros}
    return rules


def _transformer(module: nn.Transformer) -> Initializers:
    rule = glorot_uniform()
    return {name: rule for name, value in module.named_parameters() if value.ndim > 1}


# Types, the method in which torch resets them, and what it does. The types of a row share it.
_RULES: list[tuple[tuple[Any, ...], str, Callable[[Any], Initializers]]] = [
    ((nn.Linear,), "reset_parameters", _linear),
    ((nn.Bilinear,), "reset_parameters", _bilinear),
    (
        (
            nn.Conv1d,
            nn.Conv2d,
            nn.Conv3d,
            nn.ConvTranspose1d,
            nn.ConvTranspose2d,
            nn.ConvTranspose3d,
        ),
        "reset_parameters",
        _convolution,
    ),
    ((nn.RNN, nn.LSTM, nn.GRU), "reset_parameters", _recurrent),
    ((nn.RNNCell, nn.LSTMCell, nn.GRUCell), "reset_parameters", _recurrent),
    ((nn.Embedding,), "reset_parameters", _embedding),
    ((nn.EmbeddingBag,), "reset_parameters", _embedding),
    (
        (
            nn.BatchNorm1d,
            nn.BatchNorm2d,
            nn.BatchNorm3d,
            nn.SyncBatchNorm,
            nn.InstanceNorm1d,
            nn.InstanceNorm2d,
            nn.InstanceNorm3d,
        ),
        "reset_parameters",
        _norm,
    ),
    ((nn.LayerNorm,), "reset_parameters", _norm),
    ((nn.GroupNorm,), "reset_parameters", _norm),
    ((nn.RMSNorm,), "reset_parameters", _norm),
    ((nn.PReLU,), "reset_parameters", _prelu),
    ((nn.MultiheadAttention,), "_reset_parameters", _attention),
    ((nn.Transformer,), "_reset_parameters", _transformer),
]
