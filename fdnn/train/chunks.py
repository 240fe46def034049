"""Many runs, so many lanes at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn import tree
from fdnn.train.epochs import Epoch, Info
from fdnn.train.state import TrainState

__all__ = ["in_chunks", "num_chunks"]


def num_chunks(state: TrainState, chunk_size: int | None) -> int:
    """Return in how many chunks all lanes go."""
    lanes = state.count.numel()
    return -(-lanes // min(chunk_size or lanes, lanes))


def in_chunks(
    run_epoch: Epoch,
    state: TrainState,
    stopped: Tensor,
    chunk_size: int | None,
    epoch: int,
    skip: int,
) -> tuple[TrainState, Info]:
    """Take the runs that have not stopped through an epoch, a chunk at a time.

    They are packed together, so that those that have stopped cost nothing by whole chunks. A chunk
    is filled up by repeating its lanes, to a size that the step is compiled for already.

    Args:
        run_epoch: from `epoch_runner`.
        state: one run, or many stacked, not all of them stopped.
        stopped: which of them have, 0-d or of shape `(lanes,)`.
        chunk_size: lanes at a time; None for all.
        epoch: the number of the epoch.
        skip: how many of its steps have been taken already.

    Returns:
        The state, and the mean of the steps' infos; nan for runs that had stopped.
    """
    bare, memories = state._replace(monitors={}), state.monitors
    if stopped.ndim == 0:
        new, row = run_epoch(bare, epoch, skip, None)
        return new._replace(monitors=memories), row
    total = len(stopped)
    full = min(chunk_size or total, total)
    last = total % full or full  # the sizes there are
    if 4 * last > 3 * full:
        last = full  # a few lanes more cost less than to compile once more
    running = (~stopped).nonzero().flatten()
    states, rows = [], []
    for first in range(0, len(running), full):
        lanes = running[first : first + full]
        count = len(lanes)
        size = last if count <= last else full
        lanes = lanes[torch.arange(size, device=lanes.device) % count]
        # A slice is no copy.
        at = lanes if len(running) < total else slice(first, first + count)
        chunk: TrainState = tree.map(lambda leaf, at=at: leaf[at], bare)
        done = run_epoch(chunk, epoch, skip, lanes)
        new, row = tree.map(lambda leaf, count=count: leaf[:count], done)
        states.append(new)
        rows.append(row)
    joined: TrainState = tree.map(lambda *parts: torch.cat(parts), *states)
    numbers: Info = tree.map(lambda *parts: torch.cat(parts), *rows)
    if len(running) < total:
        joined = tree.map(lambda old, new: old.index_copy(0, running, new), bare, joined)
        blank = tree.map(lambda part: part.new_full((total, *part.shape[1:]), torch.nan), numbers)
        numbers = tree.map(lambda old, new: old.index_copy(0, running, new), blank, numbers)
    return joined._replace(monitors=memories), numbers
