"""Layers that run one after the other, which is what can be cut and folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from fdnn.model import Model
from fdnn.nn import MLP
from fdnn.optim.core.branch import can_see

__all__ = ["CONVS", "IDENTITIES", "Link", "chains", "check_plain", "check_visible"]

CONVS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
"""Convolutions, and over how many dimensions they run."""

IDENTITIES = frozenset(
    {
        *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
        *(nn.AlphaDropout, nn.FeatureAlphaDropout),
    }
)
"""Layers that do nothing in eval mode."""


class Link(NamedTuple):
    """A layer of a chain.

    Attributes:
        path: its dotted name.
        layer: the module.
        shared: whether it, or a tensor of it, is used elsewhere as well.
    """

    path: str
    layer: nn.Module
    shared: bool

    @property
    def kind(self) -> type[nn.Module]:
        """Its class; that of no layer if it may not be changed, or does more than its class."""
        layer = self.layer
        if self.shared or layer._forward_hooks or layer._forward_pre_hooks:
            return nn.Module
        return type(layer)


def chains(module: nn.Module) -> list[list[Link]]:
    """List the chains of a module: each `nn.Sequential`, those right inside of it taken apart.

    `fdnn.nn.MLP` is one as well. Chains inside of other modules are chains of their own; what
    stands before and behind a chain is not known.
    """
    places = list(module.named_modules(remove_duplicate=False))
    uses = Counter(id(layer) for _, layer in places)
    tensors = Counter(
        id(tensor) for _, layer in places for tensor in layer.parameters(recurse=False)
    )

    def link(path: str, layer: nn.Module) -> Link:
        tied = any(tensors[id(tensor)] > 1 for tensor in layer.parameters())
        return Link(path, layer, tied or uses[id(layer)] > 1)

    found: list[list[Link]] = []

    def visit(path: str, part: nn.Module) -> None:
        if _is_chain(part):
            links = [link(*place) for place in _flat(path, part)]
            found.append(links)
            inside = [place for each in links for place in _children(each.path, each.layer)]
        else:
            inside = _children(path, part)
        for place in inside:
            visit(*place)

    visit("", module)
    return found


def check_plain(model: Model) -> None:
    """Raise unless the model's parameters are those of its module."""
    if model._frozen or model._derive:
        raise ValueError(
            "`model` must not be frozen in part or adapted: functionalize the plain module, with "
            "the values of `transfer.merge`"
        )


def check_visible(function: str) -> None:
    """Raise unless Python may look at values."""
    if not can_see():
        raise RuntimeError(
            f"`{function}` looks at values, which vmap, grad and the compiler hide: call it "
            "outside of them, for one lane (`tree.unstack`)"
        )


def _is_chain(part: nn.Module) -> bool:
    return type(part).forward in (nn.Sequential.forward, MLP.forward)


def _children(path: str, part: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (f"{path}.{name}" if path else name, child)
        for name, child in part._modules.items()
        if child is not None
    ]


def _flat(path: str, part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in _children(path, part):
        if _is_chain(child):
            yield from _flat(name, child)
        else:
            yield name, child
