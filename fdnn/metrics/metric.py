"""What a metric is: three pure functions around a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Metric"]


class Metric(NamedTuple):
    """A metric: a triple of pure functions.

    Attributes:
        init: `init() -> state`, a tree of tensors.
        update: `update(state, output, target) -> state`, of the same structure; the state moves to
            the device of the outputs.
        compute: `compute(state) -> value`, the metric of all that the state has seen; over no
            example at all it is what torch makes of nothing, mostly nan.

    Example:
        >>> import torch
        >>> from fdnn import metrics
        >>> metric = metrics.accuracy()
        >>> state = metric.init()
        >>> for label in 0, 1:
        ...     state = metric.update(state, torch.tensor([[2.0, 1.0]]), torch.tensor([label]))
        >>> metric.compute(state)
        tensor(0.5000)
    """

    init: Callable[[], Any]
    update: Callable[[Any, Any, Any], Any]
    compute: Callable[[Any], Any]
