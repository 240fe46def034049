"""How much memory a run takes, and how many fit at once."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fdnn import tree
from fdnn.study.experiment import Experiment
from fdnn.study.task import Lanes, begin
from fdnn.train import TrainState, monitor
from fdnn.train.batches import source
from fdnn.types import Tree

__all__ = ["available_memory", "peak_bytes", "sizes", "tree_bytes"]

_MOST = 64  # lanes at once on a CPU, however small: more were slower on what was measured
_WORKING_SET = 64 * 2**20  # bytes of a step on a CPU, beyond which caches hold too little of it


def sizes(
    experiment: Experiment,
    lanes: Lanes,
    chunk_size: int | str,
    memory: int | None,
    num_workers: int = 1,
) -> tuple[int, int]:
    """Return how many runs go through a step at once, and how many a task may hold.

    Args:
        experiment: the arm; a step, and an evaluation, of one run and of two are watched.
        lanes: which runs there are.
        chunk_size: as many at once, or "auto".
        memory: the budget of a task in bytes; if left out, half of what is free here, shared by
            the workers.
        num_workers: how many tasks run at once.

    Raises:
        ValueError: `chunk_size` is not positive, or one run does not fit into `memory`.
    """
    if chunk_size != "auto" and (isinstance(chunk_size, str) or chunk_size < 1):
        raise ValueError(f"`chunk_size` must be positive or 'auto', got {chunk_size!r}")
    batches = source(experiment.data, experiment.batch_size)

    def work(state: TrainState) -> Any:
        """A step, with all that `fit` has made before it."""
        own = tree.map(torch.clone, state)
        picks = batches.picks(own, 0)  # holds the order of the epoch
        pick = next(iter(picks))
        step = torch.vmap(
            lambda state, pick: experiment.step(state, batches.look_up(pick)),
            in_dims=(0, batches.in_dim),
        )
        return own, picks, step(own, pick)

    held = worked = stepped = 0
    for count in (1, 2):  # some copies are made only where there are several
        some = Lanes(lanes.seeds[:1] * count, lanes.hyper[:1] * count)
        state = monitor.begin(experiment.monitors, begin(experiment, some))
        bare = state._replace(monitors={})
        step = peak_bytes(work, bare)
        peak = max(step, peak_bytes(experiment.evaluate, bare))
        # A task holds the states before and after an epoch, whole and by chunks.
        held = max(held, 4 * -(-tree_bytes(state) // count))
        worked = max(worked, -(-(tree_bytes(bare) + peak) // count))
        stepped = max(stepped, -(-(tree_bytes(bare) + step) // count))
    device = state.count.device
    budget = available_memory(device) // 2 // num_workers if memory is None else memory
    if held + worked > budget:
        raise ValueError(
            f"`memory` must be at least {held + worked} bytes for one run, got {budget}"
        )
    total = len(lanes.seeds)
    most = min(total, budget // (held + worked))
    if device.type == "cpu":  # a GPU is the faster for more lanes, as long as they fit
        most = min(most, _MOST, max(1, _WORKING_SET // stepped))
    chunk = (
        -(-total // -(-total // most)) if isinstance(chunk_size, str) else min(chunk_size, total)
    )
    return chunk, max(chunk, (budget - chunk * worked) // held)


def tree_bytes(values: Tree) -> int:
    """Return the bytes of the numbers in a tree."""
    return sum(leaf.numel() * leaf.element_size() for leaf in tree.leaves(values))


def peak_bytes(fn: Callable[..., Any], *args: Any) -> int:
    """Return the most bytes that the tensors made by `fn(*args)` occupy at one time.

    What was there before counts nothing, nor do views. Eager arithmetic is an upper bound of
    compiled: that makes fewer intermediate results. What a kernel makes for itself is not seen.
    """
    with _Watch() as watch:
        fn(*args)
    peak: int = watch.peak
    return peak


def available_memory(device: torch.device) -> int:
    """Return the bytes of memory that are free, or can be freed: of a GPU, or of this machine."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for storage in _storages((args, kwargs)):
            self._add(storage, 0)  # if it was not made here
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._add(storage, storage.nbytes())
        return result

    def _add(self, storage: Any, size: int) -> None:
        name = storage._cdata
        if name in self._known:
            return

        def freed(_: Any) -> None:
            self._known.pop(name, None)
            self.live -= size

        self._known[name] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def _storages(values: Any) -> list[Any]:
    leaves = torch.utils._pytree.tree_leaves(values)
    return [leaf.untyped_storage() for leaf in leaves if isinstance(leaf, torch.Tensor)]
