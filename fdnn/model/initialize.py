"""How `Model.init` draws: a plan for each parameter, made from its layer's type."""

from __future__ import annotations

import copy
import warnings
import zlib
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fdnn import random
from fdnn.initializers import torch_default
from fdnn.types import Buffers, Initializer, Key, Params

__all__ = ["NEW_STATISTICS", "Plan", "draw", "fresh_buffers", "plan"]

NEW_STATISTICS = {"running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
"""What the running statistics of a new layer hold."""


class Reset(NamedTuple):
    """A layer's own `reset_parameters`, for a type without a rule.

    Attributes:
        owner: the layer's dotted name.
        number: folded into the key of `init`: a hash of that name.
        draw: gives all parameters of the layer together, by their names in it.
    """

    owner: str
    number: int
    draw: Callable[[Key], dict[str, Tensor]]


class Plan(NamedTuple):
    """What is known about drawing one parameter.

    Attributes:
        name: what the parameter is called in its layer.
        default: torch's own distribution, if the layer's type is known.
        reset: how the layer draws it, if it can and there is no default.
        number: folded into the key of `init`: a hash of the parameter's dotted name.
        is_weight: whether the argument `weight` of `init` speaks of it.
        is_bias: whether the argument `bias` does.
    """

    name: str
    default: Initializer | None
    reset: Reset | None
    number: int
    is_weight: bool
    is_bias: bool


def plan(module: nn.Module) -> dict[str, Plan]:
    """Make the plan of every parameter, by dotted name."""
    defaults: dict[str, Initializer] = {}
    # From the leaves up, so that a layer's word about its children (attention's zero bias) wins.
    for path, owner in reversed(list(module.named_modules())):
        own = getattr(owner, "initializers", {})  # what a module says of itself
        for name, initializer in {**torch_default(owner), **own}.items():
            defaults[f"{path}.{name}" if path else name] = initializer
    resets: dict[str, Reset] = {}
    plans = {}
    for path, parameter in module.named_parameters():
        parent, _, name = path.rpartition(".")
        owner = module.get_submodule(parent)
        default = defaults.get(path)
        if default is None and parent not in resets and hasattr(owner, "reset_parameters"):
            resets[parent] = Reset(parent, _hash(parent), _resetter(owner, parent))
        is_embedding = isinstance(owner, nn.Embedding | nn.EmbeddingBag)
        plans[path] = Plan(
            name=name,
            default=default,
            reset=resets.get(parent) if default is None else None,
            number=_hash(path),
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
    """Draw the parameters of `own`, which gives shapes, dtypes and the module's values."""
    for pattern, _ in rules:
        if not any(fnmatchcase(path, pattern) for path in own):
            raise ValueError(f"`rules`: {pattern!r} matches no parameter; they are {list(own)}")
    params, kept = {}, []
    reset: dict[str, dict[str, Tensor]] = {}
    for path, value in own.items():
        known = plans[path]
        initializer = _choose(path, known, weight, bias, rules)
        if initializer is not None:
            own_key = random.fold_in(key, known.number)
            params[path] = initializer(own_key, value.shape, value.dtype, key.device)
        elif known.reset is not None:
            owner, number, draw_all = known.reset
            if owner not in reset:
                reset[owner] = draw_all(random.fold_in(key, number))
            params[path] = reset[owner][known.name].to(key.device)
        else:
            params[path] = _copy(value, key)
            kept.append(path)
    if kept and not torch.compiler.is_compiling():
        warnings.warn(
            f"nothing says how to draw {kept}, so `init` keeps the module's own values; give a "
            "rule: `model.init(key, rules=[(pattern, initializer)])`",
            UserWarning,
            stacklevel=3,
        )
    return params


def fresh_buffers(key: Key, module: nn.Module, own: Buffers, kept: Collection[str]) -> Buffers:
    """Copy the module's buffers, running statistics (but those to be kept) as a new layer's."""
    new: dict[str, int] = {}
    for path, layer in module.named_modules():
        if hasattr(layer, "reset_running_stats"):
            names = {f"{path}.{name}" if path else name: name for name in NEW_STATISTICS}
            new |= {full: NEW_STATISTICS[name] for full, name in names.items()}
    return {
        name: key.new_full(value.shape, new[name], dtype=value.dtype)
        if name in new and name not in kept
        else _copy(value, key)
        for name, value in own.items()
    }


def _copy(value: Tensor, key: Key) -> Tensor:
    """Copy a tensor to where the key is, with memory of its own in every lane of a vmap."""
    return key.new_zeros(value.shape, dtype=value.dtype).copy_(value)


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


def _resetter(owner: Any, path: str) -> Callable[[Key], dict[str, Tensor]]:
    """Draw a layer by its `reset_parameters`, torch's CPU generator lent for the call."""
    pristine = copy.deepcopy(owner).cpu()

    def reset(key: Key) -> dict[str, Tensor]:
        try:
            seed = int(random.bits(key, (), torch.uint32).to(torch.int64))
        except RuntimeError as error:
            raise ValueError(
                f"under vmap, layer {path!r} cannot be drawn by its own `reset_parameters`; give "
                "its parameters a rule: `model.init(key, rules=[(pattern, initializer)])`"
            ) from error
        layer = copy.deepcopy(pristine)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            layer.reset_parameters()
        return {name: value.detach() for name, value in layer.named_parameters(recurse=False)}

    return reset


def _hash(name: str) -> int:
    return zlib.crc32(name.encode())
