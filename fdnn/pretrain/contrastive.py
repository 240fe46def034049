"""SimCLR: two views of an example are known for one among the views of all others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdnn import random
from fdnn.losses import nt_xent
from fdnn.losses.check import above_0
from fdnn.model import Model
from fdnn.pretrain.noise import Perturbation
from fdnn.train.step import Loss
from fdnn.types import Buffers, Key, Params, Scalar

__all__ = ["simclr"]


def simclr(model: Model, augment: Perturbation, *, temperature: Scalar = 0.1) -> Loss:
    """Build SimCLR's loss: `losses.nt_xent` between two augmented views of each example.

    The model is an encoder with a projection head behind it, which is dropped on reuse. Give both
    their names, `nn.Sequential(OrderedDict(encoder=..., projector=...))`, then
    `transfer.rename({"body": "encoder"})` takes the encoder along and leaves the projector.

    Args:
        model: from `functionalize`; it maps inputs to projections of shape `(n, d)`.
        augment: `augment(key, inputs)`, called twice: a `compose` of `random_resized_crop` and
            others.
        temperature: that of `losses.nt_xent`.

    Returns:
        `loss(params, buffers, batch, key) -> (value, buffers)` for `train.make_step`. The first
        element of `batch` is the inputs; labels, if there are any, are not looked at. Both views
        go through the model as one batch. Every other example of the batch is a negative, so
        large batches teach more.

    Raises:
        ValueError: `temperature` is not positive; or, when called, the model's output is not of
            shape `(n, d)`.

    Example:
        >>> from collections import OrderedDict
        >>> from torch import nn
        >>> from fdnn import functionalize, pretrain
        >>> net = nn.Sequential(OrderedDict(encoder=nn.Linear(6, 4), projector=nn.Linear(4, 2)))
        >>> model = functionalize(net)
        >>> loss = simclr(model, pretrain.gaussian_noise(0.1))
        >>> value, _ = loss(model.params, model.buffers, (torch.eye(6),), random.key(0))
        >>> value.shape
        torch.Size([])

    References:
        Chen, Kornblith, Norouzi, Hinton (2020), "A simple framework for contrastive learning of
        visual representations".
    """
    above_0(temperature=temperature)

    def loss(params: Params, buffers: Buffers, batch: Any, key: Key) -> tuple[Tensor, Buffers]:
        inputs, n = batch[0], len(batch[0])
        key_first, key_second, key_apply = random.split(key, 3)
        views = torch.cat([augment(key_first, inputs), augment(key_second, inputs)])
        output, buffers = model.apply(params, buffers, views, key=key_apply, train=True)
        return nt_xent(output[:n], output[n:], temperature=temperature), buffers

    return loss
