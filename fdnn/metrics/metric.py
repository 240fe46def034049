"""What a metric is: three pure functions around a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from fdnn import tree

__all__ = ["Metric", "in_lanes"]


class Metric(NamedTuple):
    """A metric: a triple of pure functions.

    Attributes:
        init: `init() -> state`, a tree of tensors.
        update: `update(state, output, target) -> state`, of the same structure; the state moves to
            the device of the outputs.
        compute: `compute(state) -> value`, the metric of all that the state has seen; over no
            example at all it is what torch makes of nothing, mostly nan.
        vmaps: whether these functions run under `vmap`.

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
    vmaps: bool = True


def in_lanes(metric: Metric, lanes: int) -> Metric:
    """Make a metric of many runs at once out of the metric of one.

    It is vmapped if it can be, otherwise the runs are measured one after the other.

    Args:
        metric: of one run.
        lanes: how many runs there are.

    Returns:
        A metric whose `update` takes outputs with a leading dimension of `lanes`, and the target
        that all have in common, and whose `compute` gives one value for each run.

    Example:
        >>> import torch
        >>> from fdnn import metrics
        >>> metric = in_lanes(metrics.accuracy(), 2)
        >>> logits = torch.tensor([[[2.0, 1.0]], [[1.0, 2.0]]])
        >>> metric.compute(metric.update(metric.init(), logits, torch.tensor([0])))
        tensor([1., 0.])
    """
    if metric.vmaps:
        return Metric(
            lambda: tree.map(lambda leaf: leaf.expand((lanes, *leaf.shape)), metric.init()),
            torch.vmap(metric.update, in_dims=(0, 0, None)),
            torch.vmap(metric.compute),
        )

    def update(states: list[Any], output: Any, target: Any) -> list[Any]:
        outputs = tree.unstack(output)
        return [metric.update(s, o, target) for s, o in zip(states, outputs, strict=True)]

    return Metric(
        lambda: [metric.init() for _ in range(lanes)],
        update,
        lambda states: tree.stack([metric.compute(state) for state in states]),
        vmaps=False,
    )
