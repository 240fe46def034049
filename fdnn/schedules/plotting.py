"""Pictures of schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fdnn.axes import new_axes
from fdnn.schedules.schedule import as_schedule
from fdnn.types import Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot"]


def plot(schedule: Schedule | Mapping[str, Schedule], steps: int, ax: Axes | None = None) -> Axes:
    """Draw one schedule, or several by name, over the first steps.

    Needs matplotlib (of the extra `examples`).

    Args:
        schedule: any function of the count, or a dict of them, whose keys become the legend.
        steps: how many counts, from 0.
        ax: where to draw; a new figure, if left out.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: a schedule is shorter than `steps`.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from fdnn import schedules
        >>> curves = {"up": schedules.linear(0.1), "down": schedules.exponential(0.1, 0.9)}
        >>> ax = schedules.plot(curves, steps=100)
        >>> [line.get_label() for line in ax.lines]
        ['up', 'down']
    """
    if ax is None:
        (ax,) = new_axes("plot")
    named = schedule if isinstance(schedule, Mapping) else {"": schedule}
    for name, curve in named.items():
        value = as_schedule(curve)
        ax.plot(range(steps), [value(count).item() for count in range(steps)], label=name or None)
    ax.set(xlabel="step", ylabel="value")
    if isinstance(schedule, Mapping):
        ax.legend()
    return ax
