"""Where pictures are drawn, if the caller has no axes for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["new_axes"]


def new_axes(
    plot: str, panels: int = 1, *, width: float = 5, height: float = 4, extra: str = "examples"
) -> list[Axes]:
    """Make a figure with panels side by side.

    Args:
        plot: the function that draws, for the message.
        panels: how many.
        width: of a panel, in inches.
        height: in inches.
        extra: of fdnn, which brings matplotlib.

    Returns:
        The axes of the panels, from left to right.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> left, right = new_axes("my_plot", 2)
        >>> left.figure is right.figure
        True
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"`{plot}` needs matplotlib: pip install 'fdnn-torch[{extra}]'"
        ) from error
    size = (width * panels, height)
    return list(pyplot.subplots(1, panels, figsize=size, layout="constrained", squeeze=False)[1][0])
