"""`load_params`: a torch `state_dict` or a hub's safetensors file as parameters and buffers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn.model import Model
from fdnn.train.checkpoint import load
from fdnn.train.checkpoint_file import opened
from fdnn.types import Buffers, Params

__all__ = ["LoadedParams", "load_params"]


class LoadedParams(NamedTuple):
    """What `load_params` found.

    Attributes:
        params: parameters by dotted name.
        buffers: buffers by dotted name.
        missing: names of the model that the source lacks.
        unexpected: names of the source that the model lacks.
        mismatched: names that both have but that do not fit, each with what was expected and found.
    """

    params: Params
    buffers: Buffers
    missing: list[str]
    unexpected: list[str]
    mismatched: dict[str, str]


def load_params(
    source: str | os.PathLike[str] | Mapping[str, Tensor], model: Model, *, strict: bool = True
) -> LoadedParams:
    """Bring weights from elsewhere into the form of a model.

    They get the model's dtypes and devices. Where tied tensors have several names in the module,
    any of them will do; buffers that torch keeps out of a `state_dict` keep the model's value.

    Args:
        source: a `state_dict`, or a safetensors file, of a hub or of `train.save(path, params)`.
        model: from `functionalize`.
        strict: raise if anything does not fit. Otherwise what does not fit keeps the model's own
            value, `model.params[name]`, and the result says what that was.

    Returns:
        Parameters and buffers, new tensors, and the names that did not fit.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no safetensors file or damaged, or names or shapes do not fit and
            `strict` is set; the message lists them all.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(2, 1))
        >>> weights = {"weight": torch.ones(1, 2), "scale": torch.ones(1)}
        >>> found = load_params(weights, model, strict=False)
        >>> found.params["weight"], found.missing, found.unexpected
        (tensor([[1., 1.]]), ['bias'], ['scale'])
    """
    given = source if isinstance(source, Mapping) else _read(Path(source))
    own = {**model.params, **model.buffers}
    kept = set(model.skeleton().state_dict())  # not so buffers with persistent=False
    values, missing = dict(own), []
    mismatched: dict[str, str] = {}
    for name, like in own.items():
        names = [name, *(alias for alias, first in model.aliases.items() if first == name)]
        found = {each: given[each] for each in names if each in given}
        wrong = _misfits(found, like)
        mismatched |= wrong
        if found and not wrong:
            values[name] = next(iter(found.values())).detach().to(like.device, like.dtype)
        elif not found and name in kept:
            missing.append(name)
    unexpected = [name for name in given if name not in own and name not in model.aliases]
    if strict and (missing or unexpected or mismatched):
        where = "`source`" if given is source else repr(str(source))
        raise ValueError(
            f"{where} does not fit the model: missing {missing}, unexpected {unexpected}, "
            f"mismatched {mismatched}; `strict=False` takes what fits"
        )
    values = {name: value.clone() for name, value in values.items()}
    params = {name: values[name] for name in model.params}
    buffers = {name: values[name] for name in model.buffers}
    return LoadedParams(params, buffers, missing, unexpected, mismatched)


def _read(path: Path) -> dict[str, Any]:
    """The tensors of any safetensors file; those of a checkpoint are checked."""
    with opened(path) as file:
        if "fdnn" not in (file.metadata() or {}):
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    loaded: dict[str, Any] = load(path)
    return loaded


def _misfits(found: dict[str, Any], like: Tensor) -> dict[str, str]:
    """Say why values, of which a tied tensor may have several, cannot stand for a tensor."""
    wrong = {}
    for name, value in found.items():
        if not isinstance(value, Tensor):
            wrong[name] = f"expected a tensor, found a {type(value).__name__}"
        elif value.shape != like.shape:
            wrong[name] = f"expected shape {tuple(like.shape)}, found {tuple(value.shape)}"
    if wrong or not found:
        return wrong
    (first, value), *others = found.items()
    return {
        name: f"expected the value of {first!r}, to which the model ties it, found another"
        for name, other in others
        if not torch.equal(other, value)
    }
