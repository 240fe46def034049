"""How much memory a run takes, and how many fit at once."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fdnn import tree
from fdnn.types import Tree

__all__ = ["available_memory", "peak_bytes", "tree_bytes"]


def tree_bytes(values: Tree) -> int:
    """Return the bytes of the numbers in a tree."""
    return sum(leaf.numel() * leaf.element_size() for leaf in tree.leaves(values))


def peak_bytes(fn: Callable[..., Any], *args: Any) -> int:
    """Return the most bytes that the tensors made by `fn(*args)` occupy at one time.

    Eager arithmetic is an upper bound of compiled: that makes fewer intermediate results.
    """
    with _Watch() as watch:
        fn(*args)
    peak: int = watch.peak
    return peak


def available_memory() -> int:
    """Return the bytes of memory that are free, or can be freed, on this machine."""
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
        result = func(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        name = storage._cdata
        if name in self._known:
            return
        size = storage.nbytes()

        def freed(_: Any) -> None:
            self._known.pop(name, None)
            self.live -= size

        self._known[name] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)
