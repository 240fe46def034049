"""Gradient accumulation: the gradient of a batch, from micro-batches that fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fdnn import random, tree
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import narrow, widen
from fdnn.types import Buffers, Key, Params

__all__ = ["Gradient", "accumulate"]

Gradient = Callable[..., tuple[tuple[Tensor, Buffers], Params]]
"""`gradient(params, buffers, batch, key, ...) -> ((value, buffers), grads)`."""


def accumulate(gradient: Gradient, num_microbatches: int) -> Gradient:
    r"""Compute loss and gradient of a batch in several micro-batches, one after the other.

    $L = \sum_i \frac{n_i}{n} L_i$ and $g = \sum_i \frac{n_i}{n} g_i$, where micro-batch $i$ holds
    $n_i$ of the $n$ examples. For a loss that is a mean over examples that is the loss and the
    gradient of the whole batch; activations take the memory of one micro-batch.

    The sizes $n_i$ differ by one at most; if there are fewer examples than micro-batches, each is
    one of its own. Buffers go through the micro-batches in turn, so batch norm normalizes by each
    micro-batch's statistics, as in a loop over small batches. Micro-batch $i$ gets the key
    `fold_in(key, i)`. Gradients of half precision are summed in float32.

    Args:
        gradient: from `value_and_grad`, of a loss `loss(params, buffers, batch, key)`. Further
            arguments are handed through.
        num_microbatches: at least 1; with 1 it is `gradient` itself.

    Returns:
        A function with the arguments and results of `gradient`. The tensors of `batch` have the
        examples in their first dimension.

    Raises:
        ValueError: `num_microbatches` is less than 1; or, when called, the tensors of `batch` do
            not have one number of examples.

    Example:
        >>> import torch
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, train
        >>> model = functionalize(nn.Linear(4, 1))
        >>> whole = train.value_and_grad(train.supervised(model, F.mse_loss))
        >>> batch = torch.arange(28.0).reshape(7, 4), torch.ones(7, 1)
        >>> args = model.params, model.buffers, batch, random.key(0)
        >>> (_, expected), (_, found) = whole(*args), accumulate(whole, 3)(*args)
        >>> torch.allclose(found["weight"], expected["weight"])
        True
    """
    if num_microbatches < 1:
        raise ValueError(f"`num_microbatches` must be at least 1, got {num_microbatches}")
    if num_microbatches == 1:
        return gradient

    def accumulated(
        params: Params, buffers: Buffers, batch: Any, key: Key, *rest: Any
    ) -> tuple[tuple[Tensor, Buffers], Params]:
        size = _examples(batch)
        count = max(min(num_microbatches, size), 1)
        total: Any = None
        for number in range(count):
            start, stop = size * number // count, size * (number + 1) // count
            part = tree.map(lambda x, i=start, j=stop: x[i:j], batch)
            own = random.fold_in(key, number)
            (value, buffers), grads = gradient(params, buffers, part, own, *rest)
            share = (stop - start) / max(size, 1)
            terms = leafwise(lambda g, share=share: g * share, widen((value, grads)))
            total = terms if total is None else leafwise(lambda a, b: a + b, total, terms)
        value, grads = narrow(total, (value, grads))
        return (value, buffers), grads

    return accumulated


def _examples(batch: Any) -> int:
    """The number of examples in a batch."""
    shapes = {
        path: tuple(leaf.shape)
        for path, leaf in zip(tree.paths(batch), tree.leaves(batch), strict=True)
    }
    sizes = {shape[0] if shape else None for shape in shapes.values()}
    if len(sizes) != 1 or None in sizes:
        raise ValueError(
            f"`batch` must have as many examples in all its tensors, got shapes {shapes}"
        )
    return int(sizes.pop())  # type: ignore[arg-type]
