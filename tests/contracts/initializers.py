"""The contract's rows of `fdnn.initializers`."""

from __future__ import annotations

from typing import Any

import torch
from contracts.shared import Row, key
from torch import nn

from fdnn import initializers


def initializer(fn: Any, *shape: int, exact: bool = True) -> Row:
    return Row(lambda key: fn(key, shape or (6, 4), torch.float32), key, exact)


ROWS: dict[str, Row] = {
    "initializers.constant": initializer(initializers.constant(0.3)),
    "initializers.dirac": initializer(initializers.dirac(), 4, 3, 3),
    "initializers.for_activation": initializer(
        initializers.for_activation("leaky_relu", negative_slope=0.2), exact=False
    ),
    "initializers.glorot_normal": initializer(initializers.glorot_normal(), exact=False),
    "initializers.glorot_uniform": initializer(initializers.glorot_uniform()),
    "initializers.he_normal": initializer(initializers.he_normal(), exact=False),
    "initializers.he_uniform": initializer(initializers.he_uniform()),
    "initializers.identity": initializer(initializers.identity()),
    "initializers.lecun_normal": initializer(initializers.lecun_normal(), exact=False),
    "initializers.lecun_uniform": initializer(initializers.lecun_uniform()),
    "initializers.normal": initializer(initializers.normal(), exact=False),
    "initializers.ones": initializer(initializers.ones),
    "initializers.orthogonal": initializer(initializers.orthogonal(), exact=False),
    "initializers.sparse": initializer(initializers.sparse(0.5), exact=False),
    "initializers.torch_default": initializer(
        initializers.torch_default(nn.Linear(4, 6))["weight"]
    ),
    "initializers.truncated_normal": initializer(initializers.truncated_normal(), exact=False),
    "initializers.uniform": initializer(initializers.uniform()),
    "initializers.variance_scaling": initializer(
        initializers.variance_scaling(1.0, "fan_in", "uniform")
    ),
    "initializers.zeros": initializer(initializers.zeros),
}

EXEMPT: dict[str, str] = {
    "initializers.calculate_gain": "a number from a name",
    "initializers.fan_in_and_fan_out": "numbers from a shape",
    "initializers.matching_variance": "a number from a name and a shape",
    "initializers.variance_mismatch": "a sentence from numbers",
}
