"""Where `fit` takes its batches from: tensors, shuffled by key, or a loader with its own order.

Both tell how many `steps` an epoch has, yield what a step needs to find its batch, and `look_up`
the batch itself, which happens inside the (vmapped, compiled) step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.train.shuffle import epoch_order
from fdnn.train.state import TrainState

__all__ = ["Loader", "Tensors", "arguments", "is_tensors", "source"]


class Tensors:
    """Examples held in tensors; every run, so every lane, goes through them in its own order."""

    in_dim = 0  # of what `picks` yields, under vmap

    def __init__(self, data: tuple[Tensor, ...], batch_size: int):
        sizes = sorted({len(part) for part in data})
        if len(sizes) != 1 or sizes[0] == 0:
            raise ValueError(f"`data` must hold tensors of one length above 0, got {sizes}")
        self.data, self.size, self.batch_size = data, sizes[0], batch_size
        self.steps = -(-self.size // batch_size)

    def picks(self, state: TrainState, epoch: int) -> Iterator[Tensor]:
        """Yield each batch's indices, of shape `(batch,)` or `(lanes, batch)`."""
        order = (
            torch.vmap(epoch_order, in_dims=(0, None, None)) if state.count.ndim else epoch_order
        )
        yield from torch.split(order(state.key, epoch, self.size), self.batch_size, dim=-1)

    def look_up(self, index: Tensor) -> tuple[Tensor, ...]:
        """Gather a batch."""
        return tuple(part[index] for part in self.data)

    def place(self, index: Tensor, path: str, place: tuple[int, ...]) -> str:
        """Name an element of a batch, `path` and `place` in it, by where it stands in the data."""
        row = index[place[: index.ndim]].item()
        return f"data.{path}{[row, *place[index.ndim :]]}"

    def is_full(self, index: Tensor) -> bool:
        """Tell whether a batch has the usual size."""
        return index.shape[-1] == self.batch_size


class Loader:
    """A sized iterable of batches, the same for all lanes, moved to where the state is."""

    in_dim = None

    def __init__(self, loader: Any):
        self.loader = loader
        self.steps = len(loader)

    def picks(self, state: TrainState, epoch: int) -> Iterator[Any]:
        """Yield the batches as they come."""
        for batch in self.loader:
            yield tree.map(lambda part: part.to(state.count.device), batch)

    def look_up(self, batch: Any) -> Any:
        """Return the batch itself."""
        return batch

    def place(self, batch: Any, path: str, place: tuple[int, ...]) -> str:
        """Name an element of a batch."""
        return f"batch.{path}{list(place)}"

    def is_full(self, batch: Any) -> bool:
        """Say yes: what size is usual cannot be known."""
        return True


def source(data: Any, batch_size: int) -> Tensors | Loader:
    """Wrap what the user calls data.

    Raises:
        TypeError: `data` is neither tensors nor a sized iterable.
        ValueError: tensors of different lengths, or nothing in them.
    """
    if is_tensors(data):
        return Tensors(tuple(data), batch_size)
    if not (hasattr(data, "__len__") and hasattr(data, "__iter__")):
        raise TypeError(
            "`data` must be tensors (*inputs, target) or a sized iterable of batches (such as a "
            f"DataLoader), got {type(data).__name__}"
        )
    return Loader(data)


def arguments(inputs: Sequence[Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Split a batch's inputs into the model's arguments: a mapping in front holds keywords."""
    if inputs and isinstance(inputs[0], Mapping):
        return inputs[1:], inputs[0]
    return inputs, {}


def is_tensors(data: Any) -> bool:
    """Tell tensors `(*inputs, target)` from an iterable of batches."""
    return isinstance(data, tuple | list) and all(isinstance(part, Tensor) for part in data)
