"""NaN and infinity in training: notice them, skip them, find where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.train.batches import Loader, Tensors
from fdnn.train.state import TrainState
from fdnn.train.step import Step

__all__ = ["POLICIES", "first_nonfinite", "locate", "skipping"]

POLICIES = ("stop", "report", "skip")


def skipping(step: Step) -> Step:
    """Make a step leave a run as it is where its loss or its new parameters are not finite.

    `info["skipped"]` says so, 1 or 0; the other numbers of a skipped step are 0. The count goes on,
    so that the next batch comes next.
    """

    def guarded(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        new, info = step(state, batch)
        fine = tree.all_finite((info.get("loss", ()), new.params))
        kept = tree.where(fine, new._replace(count=state.count), state)
        info = tree.map(lambda value: torch.where(fine, value, 0), info)
        return kept._replace(count=new.count), {**info, "skipped": (~fine).to(torch.float32)}

    return guarded


def first_nonfinite(numbers: Any) -> tuple[str, tuple[int, ...], float] | None:
    """Return path, place and value of the first number of a tree that is not finite."""
    for path, leaf in tree.select(numbers).items():
        if isinstance(leaf, Tensor) and not torch.isfinite(leaf).all():
            place = tuple((~torch.isfinite(leaf)).nonzero()[0].tolist())
            return path, place, leaf[place].item()
    return None


def locate(
    advance: Callable[[TrainState, Any], tuple[TrainState, dict[str, Tensor]]],
    state: TrainState,
    picks: Iterable[tuple[int, Any]],
    batches: Tensors | Loader,
    lanes: Tensor | None,
) -> str:
    """Repeat an epoch step by step, and say where the first number that is not finite stands.

    Args:
        advance: one step, of one run or of many.
        state: at the beginning of the epoch.
        picks: numbers of batches, and what tells the steps these batches.
        batches: where the picks come from.
        lanes: what the state's lanes are called; None if it is one run.
    """

    def told(**numbers: Any) -> str:
        found = first_nonfinite(numbers)
        if found is None:
            return ""
        path, place, value = found
        lane = "" if lanes is None else f" of lane {lanes[place[0]]}"
        return f"`{path}`{lane} is {value}"

    if before := told(params=state.params):
        return f"before the first batch: {before}"
    for index, pick in picks:
        state, info = advance(tree.map(torch.clone, state), pick)
        if after := told(loss=info.get("loss", ()), params=state.params):
            culprit = first_nonfinite(batches.look_up(pick))
            if culprit is None:
                return f"batch {index}: {after}, though the batch is finite"
            path, place, value = culprit
            return f"batch {index}: {after}, and `{batches.place(pick, path, place)}` is {value}"
    return "a second pass over the batches gave finite numbers, so it cannot be said where"
