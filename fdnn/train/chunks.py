"""Many runs, so many lanes at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn import tree
from fdnn.train.epochs import Epoch, Info
from fdnn.train.state import TrainState

__all__ = ["in_chunks", "num_chunks"]


def num_chunks(state: TrainState, chunk_size: int | None) -> int:
    """Return how many chunks there are."""
    return len(_starts(state, chunk_size))


def in_chunks(
    run_epoch: Epoch,
    state: TrainState,
    stopped: Tensor,
    chunk_size: int | None,
    epoch: int,
    skip: int,
) -> tuple[TrainState, Info]:
    """Take all runs through an epoch, a chunk at a time; one that has stopped altogether rests.

    Args:
        run_epoch: from `epoch_runner`.
        state: one run, or many stacked, not all of them stopped.
        stopped: which of them have, 0-d or of shape `(lanes,)`.
        chunk_size: lanes at a time; None for all.
        epoch: the number of the epoch.
        skip: how many of its steps have been taken already.

    Returns:
        The state, and the mean of the steps' infos; nan for a chunk that rested.
    """
    bare, starts = state._replace(monitors={}), _starts(state, chunk_size)
    if len(starts) == 1:
        new, row = run_epoch(bare, epoch, skip, ~stopped, 0)
        return new._replace(monitors=state.monitors), row
    states: list[TrainState] = []
    infos: dict[int, Info] = {}
    for start in starts:
        lanes = slice(start, start + starts.step)
        chunk: TrainState = tree.map(lambda leaf, lanes=lanes: leaf[lanes], bare)
        if not stopped[lanes].all():
            chunk, infos[start] = run_epoch(chunk, epoch, skip, ~stopped[lanes], start)
        states.append(chunk)
    row = {}
    for name, like in next(iter(infos.values())).items():
        row[name] = like.new_full((len(stopped), *like.shape[1:]), torch.nan)
        for start, info in infos.items():
            row[name][start : start + starts.step] = info[name]
    joined: TrainState = tree.map(lambda *parts: torch.cat(parts), *states)
    return joined._replace(monitors=state.monitors), row


def _starts(state: TrainState, chunk_size: int | None) -> range:
    """Return the first lane of each chunk."""
    lanes = len(state.count) if state.count.ndim else 1
    return range(0, lanes, lanes if chunk_size is None or not state.count.ndim else chunk_size)
