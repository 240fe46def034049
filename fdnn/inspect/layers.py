"""What a layer is, and how to see its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fdnn import tree
from fdnn.model.recurrent import RecurrentCell, RecurrentLoop

__all__ = ["intercepted", "named_layers", "owner", "tensors", "type_name"]


def named_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The parts that compute something themselves, by dotted name, in order of definition.

    They have no parts of their own or hold parameters or buffers directly. (The tensors that
    `torch.nn.utils.parametrizations` takes a weight from count as held by its layer.)
    """
    return {
        name: part
        for name, part in module.named_modules()
        if "parametrizations" not in name.split(".") and _is_layer(part)
    }


def _is_layer(part: nn.Module) -> bool:
    own = (*part.parameters(recurse=False), *part.buffers(recurse=False))
    return bool(own) or all(name == "parametrizations" for name, _ in part.named_children())


def owner(path: str, layers: Iterable[str]) -> str | None:
    """Name the innermost layer that a parameter or buffer lies in."""
    around = [name for name in layers if not name or path.startswith(name + ".")]
    return max(around, key=len, default=None)


def type_name(layer: nn.Module) -> str:
    """The class of a layer; that of torch's own for the loops that stand for it."""
    if isinstance(layer, RecurrentLoop | RecurrentCell):
        cell = "Cell" if isinstance(layer, RecurrentCell) else ""
        return layer.mode.partition("_")[0] + cell
    return type(layer).__name__


def tensors(output: Any) -> list[Tensor]:
    """The tensors of a layer's output."""
    return [leaf for leaf in tree.leaves(output) if isinstance(leaf, Tensor)]


@contextmanager
def intercepted(
    layers: Mapping[str, nn.Module], call: Callable[[str, Callable[[], Any]], Any]
) -> Iterator[None]:
    """Make every call of a layer, inside the block, return `call(name, compute)`.

    `compute()` is what the layer's own `forward` would return. Forward hooks, whose handles
    torch.compile cannot trace, would do the same.
    """
    before = {name: vars(layer).get("forward") for name, layer in layers.items()}

    def replacement(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: call(name, lambda: forward(*args, **kwargs))

    for name, layer in layers.items():
        layer.forward = replacement(name, layer.forward)
    try:
        yield
    finally:
        for name, layer in layers.items():
            vars(layer).pop("forward")  # torch.compile cannot trace `del`
            own = before[name]
            if own is not None:  # the layer had one of its own, beside its class's
                layer.forward = own
