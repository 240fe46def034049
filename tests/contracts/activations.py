"""The contract's rows of `fdnn.activations`."""

from __future__ import annotations

from contracts.shared import Row, key, normal

from fdnn import activations

ROWS: dict[str, Row] = {
    **{
        f"activations.{name}": Row(getattr(activations, name), lambda i: (normal(i, 3, 4),))
        for name in ("relu", "leaky_relu", "relu_squared", "hardtanh", "hardswish")
    },
    **{
        f"activations.{name}": Row(
            getattr(activations, name), lambda i: (normal(i, 3, 4),), exact=False
        )
        for name in (
            *("celu", "elu", "selu", "softplus", "gelu", "silu", "mish"),
            *("glu", "geglu", "reglu"),
        )
    },
    "activations.prelu": Row(activations.prelu, lambda i: (normal(i, 3, 4), normal(i + 9, 4))),
    "activations.rrelu": Row(
        lambda x, key: activations.rrelu(x, key=key), lambda i: (normal(i, 3, 4), *key(i))
    ),
    "activations.swiglu": Row(
        activations.swiglu, lambda i: (normal(i, 3, 4), normal(i + 9, 2)), exact=False
    ),
    "activations.swish": Row(
        activations.swish, lambda i: (normal(i, 3, 4), normal(i + 9, 4)), exact=False
    ),
}

EXEMPT: dict[str, str] = {}
