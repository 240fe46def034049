"""How sparse a network is, and what it costs: numbers, bytes, operations."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fdnn import random
from fdnn.compress.chains import check_visible
from fdnn.compress.masks import Masks, apply_masks, chosen, wide
from fdnn.model import Model
from fdnn.types import Buffers, Params, Where

__all__ = ["ModelSize", "Sparsity", "model_size", "sparsity"]


class Sparsity(NamedTuple):
    """Shares of zeros.

    Attributes:
        leaves: the share in each leaf, by path, 0-d tensors in float64.
        total: the share in all of them together.
    """

    leaves: dict[str, Tensor]
    total: Tensor


def sparsity(params: Params, masks: Masks | None = None, *, where: Where | None = None) -> Sparsity:
    """Tell what share of the parameters is 0.

    Args:
        params: parameters, a tree.
        masks: applied first, if given.
        where: which leaves: a glob on paths, several globs, or a predicate `(path, leaf)`. If left
            out, those that have a mask, or without `masks` those of two dimensions or more.

    Returns:
        The shares, by leaf and in total. It vmaps.

    Raises:
        ValueError: a glob matches no path, nothing is chosen, or a mask fits no parameter.

    Example:
        >>> found = sparsity({"0.weight": torch.tensor([[0.0, 1.0]]), "1.weight": torch.ones(1, 2)})
        >>> {path: share.item() for path, share in found.leaves.items()}, found.total.item()
        ({'0.weight': 0.5, '1.weight': 0.0}, 0.25)
    """
    leaves = chosen(params if masks is None else apply_masks(params, masks), where, masks)
    zeros = {path: wide((leaf == 0).sum()) for path, leaf in leaves.items()}
    numbers = {path: leaf.numel() for path, leaf in leaves.items()}
    return Sparsity(
        {path: zeros[path] / max(numbers[path], 1) for path in leaves},
        torch.stack(list(zeros.values())).sum() / max(sum(numbers.values()), 1),
    )


class ModelSize(NamedTuple):
    """What a model holds and does.

    Attributes:
        parameters: how many numbers the parameters hold.
        nonzero: how many of them are not 0.
        bytes: the memory of parameters and buffers.
        nonzero_bytes: the same, zeros of the parameters left out, without what a sparse format
            needs to tell where the others are.
        flops: operations of one forward pass, as `torch.utils.flop_counter` counts them: matrix
            products, convolutions and attention, a multiplication and an addition as two.
        effective_flops: the same without those on zeros of weights: the operations of each layer
            times the share of its weights that is not 0. Dense kernels do not save them.
    """

    parameters: int
    nonzero: int
    bytes: int
    nonzero_bytes: int
    flops: int
    effective_flops: float


def model_size(
    model: Model, params: Params, buffers: Buffers, *inputs: Any, masks: Masks | None = None
) -> ModelSize:
    """Count numbers, bytes and operations of a model, with and without zeros.

    It runs one forward pass in eval mode, outside of transforms.

    Args:
        model: from `functionalize`.
        params: parameters of one run.
        buffers: buffers of one run.
        *inputs: what the model takes; their batch counts in the operations.
        masks: applied first, if given.

    Returns:
        The counts, Python numbers.

    Raises:
        ValueError: a mask fits no parameter; or as `model.apply`.
        RuntimeError: called under vmap, grad or the compiler, where values cannot be seen.

    Example:
        >>> from torch import nn
        >>> from fdnn import compress, functionalize
        >>> model = functionalize(nn.Linear(10, 10))
        >>> masks = compress.l1_unstructured(model.params, 0.9)
        >>> size = model_size(model, model.params, {}, torch.ones(1, 10), masks=masks)
        >>> size.parameters, size.nonzero, size.flops, size.effective_flops
        (110, 20, 200, 20.0)
    """
    check_visible("model_size")
    params = params if masks is None else apply_masks(params, masks)
    nonzero = {name: int(value.count_nonzero()) for name, value in params.items()}
    everything = [*params.values(), *buffers.values()]
    total = sum(x.numel() * x.element_size() for x in everything)
    saved = sum((x.numel() - nonzero[name]) * x.element_size() for name, x in params.items())
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.apply(params, buffers, *inputs, key=random.key(0))
    own = _own_flops(counter)
    skipped = 0.0
    for layer, flops in own.items():
        weights = [n for n in params if n.rpartition(".")[0] == layer and params[n].ndim >= 2]
        size = sum(params[n].numel() for n in weights)
        if size:
            skipped += flops * (1 - sum(nonzero[n] for n in weights) / size)
    flops = counter.get_total_flops()
    return ModelSize(
        parameters=sum(value.numel() for value in params.values()),
        nonzero=sum(nonzero.values()),
        bytes=total,
        nonzero_bytes=total - saved,
        flops=flops,
        effective_flops=flops - skipped,
    )


def _own_flops(counter: FlopCounterMode) -> dict[str, int]:
    """Operations of each layer, by dotted name, without those of layers further in."""
    counts = {
        path: sum(ops.values())
        for path, ops in counter.get_flop_counts().items()
        if path != "Global"
    }
    own = {}
    for path, flops in counts.items():
        inside = (n for other, n in counts.items() if other.rpartition(".")[0] == path)
        own[path.partition(".")[2]] = flops - sum(inside)
    return own
