"""One epoch of `fit`: a state goes through its batches, one or several in a call."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.jit import jit
from fdnn.train.batches import Loader, Tensors
from fdnn.train.nonfinite import first_nonfinite, locate, skipping
from fdnn.train.state import TrainState
from fdnn.train.step import Step

__all__ = ["Epoch", "Info", "epoch_runner"]

Info = dict[str, Tensor]

Epoch = Callable[[TrainState, int, int, Tensor | None], tuple[TrainState, Info]]
"""`run_epoch(state, epoch, skip, lanes) -> (state, the steps' mean info)`."""

_CALLS_BETWEEN_LOOKS = 100  # at the loss: Python has to wait for it


def epoch_runner(
    step: Step,
    batches: Tensors | Loader,
    advance: Callable[[int], None],
    *,
    stacked: bool,
    steps_per_call: int,
    compile: bool,
    nonfinite: str,
) -> Epoch:
    """Build the function that takes a state through one epoch, but for its first `skip` steps.

    Args:
        step: of one run.
        batches: from `source`.
        advance: told how many steps have been taken.
        stacked: whether the states are stacked.
        steps_per_call: steps in one compiled call.
        compile: whether to compile full calls.
        nonfinite: one of `POLICIES`.

    Returns:
        The function, which is told the numbers of the lanes (None for one run) to name them in
        errors. It raises FloatingPointError by the policy "stop", and whatever the step and
        the data raise, with a note that says where.
    """
    guarded = skipping(step) if nonfinite == "skip" else step

    def one(state: TrainState, pick: Any) -> tuple[TrainState, Info]:
        return guarded(state, batches.look_up(pick))

    single = torch.vmap(one, in_dims=(0, batches.in_dim)) if stacked else one

    def several(state: TrainState, *picks: Any) -> tuple[TrainState, Info]:
        infos = []
        for pick in picks:
            state, info = single(state, pick)
            infos.append(info)
        return state, _summed(infos)

    fast = jit(several, donate_argnums=0) if compile else several

    def call(state: TrainState, *picks: Any) -> tuple[TrainState, Info]:
        fits = len(picks) == steps_per_call and batches.is_full(picks[-1])
        return (fast if fits else several)(state, *picks)

    def run_epoch(
        start: TrainState, epoch: int, skip: int, lanes: Tensor | None
    ) -> tuple[TrainState, Info]:
        def all_finite(numbers: dict[str, Any]) -> bool:
            return nonfinite != "stop" or first_nonfinite(numbers) is None

        state = tree.map(torch.clone, start)  # for `fast` to overwrite
        picks = itertools.islice(batches.picks(start, epoch), skip, None)
        # Summed on the way: thousands of small tensors that stay would cut up the memory that the
        # large ones of each step come from, so that these would have to be new every time.
        total: Info = {}
        taken, group, fine = skip, [], True
        try:
            for calls in itertools.count(1):
                group = list(itertools.islice(picks, steps_per_call))
                if not group or not fine:
                    break
                state, info = call(state, *group)
                total = _summed([total, info]) if total else info
                taken += len(group)
                advance(len(group))
                if calls % _CALLS_BETWEEN_LOOKS == 0:
                    fine = all_finite({"loss": total.get("loss", ())})
        except Exception as error:
            batch, params = batches.look_up(group[0]) if group else (), start.params
            error.add_note(
                f"in `fit`: epoch {epoch}, batch {taken} (counted from 0). Batch: {_specs(batch)}. "
                f"Parameters: {', '.join(sorted({_dtype(p) for p in tree.leaves(params)}))}"
            )
            raise
        if not fine or not all_finite({"loss": total.get("loss", ()), "params": state.params}):
            again = itertools.islice(enumerate(batches.picks(start, epoch)), skip, None)
            place = locate(call, start, again, batches, lanes)
            raise FloatingPointError(
                f"epoch {epoch}, {place} (counted from 0). "
                '`nonfinite="skip"` would leave such a step out, "report" go on with it'
            )
        steps: Any = batches.steps - skip
        if nonfinite != "skip":
            return state, tree.map(lambda sum: sum / steps, total)
        skipped = total.pop("skipped")
        mean = tree.map(lambda sum: sum / (steps - skipped), total)
        return state, {**mean, "skipped": skipped}

    return run_epoch


def _summed(infos: list[Info]) -> Info:
    return tree.map(lambda *values: sum(values), *infos)  # type: ignore[no-any-return]


def _specs(batch: Any) -> str:
    """Describe the tensors of a batch: dtype, shape and, of integers, the range."""
    parts = [part for part in tree.leaves(batch) if isinstance(part, Tensor)]
    whole = [not p.is_floating_point() and not p.is_complex() and p.numel() > 0 for p in parts]
    return ", ".join(
        f"{_dtype(part)} {tuple(part.shape)}"
        + (f" from {part.min().item()} to {part.max().item()}" if ranged else "")
        for part, ranged in zip(parts, whole, strict=True)
    )


def _dtype(leaf: Tensor) -> str:
    return str(leaf.dtype).removeprefix("torch.")
