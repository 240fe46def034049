"""How a model's outputs change with some of its parameters, example by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.model import Model
from fdnn.types import Buffers, Params

__all__ = ["jacobian", "last_layer", "outputs"]


def jacobian(
    model: Model,
    params: Params,
    buffers: Buffers,
    chosen: Params,
    inputs: Sequence[Any],
    keywords: Mapping[str, Any],
    left: Tensor | None = None,
) -> Tensor:
    """Return the Jacobians J of the outputs, `(batch, outputs, p)`, or of each the product L^T J.

    The p columns are the chosen parameters, in the order of `tree.ravel`; L is `left`, of shape
    `(batch, outputs, k)`. The product costs no more than J, which is never made.
    """
    vector, unravel = tree.ravel(chosen)

    def output(vector: Tensor, example: Any, left: Tensor | None) -> Tensor:
        inputs, keywords = tree.map(lambda x: x.unsqueeze(0), example)
        value = outputs(model, {**params, **unravel(vector)}, buffers, inputs, keywords)[0]
        return value if left is None else left.mT @ value

    rows: Tensor = torch.vmap(torch.func.jacrev(output), (None, 0, None if left is None else 0))(
        vector, (list(inputs), dict(keywords)), left
    )
    return rows


def outputs(
    model: Model,
    params: Params,
    buffers: Buffers,
    inputs: Sequence[Any],
    keywords: Mapping[str, Any],
) -> Tensor:
    """Return the model's outputs in eval mode, or raise unless they are `(batch, outputs)`."""
    value = model.apply(params, buffers, *inputs, **keywords)[0]
    if not isinstance(value, Tensor) or value.ndim != 2:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"`model` must give outputs of shape (batch, outputs), got {found}")
    return value


def last_layer(model: Model) -> list[str]:
    """Name the parameters of the layer that holds the last one."""
    layer = list(model.params)[-1].rpartition(".")[0]
    return [name for name in model.params if name.rpartition(".")[0] == layer]
