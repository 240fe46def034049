"""Losses of autoencoders: plain, denoising, masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn import random
from fdnn.losses import mse_loss
from fdnn.model import Model
from fdnn.pretrain.masks import Mask
from fdnn.pretrain.noise import Perturbation
from fdnn.train.step import Loss, scalar_loss
from fdnn.types import Buffers, Key, Params

__all__ = ["masked_reconstruction", "reconstruction"]


def reconstruction(
    model: Model,
    criterion: Callable[[Any, Any], Tensor] = mse_loss,
    *,
    corrupt: Perturbation | None = None,
) -> Loss:
    r"""Build the loss of an autoencoder: `criterion(model(inputs), inputs)`, in train mode.

    With a corruption $c$ the model is denoising: it is given $c(x)$ and measured against the clean
    $x$.

    Args:
        model: from `functionalize`, of an `Autoencoder` or of any module that maps an input to
            something of its shape.
        criterion: `criterion(output, inputs)` gives a 0-d tensor: `losses.mse_loss`, or
            `losses.binary_cross_entropy_with_logits` for inputs in [0, 1].
        corrupt: $c$, `corrupt(key, inputs)`: `gaussian_noise`, `masking_noise`, any augmentation.

    Returns:
        `loss(params, buffers, batch, key) -> (value, buffers)` for `train.make_step`. The first
        element of `batch` is the inputs; labels, if there are any, are not looked at.

    Raises:
        ValueError: when called, the criterion does not return a 0-d tensor.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, optim, pretrain, train
        >>> net = pretrain.Autoencoder(nn.Sequential(nn.Linear(6, 2), nn.Tanh()), nn.Linear(2, 6))
        >>> model, tx = functionalize(net), optim.adam()
        >>> loss = reconstruction(model, corrupt=pretrain.gaussian_noise(0.1))
        >>> step, state = train.make_step(loss, tx), train.init(model, tx, random.key(0))
        >>> state, history = train.fit(
        ...     step, state, (torch.ones(8, 6),), epochs=2, compile=False, progress=False
        ... )
        >>> history["loss"].shape
        torch.Size([2])

    References:
        Vincent, Larochelle, Bengio, Manzagol (2008), "Extracting and composing robust features with
        denoising autoencoders".
    """

    def loss(params: Params, buffers: Buffers, batch: Any, key: Key) -> tuple[Tensor, Buffers]:
        inputs = batch[0]
        key_corrupt, key_apply = random.split(key)
        given = inputs if corrupt is None else corrupt(key_corrupt, inputs)
        output, buffers = model.apply(params, buffers, given, key=key_apply, train=True)
        return scalar_loss(criterion(output, inputs)), buffers

    return loss


def masked_reconstruction(
    model: Model, mask: Mask, criterion: Callable[..., Tensor] = mse_loss
) -> Loss:
    r"""Build the loss of a masked autoencoder: what is hidden must be told from what is not.

    With $m_j = 1$ where an element is hidden, the model is given $(1 - m) x$, and the loss is
    $\sum_j m_j \ell_j / \max(1, \sum_j m_j)$ over all elements of the batch: the mean of the
    criterion's terms where something was hidden.

    Args:
        model: from `functionalize`, of an `Autoencoder` or of any module that maps an input to
            something of its shape.
        mask: $m$, `mask(key, inputs)`, True where hidden: `random_mask`, `patch_mask`. Hidden
            elements are 0, so inputs with mean 0 hide best.
        criterion: `criterion(output, inputs, reduction="none")` gives the terms $\ell$, in the
            shape of the inputs.

    Returns:
        `loss(params, buffers, batch, key) -> (value, buffers)` for `train.make_step`. The first
        element of `batch` is the inputs; labels, if there are any, are not looked at.

    Raises:
        ValueError: when called, the criterion's terms have not the shape of the inputs.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize, pretrain
        >>> model = functionalize(pretrain.Autoencoder(nn.Linear(6, 2), nn.Linear(2, 6)))
        >>> loss = masked_reconstruction(model, pretrain.random_mask(0.5))
        >>> value, _ = loss(model.params, model.buffers, (torch.ones(3, 6),), random.key(0))
        >>> value.shape
        torch.Size([])

    References:
        Pathak, Krähenbühl, Donahue, Darrell, Efros (2016), "Context encoders: feature learning by
        inpainting"; He, Chen, Xie, Li, Dollár, Girshick (2022), "Masked autoencoders are scalable
        vision learners", whose encoder is given the visible patches only, not zeros for the others.
    """

    def loss(params: Params, buffers: Buffers, batch: Any, key: Key) -> tuple[Tensor, Buffers]:
        inputs = batch[0]
        key_mask, key_apply = random.split(key)
        hidden = mask(key_mask, inputs)
        given = inputs.masked_fill(hidden, 0)
        output, buffers = model.apply(params, buffers, given, key=key_apply, train=True)
        terms = criterion(output, inputs, reduction="none")
        if terms.shape != inputs.shape:
            raise ValueError(
                f"`criterion` must return terms of the inputs' shape {tuple(inputs.shape)} with "
                f'reduction="none", got {tuple(terms.shape)}'
            )
        hidden = hidden.expand_as(terms)
        return torch.where(hidden, terms, 0).sum() / hidden.sum().clamp_min(1), buffers

    return loss
