"""`fit`: the training loop, with progress, history, monitors, interruption and resumption."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.train import monitor as watch
from fdnn.train.batches import source
from fdnn.train.checkpoints import Checkpoints
from fdnn.train.chunks import in_chunks, num_chunks
from fdnn.train.denormals import flushed
from fdnn.train.epochs import Info, epoch_runner
from fdnn.train.monitor import Monitor
from fdnn.train.nonfinite import POLICIES
from fdnn.train.progress import progress_bar
from fdnn.train.state import TrainState
from fdnn.train.step import Step

__all__ = ["fit"]

Evaluation = Callable[[TrainState], Mapping[str, Tensor]]
Callback = Callable[[TrainState, Info], Any]


def fit(
    step: Step,
    state: TrainState,
    data: Any,
    *,
    epochs: int,
    batch_size: int = 32,
    evaluate: Evaluation | None = None,
    monitors: Mapping[str, Monitor] | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoints: Checkpoints | None = None,
    nonfinite: str = "stop",
    chunk_size: int | None = None,
    steps_per_call: int = 1,
    compile: bool = True,
    progress: bool = True,
) -> tuple[TrainState, dict[str, Tensor]]:
    """Train until every run has seen the data `epochs` times, or is stopped by a monitor.

    A stacked state (many runs) trains all lanes at once, each in its own order of the data. The
    order of an epoch is a function of the run's key and the epoch's number, so a state taken from
    the middle goes on exactly where it was: call `fit` again with the same arguments.

    After each epoch, in this order: `evaluate`, the monitors, the checkpoint, the callbacks.

    Until it returns, numbers below the smallest normal one (1e-38 in float32) count as 0 on a CPU:
    where units have died, the momentum that is left would make every step many times as slow.

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
            `evaluator` makes one.
        monitors: by name, such as `early_stopping` and `plateau`. Their memories are in
            `state.monitors` and go on from there, those of names not given here are dropped.
        callbacks: each is called with the state and the numbers of the epoch, `epoch` (how many
            are done) among them. If one returns True, training ends. `csv_logger` and
            `tensorboard_logger` make such.
        checkpoints: where state and history are saved after each epoch. If there is one already,
            training goes on from the latest instead of from `state`.
        nonfinite: what to do if a loss or a parameter is nan or infinite. `"stop"`: raise, with
            the batch and the first bad place. `"report"`: warn, and go on (a lane that is lost
            does not disturb the others). `"skip"`: leave that step out; the history counts them
            as `skipped`.
        chunk_size: how many lanes to run at once; all of them if left out. It changes how much
            memory and cache a step takes, not the result.
        steps_per_call: steps in one compiled call, which saves its overhead; not the result.
        compile: run full batches through `fdnn.jit`. The few steps of an epoch that do not fill a
            call run eagerly.
        progress: show a progress bar (needs `rich`, of the extra `examples`; without it, none).

    Returns:
        The state after training, and the history: for each number that the steps and `evaluate`
        report, a tensor of shape `(epochs,)` or `(epochs, lanes)`, the steps' averaged over the
        epoch. Only the epochs of this call are in it (with `checkpoints`, those before as well);
        the numbers of a lane that had stopped are nan. On interruption (Ctrl-C), the state and
        history after the last whole epoch, with a warning.

    Raises:
        TypeError: `data` is neither tensors nor a sized iterable.
        ValueError: a size is not positive, the tensors of `data` differ in length, or the lanes
            of `state` that still train in their number of steps; `nonfinite` is none of the three;
            the optimizer's schedules (`one_cycle`) are not as long as the run; or `checkpoints`
            holds other runs.
        FloatingPointError: a number is not finite (`nonfinite="stop"`).
        Exception: whatever stops training, also an error of the data, of a callback or of a full
            disk, has the state after the last whole epoch in its attribute `state`, and the
            history in `history`.

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
    for argument, size in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("chunk_size", 1 if chunk_size is None else chunk_size),
        ("steps_per_call", steps_per_call),
    ):
        if size < 1:
            raise ValueError(f"`{argument}` must be at least 1, got {size}")
    if nonfinite not in POLICIES:
        raise ValueError(f"`nonfinite` must be one of {POLICIES}, got {nonfinite!r}")
    batches = source(data, batch_size)
    length = getattr(step, "total_steps", None)
    if length not in (None, epochs * batches.steps):
        raise ValueError(
            f"`epochs` times the steps of an epoch must be {length}, the length of the optimizer's "
            f"schedules, got {epochs} x {batches.steps} = {epochs * batches.steps}"
        )
    monitors = dict(monitors or {})
    state = watch.begin(monitors, state)
    if checkpoints is not None and checkpoints.latest() is not None:
        state = _latest(checkpoints, state)
    stopped = watch.stopped(monitors, state)
    begun, skip = divmod(_count(state, stopped), batches.steps)
    rows: list[Info] = [] if checkpoints is None else checkpoints.history(begun)
    steps = (epochs - begun) * batches.steps * num_chunks(state, chunk_size)
    with progress_bar(progress, steps, epochs) as bar, flushed():
        run_epoch = epoch_runner(
            step,
            batches,
            bar.advance,
            stacked=state.count.ndim > 0,
            steps_per_call=steps_per_call,
            compile=compile,
            nonfinite=nonfinite,
        )
        lost: list[int] = []
        try:
            for epoch in range(begun, epochs):
                if stopped.all():
                    break
                new, row = in_chunks(run_epoch, state, stopped, chunk_size, epoch, skip)
                if evaluate is not None:
                    row |= tree.map(torch.as_tensor, dict(evaluate(new)))
                if monitors:
                    new, row = _held(stopped, watch.look(monitors, new, row), state, row)
                    stopped = watch.stopped(monitors, new)
                    new = tree.where(stopped, watch.finish(monitors, new), new)
                state, skip = new, 0
                rows.append(row)
                bar.epoch(epoch + 1, row)
                if nonfinite == "report":
                    lost = _report(state, epoch, lost)
                if checkpoints is not None:
                    name = checkpoints.metric
                    metric = None if name is None else watch.number(row, name).nanmean()
                    checkpoints.save_history(_history(rows), epoch + 1)
                    checkpoints.save(state, int(state.count.max()), metric)
                told = {**row, "epoch": torch.tensor(epoch + 1)}
                if any([callback(state, told) is True for callback in callbacks]):
                    break
            if checkpoints is not None:
                checkpoints.wait()
            state = watch.finish(monitors, state)
        except KeyboardInterrupt:
            warnings.warn(
                f"interrupted: returning the state after {int(state.count.max())} steps; call "
                "`fit` with it to go on",
                RuntimeWarning,
                stacklevel=2,
            )
        except Exception as error:
            vars(error).update(state=state, history=_history(rows))
            error.add_note(
                f"in `fit`: this error's `state` is that after {int(state.count.max())} steps, "
                "the last whole epoch, and its `history` what was reported until then"
            )
            raise
        finally:
            if checkpoints is not None:
                checkpoints.wait()
    return state, _history(rows)


def _latest(checkpoints: Checkpoints, state: TrainState) -> TrainState:
    """Load the latest checkpoint, which must be of the same runs."""
    found: TrainState = checkpoints.load(like=state)
    if not torch.equal(found.key, state.key):
        raise ValueError(
            f"`checkpoints` must be empty or hold the runs of `state`, got {checkpoints.folder}, "
            f"with key {found.key.tolist()} where `state` has {state.key.tolist()}"
        )
    return found


def _count(state: TrainState, stopped: Tensor) -> int:
    """Return the number of steps that all runs which still train have taken."""
    counts = state.count if stopped.all() else state.count[~stopped]
    if counts.min() != counts.max() and not stopped.all():
        raise ValueError(f"`state` must have one count of steps in all lanes, got {state.count}")
    return int(counts.max())


def _held(stopped: Tensor, new: TrainState, old: TrainState, row: Info) -> tuple[TrainState, Info]:
    """Leave the lanes that have stopped as they were; their numbers are nan."""
    if not stopped.any():
        return new, row
    row = {
        name: tree.where(~stopped, value, torch.full_like(value, torch.nan))
        if value.is_floating_point() and value.shape[:1] == stopped.shape
        else value
        for name, value in row.items()
    }
    return tree.where(stopped, old, new), row


def _report(state: TrainState, epoch: int, known: list[int]) -> list[int]:
    """Warn of runs whose parameters are not finite, each once."""
    check = torch.vmap(tree.all_finite) if state.count.ndim else tree.all_finite
    lost: list[int] = (~check(state.params)).reshape(-1).nonzero().flatten().tolist()
    if new := [lane for lane in lost if lane not in known]:
        which = f" of lanes {new}" if state.count.ndim else ""
        warnings.warn(
            f"epoch {epoch}: parameters{which} are not finite any more",
            RuntimeWarning,
            stacklevel=3,
        )
    return lost


def _history(rows: list[Info]) -> dict[str, Tensor]:
    """Stack the rows, from where they have the numbers that they have now."""
    alike = [row for row in rows if row.keys() == rows[-1].keys()]
    return tree.stack(alike) if alike else {}
