"""Activation functions of a tensor: torch's values and derivatives, and what torch lacks.

Arguments, defaults and the derivative at a kink are torch's. Everything is pure, vmaps, and traces
under `torch.compile(fullgraph=True)`; only `rrelu` draws, from the key that it is given.
"""

from fdnn.activations.exponential import celu, elu, selu, softplus
from fdnn.activations.gated import geglu, glu, reglu, swiglu
from fdnn.activations.rectified import (
    hardtanh,
    leaky_relu,
    prelu,
    relu,
    relu_squared,
    rrelu,
)
from fdnn.activations.smooth import gelu, hardswish, mish, silu, swish

__all__ = [
    "celu",
    "elu",
    "geglu",
    "gelu",
    "glu",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "mish",
    "prelu",
    "reglu",
    "relu",
    "relu_squared",
    "rrelu",
    "selu",
    "silu",
    "softplus",
    "swiglu",
    "swish",
]
