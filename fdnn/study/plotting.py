"""Pictures of a study: its runs by arm, their history, a difference, the response to a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fdnn.axes import new_axes
from fdnn.study import statistics
from fdnn.study.arm import Floats
from fdnn.study.columns import columns, label, labels, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fdnn.study.study import Study

__all__ = ["plot", "swept"]

_VIOLIN = 20  # runs from which on their density says more than they do
_GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, are spread evenly
Entry = TypeVar("Entry")


def plot(study: Study, metric: str, kind: str, ax: Axes | None, **options: Any) -> Axes:
    """Draw a metric, as `Study.plot` says."""
    if kind not in _KINDS:
        raise ValueError(f"`kind` must be one of {list(_KINDS)}, got {kind!r}")
    return _KINDS[kind](study, metric, ax, **options)


def swept(study: Study) -> list[str]:
    """Return the hyperparameters that have several values."""
    values: dict[str, set[float]] = {}
    for cell in study.cells:
        for name, value in cell.items():
            values.setdefault(name, set()).add(value)
    return [name for name, several in values.items() if len(several) > 1]


def _arms(
    study: Study,
    metric: str,
    ax: Axes | None,
    *,
    labels: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Axes:
    """Every run a dot, beside the mean and its t interval; of many runs the density as well."""
    found = _chosen(columns(study, metric), labels)
    ax = _axes(ax, 1.5 + 0.4 * len(found))
    colors, ticks = _colors(study), []
    for place, (name, column) in enumerate(found.items()):
        values, lost = column.finite, len(column.runs) - len(column.finite)
        ticks.append(f"{name} ({lost} of {len(column.runs)} diverged)" if lost else name)
        if len(values) >= _VIOLIN and np.ptp(values) > 0:
            drawn: Any = ax.violinplot(values, [place], orientation="horizontal", showextrema=False)
            for part in drawn["bodies"]:
                part.set(facecolor=colors[name], alpha=0.2)
        heights = place + 0.5 * ((_GOLDEN * np.arange(len(values)) + 0.5) % 1 - 0.5)
        ax.plot(values, heights, ".", color=colors[name], alpha=0.6, rasterized=len(values) > 500)
        if len(values) > 1:
            s = statistics.summarize(values, confidence, n_resamples=99)
            reach = [[s.mean - s.t_interval.low], [s.t_interval.high - s.mean]]
            ink = ax.xaxis.label.get_color()
            ax.errorbar(s.mean, place, xerr=reach, fmt="|", color=ink, capsize=4, markersize=12)
    ax.set_yticks(range(len(ticks)), ticks)
    ax.set(xlabel=metric, ylim=(len(ticks) - 0.5, -0.5))
    ax.set_xscale(_scale_of_results([column.finite for column in found.values()]))
    return ax


def _curves(
    study: Study,
    metric: str,
    ax: Axes | None,
    *,
    labels: Sequence[str] | None = None,
    quantiles: tuple[float, float] = (0.1, 0.9),
) -> Axes:
    """Epoch by epoch the median of the runs that still go on, and a band."""
    lines = _chosen(_history(study, metric), labels)
    ax, colors = _axes(ax), _colors(study)
    from matplotlib.ticker import MaxNLocator

    for name, rows in lines.items():
        _band(ax, np.arange(1, len(rows) + 1), list(rows), quantiles, name, colors[name])
    ax.set(xlabel="epoch", ylabel=metric)
    ax.set_yscale(_scale_of_results([rows[np.isfinite(rows)] for rows in lines.values()]))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(ax, len(lines))
    return ax


def _difference(
    study: Study, metric: str, ax: Axes | None, *, a: str, b: str, confidence: float = 0.95
) -> Axes:
    """Seed by seed a - b, with the mean and its t interval."""
    found = columns(study, metric)
    change = named("arm", a, found).values - named("arm", b, found).values
    there = np.isfinite(change)
    seeds = [str(seed) for seed, fine in zip(study.seeds, there, strict=True) if fine]
    ax = _axes(ax)
    ax.axhline(0, color="gray", linewidth=1, linestyle="--")
    if there.sum() > 1:
        s = statistics.summarize(change[there], confidence, n_resamples=99)
        ax.axhspan(*s.t_interval, color="C0", alpha=0.2, linewidth=0)
        ax.axhline(s.mean, color="C0", label=f"mean, {100 * confidence:g} % interval")
        ax.legend()
    ax.plot(range(len(seeds)), change[there], ".", color="C0")
    shown = range(0, len(seeds), max(1, -(-len(seeds) // 20)))
    ax.set_xticks(shown, [seeds[i] for i in shown], rotation=90 if len(seeds) > 10 else 0)
    ax.set(xlabel="seed", ylabel=f"difference of {metric}", title=f"{a} - {b}")
    return ax


def _response(
    study: Study,
    metric: str,
    ax: Axes | None,
    *,
    hyper: str | None = None,
    labels: Sequence[str] | None = None,
    quantiles: tuple[float, float] = (0.1, 0.9),
) -> Axes:
    """The median of the runs, and a band, against a swept value."""
    several = swept(study)
    if hyper is None and len(several) == 1:
        (hyper,) = several
    if hyper is None or not any(hyper in cell for cell in study.cells):
        raise ValueError(f"`hyper` must be one of the hyperparameters {several}, got {hyper!r}")
    lines: dict[str, dict[float, Floats]] = {}
    for column in _chosen(columns(study, metric), labels).values():
        if hyper in column.cell:
            rest = {name: value for name, value in column.cell.items() if name != hyper}
            points = lines.setdefault(label(column.arm, rest), {})
            points[column.cell[hyper]] = column.finite
    ax, colors = _axes(ax), _spread(len(lines))
    for (name, points), color in zip(lines.items(), colors, strict=True):
        places = sorted(points)
        _band(ax, places, [points[x] for x in places], quantiles, name, color, marker="o")
    places = sorted({x for points in lines.values() for x in points})
    scale, options = _scale_of_places(places)
    ax.set_xscale(scale, **options)
    ax.set(xlabel=hyper, ylabel=metric)
    ax.set_yscale(_scale_of_results([y for points in lines.values() for y in points.values()]))
    _legend(ax, len(lines))
    return ax


_KINDS: dict[str, Callable[..., Axes]] = {
    "arms": _arms,
    "curves": _curves,
    "difference": _difference,
    "response": _response,
}


def _history(study: Study, metric: str) -> dict[str, Floats]:
    """The curves of every arm and cell that has the metric: of shape `(epochs, runs)`."""
    found = {
        text: arm.curves[metric][:, i, arm.finished[i]]
        for text, (name, i) in labels(study).items()
        for arm in [study.arms[name]]
        if metric in arm.curves
    }
    if not found:
        names = dict.fromkeys(name for arm in study.arms.values() for name in arm.curves)
        raise KeyError(f"there is no metric {metric!r} in the history, but {list(names)}")
    return found


def _chosen(found: Mapping[str, Entry], names: Sequence[str] | None) -> dict[str, Entry]:
    chosen = list(found) if names is None else names
    return {name: named("arm", name, found) for name in chosen}


def _band(
    ax: Axes,
    places: Any,
    samples: Sequence[Floats],
    quantiles: tuple[float, float],
    name: str,
    color: Any,
    marker: str = "",
) -> None:
    """Join the medians of samples by a line, with a band from one quantile to the other."""
    finite = [values[np.isfinite(values)] for values in samples]
    levels = [quantiles[0], 0.5, quantiles[1]]
    rows = [np.quantile(s, levels) if len(s) else np.full(3, math.nan) for s in finite]
    low, middle, high = np.array(rows).reshape(-1, 3).T
    ax.plot(places, middle, label=name, color=color, marker=marker if len(rows) > 1 else ".")
    if any(len(values) > 1 for values in finite):
        ax.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)


def _scale_of_results(samples: Sequence[Floats]) -> str:
    """Logarithmic for positive numbers over more than three decades."""
    numbers = np.concatenate([*samples, np.empty(0)])
    wide = len(numbers) > 0 and numbers.min() > 0 and numbers.max() > 1000 * numbers.min()
    return "log" if wide else "linear"


def _scale_of_places(places: Sequence[float]) -> tuple[str, dict[str, float]]:
    """Logarithmic where steps are more alike as ratios than as differences; 0 may come first."""
    positive = [x for x in places if x > 0]
    if len(positive) < 2 or min(places) < 0:
        return "linear", {}
    steps, ratios = np.diff(positive), np.diff(np.log(positive))
    if positive[-1] < 5 * positive[0] or np.ptp(ratios / ratios.max()) > np.ptp(
        steps / steps.max()
    ):
        return "linear", {}
    return ("log", {}) if min(places) > 0 else ("symlog", {"linthresh": positive[0]})


def _colors(study: Study) -> dict[str, Any]:
    """One colour for each arm and cell, the same in all plots."""
    names = labels(study)
    return dict(zip(names, _spread(len(names)), strict=True))


def _spread(count: int) -> list[Any]:
    """So many colours."""
    if count <= 10:
        return [f"C{i}" for i in range(count)]
    from matplotlib import colormaps

    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _legend(ax: Axes, lines: int) -> None:
    """Say which line is which; of many, beside the picture."""
    if lines > 5:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", ncols=-(-lines // 20))
    elif lines:
        ax.legend()


def _axes(ax: Axes | None, height: float = 4) -> Axes:
    return new_axes("plot", width=6.4, height=height, extra="study")[0] if ax is None else ax
