"""Pictures of what `fdnn.inspect` measures; under vmap's results, of all lanes at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fdnn.axes import new_axes
from fdnn.inspect.norms import GradientNorms
from fdnn.inspect.signals import LayerSignals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_gradient_norms", "plot_signals", "plot_weight_update_ratio"]

_PANELS = {
    "std": ("standard deviation of the output", True),
    "grad_norm": ("norm of the gradient at the output", True),
    "dead": ("share of dead units", False),
}


def plot_signals(
    signals: Mapping[str, LayerSignals],
    axes: Sequence[Axes] | None = None,
    *,
    label: str | None = None,
) -> Sequence[Axes]:
    """Draw the signal layer by layer: outputs' standard deviation, gradient norm, dead units.

    A line joins the medians over lanes, a band reaches from the 10 % to the 90 % quantile. What is
    0 has no place on the logarithmic axes and is left out. Draw several initializations on the
    same axes, each with a `label`, to compare them.

    Needs matplotlib (of the extra `examples`).

    Args:
        signals: what `signal_propagation` returns, of one run or, under vmap, of many; a part
            of the dict draws a part of the layers, such as the activations.
        axes: three axes to draw on; a new figure, if left out.
        label: what the legend calls these signals.

    Returns:
        The three axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `axes` are not three.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, inspect, random
        >>> model = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        >>> batch = torch.ones(3, 4), torch.tensor([0, 1, 1])
        >>> def signals(key):
        ...     weights = model.init(key)
        ...     return inspect.signal_propagation(model, *weights, batch, F.cross_entropy)
        >>> axes = inspect.plot_signals(torch.vmap(signals)(random.split(random.key(0), 20)))
        >>> [ax.get_yscale() for ax in axes]
        ['log', 'log', 'linear']
    """
    if axes is None:
        axes = new_axes("plot_signals", len(_PANELS), width=6)
    if len(axes) != len(_PANELS):
        raise ValueError(f"`axes` must be {len(_PANELS)} axes, got {len(axes)}")
    for ax, (field, (title, log)) in zip(axes, _PANELS.items(), strict=True):
        _band(ax, {name: getattr(s, field) for name, s in signals.items()}, label, log)
        ax.set(title=title, xlabel="layer")
    return axes


def plot_gradient_norms(
    norms: GradientNorms, ax: Axes | None = None, *, label: str | None = None
) -> Axes:
    """Draw the norm of each leaf's gradient, on a logarithmic axis.

    A line joins the medians over lanes, a band reaches from the 10 % to the 90 % quantile.

    Needs matplotlib (of the extra `examples`).

    Args:
        norms: what `gradient_norms` returns, of one run or, under vmap, of many.
        ax: where to draw; a new figure, if left out.
        label: what the legend calls these norms.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from fdnn import inspect
        >>> norms = inspect.gradient_norms({"0.weight": torch.ones(3), "2.weight": torch.ones(4)})
        >>> ax = inspect.plot_gradient_norms(norms)
        >>> [text.get_text() for text in ax.get_xticklabels()]
        ['0.weight', '2.weight']
    """
    if ax is None:
        (ax,) = new_axes("plot_gradient_norms", width=6)
    _band(ax, norms.leaves, label)
    ax.set(ylabel="norm of the gradient")
    return ax


def plot_weight_update_ratio(
    ratios: Mapping[str, Tensor], ax: Axes | None = None, *, label: str | None = None
) -> Axes:
    """Draw how far a step moved each leaf, relative to its size; a dashed line marks 1e-3.

    A line joins the medians over lanes, a band reaches from the 10 % to the 90 % quantile. What is
    0 or infinite has no place on the logarithmic axis and is left out.

    Needs matplotlib (of the extra `examples`).

    Args:
        ratios: what `weight_update_ratio` returns, of one run or, under vmap, of many.
        ax: where to draw; a new figure, if left out.
        label: what the legend calls these ratios.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from fdnn import inspect
        >>> ratios = inspect.weight_update_ratio({"w": torch.ones(3)}, {"w": torch.full((3,), 1.1)})
        >>> inspect.plot_weight_update_ratio(ratios).get_yscale()
        'log'
    """
    if ax is None:
        (ax,) = new_axes("plot_weight_update_ratio", width=6)
    _band(ax, ratios, label)
    ax.axhline(1e-3, color="gray", linestyle="--", linewidth=1)
    ax.set(ylabel="size of the update / size of the parameter")
    return ax


def _band(ax: Axes, values: Mapping[str, Tensor], label: str | None, log: bool = True) -> None:
    """Draw a point for each name: the median over lanes, and a band around it."""
    lanes = torch.stack([value.detach().cpu().double().reshape(-1) for value in values.values()])
    if log:
        lanes = lanes.where((lanes > 0) & lanes.isfinite(), torch.nan)
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    low, middle, high = torch.nanquantile(lanes, levels, dim=1).tolist()
    places = range(len(values))
    (line,) = ax.plot(places, middle, marker=".", label=label)
    if lanes.shape[1] > 1:
        ax.fill_between(places, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.set_xticks(places, list(values), rotation=90)
    ax.set_yscale("log" if log else "linear")
    if label is not None:
        ax.legend()
