"""`fit`: the training loop, with progress, history, interruption and resumption."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.jit import jit
from fdnn.train.shuffle import epoch_order
from fdnn.train.state import TrainState
from fdnn.train.step import Step

__all__ = ["fit"]

Evaluation = Callable[[TrainState], Mapping[str, Tensor]]


def fit(
    step: Step,
    state: TrainState,
    data: Any,
    *,
    epochs: int,
    batch_size: int = 32,
    evaluate: Evaluation | None = None,
    chunk_size: int | None = None,
    steps_per_call: int = 1,
    compile: bool = True,
    progress: bool = True,
) -> tuple[TrainState, dict[str, Tensor]]:
    """Train until every run has seen the data `epochs` times.

    A stacked state (many runs) trains all lanes at once, each in its own order of the data. The
    order of an epoch is a function of the run's key and the epoch's number, so a state taken from
    the middle goes on exactly where it was: call `fit` again with the same arguments.

    Args:
        step: from `make_step`.
        state: one run, or many stacked; not changed.
        data: tensors `(*inputs, target)` of equal length, shuffled by key; or an iterable of
            batches (a `torch.utils.data.DataLoader`), whose order is its own, the same for all
            lanes.
        epochs: passes over the data in all, those that `state` has already made included.
        batch_size: examples in a step, if `data` is tensors. The last batch of an epoch may be
            smaller, as with a `DataLoader`.
        evaluate: called with the state after each epoch; what it returns enters the history.
        chunk_size: how many lanes to run at once; all of them if left out. It changes how much
            memory and cache a step takes, not the result.
        steps_per_call: steps in one compiled call, which saves its overhead; not the result.
        compile: run full batches through `fdnn.jit`. The few steps that do not fill a call run
            eagerly.
        progress: show a progress bar (needs `rich`, of the extra `examples`; without it, none).

    Returns:
        The state after training, and the history: for each number that the steps and `evaluate`
        report, a tensor of shape `(epochs,)` or `(epochs, lanes)`, the steps' averaged over the
        epoch. On interruption (Ctrl-C), the state and history after the last whole epoch, with a
        warning.

    Raises:
        ValueError: a size is not positive, or the tensors of `data` differ in length.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn, vmap
        >>> from fdnn import functionalize, optim, random, train
        >>> model, tx = functionalize(nn.Linear(4, 1)), optim.sgd(lr=0.1)
        >>> step = train.make_step(train.supervised(model, F.mse_loss), tx)
        >>> keys = random.split(random.key(0), 3)
        >>> runs = vmap(lambda key: train.init(model, tx, key))(keys)
        >>> x = random.normal(random.key(1), (64, 4))
        >>> runs, history = fit(
        ...     step, runs, (x, x.sum(1, keepdim=True)), epochs=5, compile=False, progress=False
        ... )
        >>> history["loss"].shape
        torch.Size([5, 3])
    """
    for name, size in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("chunk_size", 1 if chunk_size is None else chunk_size),
        ("steps_per_call", steps_per_call),
    ):
        if size < 1:
            raise ValueError(f"`{name}` must be at least 1, got {size}")
    lanes = state.count.shape[0] if state.count.ndim else None
    source = _source(data, batch_size, lanes)
    runner = _Runner(step, source, lanes, steps_per_call if source.keyed else 1, compile)
    width = lanes or 1
    chunk = min(chunk_size or width, width)
    chunks = [_lanes(state, i, chunk, lanes) for i in range(0, width, chunk)]
    first = int(state.count.max())
    history: dict[str, list[Tensor]] = {}
    kept = state
    begun = first // source.steps
    with _bar(progress, (epochs - begun) * source.steps * len(chunks)) as advance:
        try:
            for epoch in range(begun, epochs):
                skip = first - epoch * source.steps if epoch == begun else 0
                infos = []
                for i, part in enumerate(chunks):
                    chunks[i], info = runner.epoch(part, epoch, skip, advance)
                    infos.append(info)
                kept = _joined(chunks, lanes)
                row = _joined(infos, lanes)
                if evaluate is not None:
                    row |= evaluate(kept)
                for name, value in row.items():
                    history.setdefault(name, []).append(value)
        except KeyboardInterrupt:
            warnings.warn(
                f"interrupted: returning the state after {int(kept.count.max())} steps; call "
                "`fit` with it to go on",
                RuntimeWarning,
                stacklevel=2,
            )
    return kept, {name: torch.stack(list(values)) for name, values in history.items()}


class _Tensors:
    """Data held in tensors: batches are gathered by index, inside the step."""

    keyed = True

    def __init__(self, data: tuple[Tensor, ...], batch_size: int):
        sizes = {len(part) for part in data}
        if len(sizes) != 1:
            raise ValueError(f"`data` must hold tensors of equal length, got {sorted(sizes)}")
        self.data = tuple(data)
        self.size = sizes.pop()
        self.batch_size = batch_size
        self.steps = -(-self.size // batch_size)

    def batches(self, state: TrainState, epoch: int, lanes: int | None) -> Iterator[Tensor]:
        """Yield each batch's indices: shape `(batch,)`, or `(lanes, batch)`."""
        order = epoch_order if lanes is None else torch.vmap(epoch_order, in_dims=(0, None, None))
        yield from torch.split(order(state.key, epoch, self.size), self.batch_size, dim=-1)

    def look_up(self, index: Tensor) -> tuple[Tensor, ...]:
        """Gather a batch."""
        return tuple(part[index] for part in self.data)


class _Loader:
    """Data that comes in batches of its own."""

    keyed = False

    def __init__(self, loader: Any):
        self.loader = loader
        self.steps = len(loader)

    def batches(self, state: TrainState, epoch: int, lanes: int | None) -> Iterator[Any]:
        """Yield the batches as they come."""
        yield from self.loader

    def look_up(self, batch: Any) -> Any:
        """Return the batch itself."""
        return batch


def _source(data: Any, batch_size: int, lanes: int | None) -> _Tensors | _Loader:
    if isinstance(data, tuple | list) and all(isinstance(part, Tensor) for part in data):
        return _Tensors(tuple(data), batch_size)
    if not hasattr(data, "__len__"):
        raise TypeError(
            "`data` must be tensors or a sized iterable of batches (such as a DataLoader), "
            f"got {type(data).__name__}"
        )
    return _Loader(data)


class _Runner:
    """One epoch of one chunk of lanes."""

    def __init__(
        self,
        step: Step,
        source: _Tensors | _Loader,
        lanes: int | None,
        steps_per_call: int,
        compile: bool,
    ):
        self.source, self.lanes, self.group = source, lanes, steps_per_call

        def one(state: TrainState, picked: Any) -> tuple[TrainState, dict[str, Tensor]]:
            return step(state, source.look_up(picked))

        in_dims = (0, 0) if source.keyed else (0, None)
        self.single = one if lanes is None else torch.vmap(one, in_dims=in_dims)
        batched = self.single

        def several(state: TrainState, *picks: Any) -> tuple[TrainState, dict[str, Tensor]]:
            infos = []
            for picked in picks:
                state, info = batched(state, picked)
                infos.append(info)
            return state, _summed(infos)

        self.several = jit(several, donate_argnums=0) if compile else several

    def epoch(
        self, state: TrainState, epoch: int, skip: int, advance: Callable[[int], None]
    ) -> tuple[TrainState, dict[str, Tensor]]:
        """Run an epoch but for its first `skip` steps; return the state and the mean info."""
        state = tree.map(torch.clone, state)  # `several` is given it to overwrite
        batches = itertools.islice(
            self.source.batches(state, epoch, self.lanes), skip, self.source.steps
        )
        infos, taken = [], 0
        while group := list(itertools.islice(batches, self.group)):
            full = len(group) == self.group and not self._is_partial(group[-1])
            if full:
                state, info = self.several(state, *group)
                infos.append(info)
            else:
                for picked in group:
                    state, info = self.single(state, picked)
                    infos.append(info)
            taken += len(group)
            advance(len(group))
        return state, tree.map(lambda total: total / taken, _summed(infos))

    def _is_partial(self, picked: Any) -> bool:
        return isinstance(self.source, _Tensors) and picked.shape[-1] < self.source.batch_size


def _summed(infos: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: sum(info[name] for info in infos) for name in infos[0]}  # type: ignore[misc]


def _lanes(state: TrainState, start: int, size: int, lanes: int | None) -> TrainState:
    if lanes is None:
        return state
    part: TrainState = tree.map(lambda leaf: leaf[start : start + size], state)
    return part


def _joined(parts: list[Any], lanes: int | None) -> Any:
    if lanes is None:
        return tree.map(torch.clone, parts[0])
    return tree.map(lambda *leaves: torch.cat(leaves), *parts)


@contextlib.contextmanager
def _bar(show: bool, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves a progress bar on by a number of steps."""
    if not show:
        yield lambda steps: None
        return
    try:
        from rich.progress import Progress
    except ImportError:
        yield lambda steps: None
        return
    with Progress(transient=True) as bar:
        task = bar.add_task("training", total=total)
        yield lambda steps: bar.advance(task, steps)
