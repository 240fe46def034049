"""What an activation is called, however it is given: as a name, a module or a function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from fdnn.nn.activations import GEGLU, ReGLU, ReLUSquared, SwiGLU, Swish

__all__ = ["Activation", "Named", "identify"]

Activation = str | nn.Module | type[nn.Module] | Callable[[Tensor], Tensor]

_MODULES: dict[str, type[nn.Module]] = {
    "celu": nn.CELU,
    "elu": nn.ELU,
    "geglu": GEGLU,
    "gelu": nn.GELU,
    "glu": nn.GLU,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "leaky_relu": nn.LeakyReLU,
    "linear": nn.Identity,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "reglu": ReGLU,
    "relu": nn.ReLU,
    "relu_squared": ReLUSquared,
    "rrelu": nn.RReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "swiglu": SwiGLU,
    "swish": Swish,
    "tanh": nn.Tanh,
}
_GATED = ("geglu", "glu", "reglu", "swiglu")


class Named(NamedTuple):
    """An activation and what is known of it.

    Attributes:
        module: the activation.
        name: what `initializers.for_activation` calls it, None if it is none of those.
        negative_slope: its slope left of 0, if it is a leaky relu of some kind.
        halves: whether its output is half as wide as its input.
    """

    module: nn.Module
    name: str | None
    negative_slope: float | None
    halves: bool

    def new(self) -> nn.Module:
        """Return a module of a layer's own."""
        return copy.deepcopy(self.module)


class _Function(nn.Module):
    """A function of a tensor as a module."""

    def __init__(self, fn: Callable[[Tensor], Tensor]):
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)

    def extra_repr(self) -> str:
        return getattr(self.fn, "__name__", repr(self.fn))


def identify(activation: Activation) -> Named:
    """Find out about an activation."""
    module: nn.Module
    if isinstance(activation, str):
        if activation not in _MODULES:
            raise ValueError(
                f"`activation` must be one of {', '.join(_MODULES)}, a module or a function, "
                f"got {activation!r}"
            )
        module = _MODULES[activation]()
    elif isinstance(activation, nn.Module):
        module = activation
    elif isinstance(activation, type) and issubclass(activation, nn.Module):
        module = activation()
    elif callable(activation) and not isinstance(activation, type):
        module = _Function(activation)
    else:
        raise TypeError(f"`activation` must be a name, a module or a function, got {activation!r}")
    found = next((name for name, kind in _MODULES.items() if type(module) is kind), None)
    if isinstance(module, _Function) and getattr(module.fn, "__name__", None) in _MODULES:
        found = module.fn.__name__
    return Named(module, found, _negative_slope(module), found in _GATED)


def _negative_slope(module: nn.Module) -> float | None:
    if isinstance(module, nn.LeakyReLU):
        return module.negative_slope
    if isinstance(module, nn.PReLU):
        return module.init
    if isinstance(module, nn.RReLU):
        return (module.lower + module.upper) / 2
    return None
