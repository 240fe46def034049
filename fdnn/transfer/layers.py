"""Which parameters: by the type of their layer, or by its depth. Paths need no function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fdnn.model import Model

__all__ = ["by_depth", "by_type", "find", "layers", "statistics"]


def layers(model: Model) -> dict[str, tuple[str, ...]]:
    """List the layers that hold parameters or buffers, in order of definition.

    A layer is a module with tensors of its own: a batch norm is one, a ReLU is none. What
    `torch.nn.utils.parametrizations` or `lora` put beside a weight belongs to that weight's layer.

    Args:
        model: from `functionalize`, frozen in part or not.

    Returns:
        For each layer, by its dotted name, the names of its tensors.

    Example:
        >>> from fdnn import functionalize
        >>> layers(functionalize(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
        {'0': ('0.weight', '0.bias'), '2': ('2.weight', '2.bias')}
    """
    found: dict[str, list[str]] = {
        path: [] for path, module in model.skeleton().named_modules() if _is_layer(path, module)
    }
    for name in {**model._plans, **model.buffers}:
        around = [path for path in found if not path or name.startswith(path + ".")]
        found[max(around, key=len)].append(name)
    return {path: tuple(names) for path, names in found.items() if names}


def by_type(model: Model, *types: type[nn.Module]) -> Callable[[str, Any], bool]:
    """Choose all tensors inside of the modules of some types.

    Args:
        model: from `functionalize`.
        *types: types of modules; a subclass counts as its base, and what is further in belongs to
            it (all of a `TransformerEncoderLayer`).

    Returns:
        A predicate `(path, leaf)`, for every argument that chooses leaves.

    Raises:
        ValueError: `model` has no tensor in a module of these types.

    Example:
        >>> from fdnn import functionalize, transfer
        >>> model = functionalize(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
        >>> list(transfer.freeze(model, by_type(model, nn.Linear)).params)
        ['1.weight', '1.bias']
    """
    names = {
        model.aliases.get(name, name)
        for path, module in model.skeleton().named_modules(remove_duplicate=False)
        if isinstance(module, types)
        for members in (module.named_parameters, module.named_buffers)
        for name, _ in members(path, remove_duplicate=False)
    }
    if not names:
        raise ValueError(f"`types`: the model has no tensor in a {[t.__name__ for t in types]}")
    return _among(names)


def by_depth(model: Model, stop: int) -> Callable[[str, Any], bool]:
    """Choose all tensors of the first layers.

    Args:
        model: from `functionalize`.
        stop: how many `layers`, counted as a slice counts: -1 means all but the last.

    Returns:
        A predicate `(path, leaf)`, for every argument that chooses leaves.

    Raises:
        ValueError: `stop` leaves none or goes beyond the last.

    Example:
        >>> from fdnn import functionalize, transfer
        >>> model = functionalize(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        >>> list(transfer.freeze(model, by_depth(model, -1)).params)
        ['2.weight', '2.bias']
    """
    groups = list(layers(model).values())
    if not (1 <= stop <= len(groups) or 1 - len(groups) <= stop <= -1):
        raise ValueError(
            f"`stop` must be in 1 ... {len(groups)}, the number of layers, or count from the end, "
            f"got {stop}"
        )
    return _among({name for names in groups[:stop] for name in names})


def find(model: Model, at: str | None) -> str:
    """Name the part of a model that `at` means, by default the last layer."""
    at = list(layers(model))[-1] if at is None else at
    known = [path for path, _ in model.skeleton().named_modules() if path]
    if at == "" and not known:
        raise ValueError("`at`: the last layer is the whole model")
    if at not in known:
        raise ValueError(f"`at` must name a part of the model, one of {known}, got {at!r}")
    return at


def statistics(model: Model) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """For each layer with running statistics, its parameters and its statistics."""
    found = {}
    for path, layer in model.skeleton().named_modules():
        if hasattr(layer, "reset_running_stats"):
            held = [
                tuple(f"{path}.{name}" if path else name for name, _ in members(recurse=False))
                for members in (layer.named_parameters, layer.named_buffers)
            ]
            if held[1]:
                found[path] = (held[0], held[1])
    return found


def _is_layer(path: str, module: nn.Module) -> bool:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    parametrized = any(name == "parametrizations" for name, _ in module.named_children())
    return (bool(own) or parametrized) and "parametrizations" not in path.split(".")


def _among(names: set[str]) -> Callable[[str, Any], bool]:
    return lambda path, leaf: path in names
