"""Metrics that are means over examples or elements: a sum, and of how many terms.

Batches may differ in size: the value is that of all examples together, not the mean of the
batches' values. What is measured is cut off from differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fdnn.metrics.metric import Metric

__all__ = [
    "MeanState",
    "accuracy",
    "cross_entropy",
    "mean_absolute_error",
    "mean_squared_error",
]


class MeanState(NamedTuple):
    """What a mean remembers.

    Attributes:
        total: the sum so far, 0-d.
        terms: how many there were, 0-d, int64.
    """

    total: Tensor
    terms: Tensor


def accuracy(top_k: int = 1, *, ignore_index: int | None = None) -> Metric:
    """Measure the share of examples whose class is among the `top_k` largest outputs.

    Args:
        top_k: how many guesses each example has.
        ignore_index: a label that marks what does not count, such as the padding of a batch.

    Returns:
        A metric for outputs of shape `(n, classes, ...)`, logits or probabilities, and integer
        targets of shape `(n, ...)`; or `(classes,)` and `()`, as in `torch`'s cross-entropy. Of
        equal outputs the guess is torch's: `argmax` for one, `topk` for several.

    Raises:
        ValueError: `top_k` is not positive, or later: it exceeds the number of classes, or the
            shapes do not fit.

    Example:
        >>> metric = accuracy(top_k=2)
        >>> output = torch.tensor([[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]])
        >>> metric.compute(metric.update(metric.init(), output, torch.tensor([2, 0])))
        tensor(0.5000)
    """
    if top_k < 1:
        raise ValueError(f"`top_k` must be at least 1, got {top_k}")

    def measure(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor | int]:
        dim = _class_dim(output, target)
        if top_k > output.shape[dim]:
            raise ValueError(
                f"`top_k` must be at most the {output.shape[dim]} classes, got {top_k}"
            )
        if top_k == 1:
            hit = output.argmax(dim) == target
        else:
            hit = (output.topk(top_k, dim).indices == target.unsqueeze(dim)).any(dim)
        if ignore_index is None:
            return hit.sum(), target.numel()
        counts = target != ignore_index
        return (hit & counts).sum(), counts.sum()

    return _mean(measure, torch.int64)


def cross_entropy(*, ignore_index: int = -100, dtype: torch.dtype = torch.float32) -> Metric:
    r"""Measure the mean negative log-likelihood: the log loss.

    The mean of $-\log \mathrm{softmax}(o)_t$ over examples with logits $o$ (`output`) and class
    $t$ (`target`), in nats.

    Args:
        ignore_index: a label that marks what does not count, as in `torch`.
        dtype: of the running sum; outputs of lower precision are raised to it first.

    Returns:
        A metric for logits of shape `(n, classes, ...)` and integer targets of shape `(n, ...)`, or
        targets that are probabilities, of the shape of the logits.

    Raises:
        ValueError: the shapes do not fit (when updated).

    Example:
        >>> metric = cross_entropy()
        >>> state = metric.update(metric.init(), torch.zeros(3, 10), torch.tensor([1, 5, 9]))
        >>> metric.compute(state).exp()
        tensor(10.)
    """

    def measure(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor | int]:
        output = output.to(torch.promote_types(output.dtype, dtype))
        if target.is_floating_point():
            _same_shape(output, target)
            target = target.to(output.dtype)
            count: Tensor | int = target.numel() // target.shape[min(1, target.ndim - 1)]
        else:
            _class_dim(output, target)
            count = (target != ignore_index).sum()
        loss = F.cross_entropy(output, target, reduction="sum", ignore_index=ignore_index)
        return loss, count

    return _mean(measure, dtype)


def mean_squared_error(*, dtype: torch.dtype = torch.float32) -> Metric:
    """Measure the mean of squared differences over all elements.

    Args:
        dtype: of the running sum; outputs of lower precision are raised to it first.

    Returns:
        A metric for outputs and targets of one shape, whatever it is.

    Raises:
        ValueError: the shapes differ (when updated); they are never broadcast.

    Example:
        >>> metric = mean_squared_error()
        >>> metric.compute(metric.update(metric.init(), torch.ones(4, 1), torch.zeros(4, 1)))
        tensor(1.)
    """
    return _mean_error(torch.square, dtype)


def mean_absolute_error(*, dtype: torch.dtype = torch.float32) -> Metric:
    """Measure the mean of absolute differences over all elements.

    Args:
        dtype: of the running sum; outputs of lower precision are raised to it first.

    Returns:
        A metric for outputs and targets of one shape, whatever it is.

    Raises:
        ValueError: the shapes differ (when updated); they are never broadcast.

    Example:
        >>> metric = mean_absolute_error()
        >>> metric.compute(metric.update(metric.init(), torch.ones(4, 1), -torch.ones(4, 1)))
        tensor(2.)
    """
    return _mean_error(torch.abs, dtype)


def _mean(
    measure: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | int]], dtype: torch.dtype
) -> Metric:
    """The mean of what `measure` returns for each batch: a sum, and of how many terms."""

    def init() -> MeanState:
        return MeanState(torch.zeros((), dtype=dtype), torch.zeros((), dtype=torch.int64))

    def update(state: MeanState, output: Tensor, target: Tensor) -> MeanState:
        total, count = measure(output.detach(), target.detach())
        return MeanState(
            state.total.to(total.device) + total.to(dtype), state.terms.to(total.device) + count
        )

    def compute(state: MeanState) -> Tensor:
        return state.total / state.terms

    return Metric(init, update, compute)


def _mean_error(size: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Metric:
    def measure(output: Tensor, target: Tensor) -> tuple[Tensor, int]:
        _same_shape(output, target)
        precise = torch.promote_types(output.dtype, dtype)
        return size(output.to(precise) - target.to(precise)).sum(), output.numel()

    return _mean(measure, dtype)


def _same_shape(output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape:
        raise ValueError(
            f"`target` must have the shape of `output`, {tuple(output.shape)}, "
            f"got {tuple(target.shape)}"
        )


def _class_dim(output: Tensor, target: Tensor) -> int:
    """Where in `output` the classes are: torch's place, after the examples if there are any."""
    if output.ndim == 0:
        raise ValueError("`output` must have a dimension of classes, got a 0-d tensor")
    dim = min(1, output.ndim - 1)
    expected = output.shape[:dim] + output.shape[dim + 1 :]
    if target.shape != expected:
        raise ValueError(
            f"`target` must have shape {tuple(expected)}, that of `output` {tuple(output.shape)} "
            f"without its classes, got {tuple(target.shape)}"
        )
    return dim
