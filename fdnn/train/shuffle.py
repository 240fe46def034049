"""The order in which a run sees its data: a function of the run's key and the epoch."""

from __future__ import annotations

from torch import Tensor

from fdnn import random
from fdnn.types import Key

__all__ = ["epoch_order"]

_STREAM = 2**32 - 1  # folded into the run's key: no step count reaches it


def epoch_order(key: Key, epoch: int | Tensor, size: int) -> Tensor:
    """Return the permutation of `size` examples for one epoch of the run with this key.

    Args:
        key: the run's key, `state.key`.
        epoch: number of the epoch, from 0.
        size: how many examples there are.

    Returns:
        int64 of shape `(size,)`.

    Example:
        >>> epoch_order(random.key(0), 0, 4).sort().values
        tensor([0, 1, 2, 3])
    """
    return random.permutation(random.fold_in(random.fold_in(key, _STREAM), epoch), size)
