"""First values of parameters: `initializer(key, shape, dtype, device) -> tensor`.

`zeros` and `ones` are initializers; every other name here that makes one is a factory, so it is
`init(key, weight=he_normal(), bias=zeros)`. An initializer is pure: it draws from its key alone,
vmaps over keys, and traces under `torch.compile(fullgraph=True)`.
"""

from fdnn.initializers.distributions import (
    constant,
    normal,
    ones,
    truncated_normal,
    uniform,
    zeros,
)
from fdnn.initializers.gains import calculate_gain, fan_in_and_fan_out
from fdnn.initializers.matching import for_activation, matching_variance, variance_mismatch
from fdnn.initializers.scaling import (
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    variance_scaling,
)
from fdnn.initializers.structured import dirac, identity, orthogonal, sparse
from fdnn.initializers.torch_defaults import torch_default

__all__ = [
    "calculate_gain",
    "constant",
    "dirac",
    "fan_in_and_fan_out",
    "for_activation",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "lecun_normal",
    "lecun_uniform",
    "matching_variance",
    "normal",
    "ones",
    "orthogonal",
    "sparse",
    "torch_default",
    "truncated_normal",
    "uniform",
    "variance_mismatch",
    "variance_scaling",
    "zeros",
]
