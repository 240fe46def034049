"""Pairs of examples, of the same class or not: the auxiliary task of a Siamese network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn import random
from fdnn.losses import contrastive_loss
from fdnn.model import Model
from fdnn.train.step import Loss, scalar_loss
from fdnn.types import Buffers, Key, Params

__all__ = ["pairs", "same_different", "siamese"]

Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]


def pairs(key: Key, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a partner for every example: half of them of its own class, half of another.

    Of the examples that may be the partner all are equally likely, and none is its own. An example
    alone in its class gets one of another class, whichever half it is in; if there is but one
    class, all pairs are the same. It costs a sort: the labels may be those of a whole data set.

    Args:
        key: a key.
        labels: of shape `(n,)`, with n of 2 or more.

    Returns:
        `(partner, same)`, both of shape `(n,)`: the partner's index, and whether it is of the same
        class. The pairs of a data set are `(x, x[partner], same)`, data for `siamese`.

    Raises:
        ValueError: `labels` is not of shape `(n,)`, or n is below 2.

    Example:
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> partner, same = pairs(random.key(0), labels)
        >>> torch.equal(labels == labels[partner], same), same.sum()
        (True, tensor(2))
    """
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(f"`labels` must have shape (n,), n at least 2, got {tuple(labels.shape)}")
    n = len(labels)
    key_half, key_partner = random.split(key)
    # In order of their labels, the examples of each one's class are those from start to end.
    order = labels.argsort(stable=True)
    place, ranked = torch.arange(n, device=labels.device), labels[order]
    start = torch.searchsorted(ranked, ranked)
    end = torch.searchsorted(ranked, ranked, right=True)
    size = end - start
    half = random.permutation(key_half, n) < n // 2
    same = (half | (size == n)) & (size > 1)
    drawn = random.randint(key_partner, (n,), 0, torch.where(same, size - 1, n - size), torch.int64)
    own = start + (place - start + 1 + drawn) % size
    other = (end + drawn) % n
    partner = order[torch.where(same, own, other)]
    back = order.argsort()
    return partner[back], same[back]


def siamese(model: Model, criterion: Criterion = contrastive_loss) -> Loss:
    """Build the loss of a Siamese network: the two of a pair go through the same network.

    Args:
        model: from `functionalize`; it maps inputs to embeddings of shape `(n, d)`.
        criterion: `criterion(z1, z2, same)` gives a 0-d tensor. `losses.contrastive_loss`, whose
            margin `functools.partial` sets; or cross-entropy on a function of both embeddings.

    Returns:
        `loss(params, buffers, batch, key) -> (value, buffers)` for `train.make_step`. A batch is
        `(inputs1, inputs2, same)`. Both halves go through the model as one batch, so batch norm
        measures them together.

    Raises:
        ValueError: when called, the criterion does not return a 0-d tensor.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(6, 2))
        >>> batch = torch.zeros(3, 6), torch.zeros(3, 6), torch.tensor([True, True, True])
        >>> siamese(model)(model.params, model.buffers, batch, random.key(0))[0].item()
        0.0

    References:
        Bromley, Guyon, LeCun, Säckinger, Shah (1993), "Signature verification using a Siamese time
        delay neural network"; Hadsell, Chopra, LeCun (2006), "Dimensionality reduction by learning
        an invariant mapping", the default criterion.
    """

    def loss(params: Params, buffers: Buffers, batch: Any, key: Key) -> tuple[Tensor, Buffers]:
        first, second, same = batch
        n, both = len(first), torch.cat([first, second])
        output, buffers = model.apply(params, buffers, both, key=key, train=True)
        return scalar_loss(criterion(output[:n], output[n:], same)), buffers

    return loss


def same_different(model: Model, criterion: Criterion = contrastive_loss) -> Loss:
    """Build the loss of the pair task on labelled examples: every step draws new `pairs`.

    Each example of a batch goes through the model once, and its embedding is compared with that of
    its partner in the batch. Which class it is of, the loss does not tell.

    Args:
        model: from `functionalize`; it maps inputs to embeddings of shape `(n, d)`.
        criterion: `criterion(z1, z2, same)` gives a 0-d tensor, as in `siamese`. A margin should
            be above the distances at the start, or there is little but pull, and all shrinks.

    Returns:
        `loss(params, buffers, batch, key) -> (value, buffers)` for `train.make_step`. A batch is
        `(inputs, labels)`; its last one must hold two examples at least.

    Raises:
        ValueError: when called, a batch has a single example, or the criterion does not return a
            0-d tensor.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(6, 2))
        >>> batch = torch.ones(4, 6), torch.tensor([0, 0, 1, 1])
        >>> value, _ = same_different(model)(model.params, model.buffers, batch, random.key(0))
        >>> value  # two pairs of one place that should be 1 apart
        tensor(0.2500)

    References:
        Hadsell, Chopra, LeCun (2006), "Dimensionality reduction by learning an invariant mapping",
        on pairs that are given, not drawn.
    """

    def loss(params: Params, buffers: Buffers, batch: Any, key: Key) -> tuple[Tensor, Buffers]:
        inputs, labels = batch
        key_pairs, key_apply = random.split(key)
        partner, same = pairs(key_pairs, labels)
        output, buffers = model.apply(params, buffers, inputs, key=key_apply, train=True)
        return scalar_loss(criterion(output, output[partner], same)), buffers

    return loss
