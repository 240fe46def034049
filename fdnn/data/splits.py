"""What a loader returns: three batches, nothing but tensors, so that `tree.map` moves them all."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Batch", "Splits"]


class Batch(NamedTuple):
    """Examples side by side: a plain pair, the `(x, y)` that a training step takes.

    Attributes:
        inputs: one example a row, shape `(n, ...)`.
        targets: what to predict from each, shape `(n, ...)`.

    Example:
        >>> import torch
        >>> x, y = Batch(torch.zeros(3, 8), torch.zeros(3, 1))
        >>> x.shape
        torch.Size([3, 8])
    """

    inputs: Tensor
    targets: Tensor


class Splits(NamedTuple):
    """A data set cut in three, no example in two of them.

    Attributes:
        train: to fit parameters on.
        valid: to choose hyperparameters and stop by.
        test: to report, once.

    Example:
        >>> import torch
        >>> from fdnn import tree
        >>> rows = [Batch(torch.zeros(n, 8), torch.zeros(n, 1)) for n in (6, 2, 2)]
        >>> data = tree.map(torch.Tensor.double, Splits(*rows))  # or `.to("cuda")`
        >>> len(data.train.inputs), data.test.targets.dtype
        (6, torch.float64)
    """

    train: Batch
    valid: Batch
    test: Batch
