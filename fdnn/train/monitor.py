"""What a monitor is: a pure state machine that `fit` shows each epoch's numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn.train.state import TrainState

__all__ = ["Monitor", "Row", "begin", "finish", "look", "number", "stopped"]

Row = dict[str, Tensor]
"""The numbers of one epoch, 0-d or of shape `(lanes,)`."""


def _never(memory: Any) -> Tensor:
    return torch.zeros((), dtype=torch.bool)


def _as_it_is(memory: Any, state: TrainState) -> TrainState:
    return state


class Monitor(NamedTuple):
    """A state machine around training: four pure functions of one run, which `fit` vmaps.

    What it remembers is a tree of tensors in `state.monitors`, so that it is checkpointed and
    resumed with the run.

    Attributes:
        init: `init(state) -> memory`, before the first epoch.
        update: `update(memory, state, numbers) -> (memory, state)`, after every epoch; `numbers`
            are what the steps and `evaluate` report, as 0-d tensors by name.
        stopped: `stopped(memory) -> bool tensor`: whether this run is to train no further.
        finish: `finish(memory, state) -> state`, when it has stopped or `fit` is done.

    Example:
        A monitor that stops a run as soon as its loss is low enough.

        >>> import torch
        >>> from fdnn import train
        >>> good_enough = train.Monitor(
        ...     init=lambda state: torch.tensor(False),
        ...     update=lambda memory, state, numbers: (numbers["loss"] < 0.1, state),
        ...     stopped=lambda memory: memory,
        ... )
    """

    init: Callable[[TrainState], Any]
    update: Callable[[Any, TrainState, Row], tuple[Any, TrainState]]
    stopped: Callable[[Any], Tensor] = _never
    finish: Callable[[Any, TrainState], TrainState] = _as_it_is


def number(numbers: Row, name: str) -> Tensor:
    """Return the number of that name, or raise ValueError with the names there are."""
    if name not in numbers:
        raise ValueError(f"`metric` must be one of {sorted(numbers)}, got {name!r}")
    return numbers[name]


def begin(monitors: Mapping[str, Monitor], state: TrainState) -> TrainState:
    """Give a state the memories that it lacks, and take from it those that have no monitor."""
    known = state.monitors
    bare = state._replace(monitors={})
    fresh = {name: m.init for name, m in monitors.items() if name not in known}
    new = {name: _lanewise(state, init)(bare) for name, init in fresh.items()}
    return state._replace(monitors={name: (known | new)[name] for name in monitors})


def look(monitors: Mapping[str, Monitor], state: TrainState, row: Row) -> TrainState:
    """Show all monitors an epoch's numbers, one after the other."""
    lanes = state.count.shape
    own = [value.ndim > 0 and value.shape[:1] == lanes for value in row.values()]
    in_dims = (0, 0, {name: 0 if dim else None for name, dim in zip(row, own, strict=True)})
    for name, monitor in monitors.items():
        memories, bare = state.monitors, state._replace(monitors={})
        memory, bare = _lanewise(state, monitor.update, in_dims)(memories[name], bare, row)
        state = bare._replace(monitors={**memories, name: memory})
    return state


def stopped(monitors: Mapping[str, Monitor], state: TrainState) -> Tensor:
    """Tell which runs have been stopped by any monitor: 0-d or of shape `(lanes,)`."""
    found = torch.zeros_like(state.count, dtype=torch.bool)
    for name, monitor in monitors.items():
        found = found | _lanewise(state, monitor.stopped)(state.monitors[name])
    return found


def finish(monitors: Mapping[str, Monitor], state: TrainState) -> TrainState:
    """Let all monitors have the last word on the state."""
    if not monitors:
        return state
    memories, bare = state.monitors, state._replace(monitors={})
    for name, monitor in monitors.items():
        bare = _lanewise(state, monitor.finish)(memories[name], bare)
    return bare._replace(monitors=memories)


def _lanewise(state: TrainState, fn: Callable[..., Any], in_dims: Any = 0) -> Callable[..., Any]:
    return torch.vmap(fn, in_dims=in_dims) if state.count.ndim else fn
