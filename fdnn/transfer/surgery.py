"""Another head on a model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

from torch import nn
from torch.nn.utils import skip_init

from fdnn import random
from fdnn.model import Model, functionalize
from fdnn.model.functionalize import SKELETONS
from fdnn.model.initialize import Plan
from fdnn.transfer.freezing import resplit
from fdnn.transfer.layers import find

__all__ = ["replace_head"]


def replace_head(model: Model, head: int | nn.Module, *, at: str | None = None) -> Model:
    """Put another layer in the place of a model's last one.

    Args:
        model: from `functionalize`, frozen in part or not.
        head: the new layer; or its number of outputs, if the old one is an `nn.Linear`, of which
            the new one then has inputs, bias, dtype and device. Its values in `params` are those
            of the module, or draws of key 0.
        at: the dotted name of what is replaced; the last of `layers` if left out.

    Returns:
        A model with the values of `model` everywhere else. The new layer is trained, and `init`
        draws it by the default of its type.

    Raises:
        ValueError: there is nothing of the name `at`, it is the whole model, an adapter is in it,
            another layer shares its tensors, or `head` is a number and it is no `nn.Linear`.

    Example:
        >>> import torch
        >>> from fdnn import functionalize
        >>> a = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)))
        >>> b = replace_head(a, 1)
        >>> b.params["2.weight"].shape, torch.equal(b.params["0.weight"], a.params["0.weight"])
        (torch.Size([1, 8]), True)
    """
    at = find(model, at)
    old = model.skeleton().get_submodule(at)
    is_inside = _inside(at)
    if any(is_inside(name) and not is_inside(alias) for alias, name in model.aliases.items()):
        raise ValueError(f"`at`: another layer shares the tensors of {at!r}; replace that one too")
    own = {name for name, _ in model.skeleton().named_parameters()}
    if any(is_inside(name) for name in model._plans if name not in own):
        raise ValueError(f"`at`: {at!r} has an adapter; replace it first, and adapt afterwards")
    if isinstance(head, int):
        like = {**model.params, **model.buffers}.get(f"{at}.weight")
        if not isinstance(old, nn.Linear) or like is None:
            kind = type(old).__name__
            raise ValueError(f"`head` must be a module, since {at!r} is a {kind}, got {head}")
        made = skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, old.in_features, head, old.bias is not None, device=like.device
        ).to(like.dtype)
        new = functionalize(_nested(at, made))
        values = new.init(random.key(0))[0]
    else:
        new = functionalize(_nested(at, head))
        values = new.params
    return _graft(model, dataclasses.replace(new, params=values), at)


def _inside(at: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(at + ".")


def _nested(at: str, module: nn.Module) -> nn.Module:
    """Wrap a module so that its dotted name is `at`, by which its parameters' keys go."""
    for name in reversed(at.split(".")):
        outer = nn.Module()
        outer.add_module(name, module)
        module = outer
    return module


def _graft(model: Model, new: Model, at: str) -> Model:
    """Take one layer from `new`, and all else from `model`."""
    is_inside = _inside(at)
    skeletons = {}
    for name in SKELETONS:
        skeletons[name] = copy.deepcopy(getattr(model, name))
        skeletons[name].set_submodule(at, getattr(new, name).get_submodule(at))
    values = {**model.params, **model.buffers, **new.params}
    known: dict[str, Plan] = {**model._plans, **new._plans}
    names = dict.fromkeys(name for name, _ in skeletons["_train"].named_parameters())
    names |= dict.fromkeys(name for name in model._plans if not is_inside(name))
    buffers = {n: v for n, v in model.buffers.items() if not is_inside(n) and n not in names}
    aliases = {alias: n for alias, n in model.aliases.items() if not is_inside(alias)}
    grafted = dataclasses.replace(
        model,
        params={name: values[name] for name in names},
        buffers={**buffers, **new.buffers},
        _plans={name: known[name] for name in names},
        aliases={**aliases, **new.aliases},
        _renormed=(*(n for n in model._renormed if not is_inside(n)), *new._renormed),
        **skeletons,
    )
    return resplit(grafted, frozenset(n for n in model._frozen if not is_inside(n)))
