"""Low-rank adapters."""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Sequence

from torch import Tensor

from fdnn import random, tree
from fdnn.initializers import variance_scaling, zeros
from fdnn.model import Model
from fdnn.model.initialize import Plan
from fdnn.transfer.freezing import freeze
from fdnn.types import Scalar, Where

__all__ = ["lora"]


def lora(model: Model, rank: int, alpha: Scalar, where: Where | None = None) -> Model:
    r"""Freeze a model and train low-rank changes of its weights instead.

    A weight $W$ of shape (out, ...), its other dimensions taken as one, becomes
    $W + \frac{\alpha}{r} B A$ with $A$ of shape (`rank`, rest), drawn uniformly with variance
    1 / (3 rest), and $B$ of shape (out, `rank`), zero at first: the output is what it was. Linear
    maps, convolutions and every other weight with two or more dimensions can be adapted.

    The parameters are called "0.weight.lora_A" and "0.weight.lora_B". All others are frozen as by
    `freeze`; `unfreeze(model, "head.*")` trains some of them beside. `merge` gives plain weights
    again.

    Args:
        model: from `functionalize`, frozen in part or not.
        rank: $r$, the rank of the changes.
        alpha: $\alpha$, their scale; a number or a 0-d tensor.
        where: the weights to adapt: a glob, several, or a predicate `(path, leaf)`. If left out,
            every weight that the argument `weight` of `Model.init` speaks of: all matrices and
            kernels but embeddings.

    Returns:
        A model whose `params` are the adapters. `init` draws them, and keeps the model's own values
        for the frozen weights; `transfer.init` takes those from elsewhere.

    Raises:
        ValueError: `rank` is not positive; `where` chooses nothing, or a tensor that is no weight,
            has fewer than two dimensions or has an adapter.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> net = functionalize(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
        >>> model = lora(net, rank=4, alpha=8.0)
        >>> {name: tuple(value.shape) for name, value in model.params.items()}["0.weight.lora_A"]
        (4, 64)
        >>> x = torch.ones(2, 64)
        >>> before, _ = net.apply(net.params, net.buffers, x)
        >>> after, _ = model.apply(model.params, model.buffers, x)
        >>> torch.equal(before, after)
        True

    References:
        Hu et al. (2021), "LoRA: low-rank adaptation of large language models". The paper draws A
        from a normal distribution; this is the law of the authors' code.
    """
    if rank < 1:
        raise ValueError(f"`rank` must be at least 1, got {rank}")
    values = {**model.params, **model.buffers}
    if where is None:
        names = [name for name, plan in model._plans.items() if plan.is_weight]
    else:
        names = list(tree.select(values, where))
    if not names:
        raise ValueError(f"`where` must choose a weight, got none of {list(values)}")
    plans, params = dict(model._plans), dict(model.params)
    for name in names:
        shape = tuple(values[name].shape)
        if name not in plans or len(shape) < 2 or name.endswith(("lora_A", "lora_B")):
            raise ValueError(
                f"`where` must choose parameters of two or more dimensions, got {name!r} of shape "
                f"{shape}"
            )
        if f"{name}.lora_A" in plans:
            raise ValueError(f"`where`: {name!r} has an adapter")
        for part, size, law in (
            ("lora_A", (rank, math.prod(shape[1:])), variance_scaling(1 / 3, "fan_in", "uniform")),
            ("lora_B", (shape[0], rank), zeros),
        ):
            full = f"{name}.{part}"
            number = zlib.crc32(full.encode())
            plans[full] = Plan(part, law, None, number, is_weight=False, is_bias=False)
            like = values[name]
            params[full] = law(random.fold_in(random.key(0), number), size, like.dtype, like.device)
    adapted = dataclasses.replace(
        model,
        params=params,
        _plans=plans,
        _derive=(*model._derive, functools.partial(_adapt, names, alpha / rank)),
    )
    return freeze(adapted, lambda path, leaf: path not in plans or path in model._plans)


def _adapt(names: Sequence[str], scale: Scalar, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the changes to the weights."""
    values = dict(values)
    for name in names:
        a, b = values.pop(f"{name}.lora_A"), values.pop(f"{name}.lora_B")
        change = scale * (b @ a)
        values[name] = values[name] + change.reshape(values[name].shape).to(change.dtype)
    return values
