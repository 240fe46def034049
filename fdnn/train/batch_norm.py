"""Batch norm's statistics for parameters that were not trained with them, such as averages."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fdnn import random
from fdnn.model import Model
from fdnn.model.initialize import NEW_STATISTICS
from fdnn.train.batches import arguments, is_tensors
from fdnn.types import Buffers, Key, Params

__all__ = ["reestimate_batch_norm"]


@torch.no_grad()
def reestimate_batch_norm(
    model: Model,
    params: Params,
    buffers: Buffers,
    batches: Iterable[Any],
    *,
    key: Key | None = None,
) -> Buffers:
    r"""Estimate the running means and variances of all batch norm layers anew.

    Each is the plain mean of the batches' own, $\frac{1}{n} \sum_{i=1}^n s_i$, whatever `momentum`
    the layers have. The model runs in train mode, once over the batches, in their order.

    Args:
        model: from `functionalize`.
        params: parameters, the average of a run for example.
        buffers: buffers; under vmap stacked like the parameters.
        batches: what a training step takes, `(*inputs, target)`, of which the target is not used;
            a tensor, the only input of the model; or a mapping, its keyword arguments.
        key: the source of the randomness of dropout and its kin, if the model has any.

    Returns:
        The buffers after it. A model without batch norm gets its own back.

    Raises:
        TypeError: `batches` is one batch.
        ValueError: there are no batches.

    Example:
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.BatchNorm1d(1))
        >>> batches = [(torch.tensor([[1.0], [3.0]]), None), (torch.tensor([[5.0], [5.0]]), None)]
        >>> reestimate_batch_norm(model, model.params, model.buffers, batches)["running_mean"]
        tensor([3.5000])

    References:
        Izmailov, Podoprikhin, Garipov, Vetrov, Wilson (2018), "Averaging weights leads to wider
        optima and better generalization". The same numbers as `torch.optim.swa_utils.update_bn`.
    """
    if isinstance(batches, Tensor) or (is_tensors(batches) and list(batches)):
        raise TypeError(
            "`batches` must be an iterable of batches, got tensors; put one batch into a list: "
            "`[(x, y)]`"
        )
    module = copy.deepcopy(model._train)
    layers = {
        path: layer
        for path, layer in module.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        and layer.running_mean is not None
        and layer.training  # what is frozen is not
    }
    buffers, averaging = dict(buffers), dataclasses.replace(model, _train=module)
    for path, layer in layers.items():
        layer.register_forward_pre_hook(_Averaging())
        for name, start in NEW_STATISTICS.items():
            full = f"{path}.{name}" if path else name
            buffers[full] = torch.full_like(buffers[full], start)
    if not layers:
        return buffers
    count = 0
    for batch in batches:
        inputs = [batch] if isinstance(batch, Tensor | Mapping) else batch[: max(len(batch) - 1, 1)]
        args, keywords = arguments(inputs)
        own = None if key is None else random.fold_in(key, count)
        _, buffers = averaging.apply(params, buffers, *args, key=own, train=True, **keywords)
        count += 1
    if count == 0:
        raise ValueError("`batches` must hold at least one batch, got none")
    return buffers


class _Averaging:
    """A hook that makes a layer weigh its n-th batch by 1/n."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, layer: Any, args: Any) -> None:
        self.count += 1
        layer.momentum = 1 / self.count
