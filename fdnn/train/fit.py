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
from fdnn.train.batches import Loader, Tensors, source
from fdnn.train.state import TrainState
from fdnn.train.step import Step

__all__ = ["fit"]

Info = dict[str, Tensor]
Evaluation = Callable[[TrainState], Mapping[str, Tensor]]
Advance = Callable[[int], None]


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
        compile: run full batches through `fdnn.jit`. The few steps of an epoch that do not fill a
            call run eagerly.
        progress: show a progress bar (needs `rich`, of the extra `examples`; without it, none).

    Returns:
        The state after training, and the history: for each number that the steps and `evaluate`
        report, a tensor of shape `(epochs,)` or `(epochs, lanes)`, the steps' averaged over the
        epoch. Only the epochs of this call are in it. On interruption (Ctrl-C), the state and
        history after the last whole epoch, with a warning.

    Raises:
        TypeError: `data` is neither tensors nor a sized iterable.
        ValueError: a size is not positive, the tensors of `data` differ in length, or the lanes
            of `state` in their number of steps; or the optimizer's schedules (`one_cycle`) are not
            as long as the run.

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
    if state.count.min() != state.count.max():
        raise ValueError(f"`state` must have one count of steps in all lanes, got {state.count}")
    batches = source(data, batch_size)
    length = getattr(step, "total_steps", None)
    if length not in (None, epochs * batches.steps):
        raise ValueError(
            f"`epochs` times the steps of an epoch must be {length}, the length of the optimizer's "
            f"schedules, got {epochs} x {batches.steps} = {epochs * batches.steps}"
        )
    run_epoch = _epoch_runner(step, batches, state.count.ndim > 0, steps_per_call, compile)
    chunks = _cut(state, chunk_size)
    begun, skip = divmod(int(state.count.max()), batches.steps)
    rows: list[Info] = []
    with _progress_bar(progress, (epochs - begun) * batches.steps * len(chunks)) as advance:
        try:
            for epoch in range(begun, epochs):
                done = [run_epoch(chunk, epoch, skip, advance) for chunk in chunks]
                chunks, skip = [chunk for chunk, _ in done], 0
                state, row = _joined(chunks), _joined([info for _, info in done])
                rows.append(
                    row | tree.map(torch.as_tensor, dict(evaluate(state)) if evaluate else {})
                )
        except KeyboardInterrupt:
            warnings.warn(
                f"interrupted: returning the state after {int(state.count.max())} steps; call "
                "`fit` with it to go on",
                RuntimeWarning,
                stacklevel=2,
            )
    return state, tree.stack(rows) if rows else {}


def _epoch_runner(
    step: Step, batches: Tensors | Loader, stacked: bool, steps_per_call: int, compile: bool
) -> Callable[[TrainState, int, int, Advance], tuple[TrainState, Info]]:
    """Build the function that takes a state through one epoch, but for its first `skip` steps."""

    def one(state: TrainState, pick: Any) -> tuple[TrainState, Info]:
        return step(state, batches.look_up(pick))

    single = torch.vmap(one, in_dims=(0, batches.in_dim)) if stacked else one

    def several(state: TrainState, *picks: Any) -> tuple[TrainState, Info]:
        infos = []
        for pick in picks:
            state, info = single(state, pick)
            infos.append(info)
        return state, _summed(infos)

    fast = jit(several, donate_argnums=0) if compile else several

    def run_epoch(
        state: TrainState, epoch: int, skip: int, advance: Advance
    ) -> tuple[TrainState, Info]:
        state = tree.map(torch.clone, state)  # for `fast` to overwrite
        picks = itertools.islice(batches.picks(state, epoch), skip, None)
        # Summed on the way: thousands of small tensors that stay would cut up the memory that the
        # large ones of each step come from, so that these would have to be new every time.
        total: Info = {}
        while group := list(itertools.islice(picks, steps_per_call)):
            fits = len(group) == steps_per_call and batches.is_full(group[-1])
            state, info = (fast if fits else several)(state, *group)
            total = _summed([total, info]) if total else info
            advance(len(group))
        return state, tree.map(lambda sum: sum / (batches.steps - skip), total)

    return run_epoch


def _summed(infos: list[Info]) -> Info:
    return tree.map(lambda *values: sum(values), *infos)  # type: ignore[no-any-return]


def _cut(state: TrainState, chunk_size: int | None) -> list[TrainState]:
    """Cut a stacked state into chunks of lanes."""
    if state.count.ndim == 0 or chunk_size is None:
        return [state]
    starts = range(0, state.count.shape[0], chunk_size)
    return [tree.map(lambda leaf, i=i: leaf[i : i + chunk_size], state) for i in starts]


def _joined(chunks: list[Any]) -> Any:
    return tree.map(lambda *parts: torch.cat(parts), *chunks) if len(chunks) > 1 else chunks[0]


@contextlib.contextmanager
def _progress_bar(show: bool, total: int) -> Iterator[Advance]:
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
