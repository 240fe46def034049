"""How `Model.init` draws: a plan for each parameter, made from its layer's type."""

from __future__ import annotations

import copy
import warnings
import zlib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fdnn import random
from fdnn.initializers import torch_default
from fdnn.types import Buffers, Initializer, Key, Params

__all__ = ["Plan", "draw", "fresh_buffers", "plan"]


class Plan(NamedTuple):
    """What is known about drawing one parameter.

    Attributes:
        default: torch's own distribution, if the layer's type is known.
        reset: draws by the layer's own `reset_parameters`, if it has one and no default.
        number: folded into the key of `init`: a hash of the parameter's name.
        is_weight: whether the argument `weight` of `init` speaks of it.
        is_bias: whether the argument `bias` does.
    """

    default: Initializer | None
    reset: Callable[[Key], Tensor] | None
    number: int
    is_weight: bool
    is_bias: bool


def plan(module: nn.Module) -> dict[str, Plan]:
    """Make the plan of every parameter, by dotted name."""
    defaults: dict[str, Initializer] = {}
    # From the leaves up, so that a layer's word about its children (attention's zero bias) wins.
    for path, owner in reversed(list(module.named_modules())):
        for name, initializer in torch_default(owner).items():
            defaults[f"{path}.{name}" if path else name] = initializer
    plans = {}
    for path, parameter in module.named_parameters():
        parent, _, name = path.rpartition(".")
        owner = module.get_submodule(parent)
        default = defaults.get(path)
        resets = default is None and hasattr(owner, "reset_parameters")
        is_embedding = isinstance(owner, nn.Embedding | nn.EmbeddingBag)
        plans[path] = Plan(
            default=default,
            reset=_resetter(copy.deepcopy(owner), name, path) if resets else None,
            number=zlib.crc32(path.encode()),
            is_weight="weight" in name and parameter.ndim >= 2 and not is_embedding,
            is_bias="bias" in name,
        )
    return plans


def draw(
    key: Key,
    plans: dict[str, Plan],
    own: Params,
    weight: Initializer | None,
    bias: Initializer | None,
    rules: Sequence[tuple[str, Initializer]],
) -> Params:
    """Draw every parameter; `own` gives shapes, dtypes, devices and the module's values."""
    for pattern, _ in rules:
        if not any(fnmatchcase(path, pattern) for path in plans):
            raise ValueError(f"`rules`: {pattern!r} matches no parameter; they are {list(plans)}")
    params, kept = {}, []
    for path, known in plans.items():
        value = own[path]
        initializer = _choose(path, known, weight, bias, rules)
        parameter_key = random.fold_in(key, known.number)
        if initializer is not None:
            params[path] = initializer(parameter_key, value.shape, value.dtype, value.device)
        elif known.reset is not None:
            params[path] = known.reset(parameter_key)
        else:
            params[path] = value.clone()
            kept.append(path)
    if kept:
        warnings.warn(
            f"nothing says how to draw {kept}, so `init` keeps the module's own values; give a "
            "rule: `model.init(key, rules=[(pattern, initializer)])`",
            UserWarning,
            stacklevel=3,
        )
    return params


def fresh_buffers(module: nn.Module, own: Buffers) -> Buffers:
    """Copy the module's buffers, running statistics as a new layer has them."""
    fresh = {name: value.clone() for name, value in own.items()}
    for path, layer in module.named_modules():
        if not hasattr(layer, "reset_running_stats"):
            continue
        for name, value in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
            full = f"{path}.{name}" if path else name
            if full in fresh:
                fresh[full] = torch.full_like(fresh[full], value)
    return fresh


def _choose(
    path: str,
    known: Plan,
    weight: Initializer | None,
    bias: Initializer | None,
    rules: Sequence[tuple[str, Initializer]],
) -> Initializer | None:
    for pattern, initializer in rules:
        if fnmatchcase(path, pattern):
            return initializer
    if known.is_weight and weight is not None:
        return weight
    if known.is_bias and bias is not None:
        return bias
    return known.default


def _resetter(owner: Any, name: str, path: str) -> Callable[[Key], Tensor]:
    """Draw a parameter by its layer's `reset_parameters`, torch's generator lent for the call."""

    def reset(key: Key) -> Tensor:
        try:
            seed = int(random.bits(key, (), torch.uint32).to(torch.int64))
        except RuntimeError as error:
            raise ValueError(
                f"under vmap, parameter {path!r} cannot be drawn by its layer's own "
                "`reset_parameters`; give a rule: `model.init(key, rules=[(pattern, initializer)])`"
            ) from error
        layer = copy.deepcopy(owner)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            layer.reset_parameters()
        value: Tensor = getattr(layer, name)
        return value.detach().clone()

    return reset
