"""The progress bar of `fit`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

__all__ = ["Bar", "progress_bar"]


class Bar(Protocol):
    """What `fit` tells a progress bar."""

    def advance(self, steps: int) -> None:
        """So many steps more have been taken."""

    def epoch(self, number: int, numbers: Mapping[str, Tensor]) -> None:
        """An epoch is over, with these numbers."""


class _Silent:
    def advance(self, steps: int) -> None:
        pass

    def epoch(self, number: int, numbers: Mapping[str, Tensor]) -> None:
        pass


@contextlib.contextmanager
def progress_bar(show: bool, total: int, epochs: int) -> Iterator[Bar]:
    """Show a bar with the last epoch's losses, if `show` is true and rich is installed."""
    try:
        if not show:
            raise ImportError
        from rich.progress import Progress
    except ImportError:
        yield _Silent()
        return
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=total)

        class Shown:
            def advance(self, steps: int) -> None:
                progress.advance(task, steps)

            def epoch(self, number: int, numbers: Mapping[str, Tensor]) -> None:
                parts = [
                    f"{name} {value.double().nanmean().item():.4g}"
                    for name, value in numbers.items()
                    if name.endswith("loss")
                ]
                text = ", ".join([f"epoch {number}/{epochs}", *parts])
                progress.update(task, description=text)

        yield Shown()
