"""Pictures of uncertainty: calibration, selective prediction, entropies, one prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fdnn.axes import new_axes
from fdnn.uncertainty.calibration import Reliability
from fdnn.uncertainty.check import at_least_1
from fdnn.uncertainty.selective import RiskCoverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_entropies", "plot_probabilities", "plot_reliability", "plot_risk_coverage"]


def plot_reliability(
    reliability: Reliability, ax: Axes | None = None, *, label: str | None = None
) -> Axes:
    """Draw accuracy over confidence; the dashed diagonal is perfect calibration.

    Points below it are overconfident. Faint bars are the share of examples in each bin. Of several
    lanes the points are those of all lanes together, and a band reaches from the 10 % to the 90 %
    quantile of the lanes' accuracies. Draw several models on the same axes, each with a `label`.

    Needs matplotlib (of the extra `examples`).

    Args:
        reliability: what `uncertainty.reliability` returns, of one run or, under vmap, of many.
        ax: where to draw; a new figure, if left out.
        label: what the legend calls it.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import torch
        >>> from fdnn import uncertainty
        >>> probs, targets = torch.tensor([[0.8, 0.2], [0.3, 0.7]]), torch.tensor([0, 0])
        >>> ax = plot_reliability(uncertainty.reliability(probs, targets, num_bins=5))
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('confidence', 'accuracy')
    """
    ax = _axes("plot_reliability", ax)
    edges, confidence, accuracy, counts = (_lanes(field) for field in reliability)
    total = counts.sum(0)
    line = ax.plot(
        ((confidence.nan_to_num() * counts).sum(0) / total).tolist(),
        ((accuracy.nan_to_num() * counts).sum(0) / total).tolist(),
        marker="o",
        markersize=4,
        label=label,
    )[0]
    left, right = edges[0, :-1], edges[0, 1:]
    widths, share = right - left, total / total.sum()
    ax.bar(
        left.tolist(),
        share.tolist(),
        widths.tolist(),
        align="edge",
        color=line.get_color(),
        alpha=0.15,
    )
    if len(accuracy) > 1:
        low, high = _band(accuracy)
        ax.fill_between(
            ((left + right) / 2).tolist(), low, high, color=line.get_color(), alpha=0.2, linewidth=0
        )
    ax.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return _legend(ax, label)


def plot_risk_coverage(
    curve: RiskCoverage, ax: Axes | None = None, *, label: str | None = None
) -> Axes:
    """Draw the error among the surest examples over the share of them that is answered.

    The line of a useful uncertainty rises from the left to the error of all at the right. Of
    several lanes it joins the medians, and a band reaches from the 10 % to the 90 % quantile.

    Needs matplotlib (of the extra `examples`).

    Args:
        curve: what `risk_coverage` returns, of one run or, under vmap, of many.
        ax: where to draw; a new figure, if left out.
        label: what the legend calls it.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import torch
        >>> from fdnn import uncertainty
        >>> curve = uncertainty.risk_coverage(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
        >>> plot_risk_coverage(curve).get_xlabel()
        'coverage'
    """
    ax = _axes("plot_risk_coverage", ax)
    coverage, risk = _lanes(curve.coverage)[0].tolist(), _lanes(curve.risk)
    line = ax.plot(coverage, risk.quantile(0.5, 0).tolist(), label=label)[0]
    if len(risk) > 1:
        ax.fill_between(coverage, *_band(risk), color=line.get_color(), alpha=0.2, linewidth=0)
    ax.set(xlabel="coverage", ylabel="risk", xlim=(0, 1))
    ax.set_ylim(bottom=0)
    return _legend(ax, label)


def plot_entropies(
    entropies: Mapping[str, Tensor], ax: Axes | None = None, *, num_bins: int = 40
) -> Axes:
    """Draw histograms of uncertainties, such as those in and out of the training distribution.

    Their bins are the same, and each has area 1.

    Needs matplotlib (of the extra `examples`).

    Args:
        entropies: values of any shape, by what the legend calls them.
        ax: where to draw; a new figure, if left out.
        num_bins: how many bins there are from the smallest to the largest value.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `entropies` is empty, or `num_bins` is not positive.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import torch
        >>> ax = plot_entropies({"clothes": torch.linspace(0, 1, 9), "digits": torch.ones(9)})
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['clothes', 'digits']
    """
    at_least_1(num_bins=num_bins)
    if not entropies:
        raise ValueError("`entropies` must have an entry, got none")
    ax = _axes("plot_entropies", ax)
    values = {name: value.detach().cpu().double().flatten() for name, value in entropies.items()}
    together = torch.cat(list(values.values()))
    edges = torch.linspace(float(together.min()), float(together.max()), num_bins + 1).tolist()
    for name, value in values.items():
        ax.hist(value.tolist(), edges, density=True, histtype="stepfilled", alpha=0.5, label=name)
    ax.set(xlabel="predictive entropy (nats)", ylabel="density")
    return _legend(ax, "all")


def plot_probabilities(
    member_probs: Tensor,
    ax: Axes | None = None,
    *,
    class_names: Sequence[str] | None = None,
    target: int | None = None,
    quantiles: tuple[float, float] = (0.05, 0.95),
) -> Axes:
    """Draw one prediction: for each class a bar of its mean probability, and an interval.

    The interval is that of the members: how much they disagree.

    Needs matplotlib (of the extra `examples`).

    Args:
        member_probs: of one example, of shape `(samples, classes)`.
        ax: where to draw; a new figure, if left out.
        class_names: names for the ticks; numbers, if left out.
        target: the right class, whose bar is filled; all are, if left out.
        quantiles: from where to where the intervals reach.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `member_probs` is not two-dimensional, or there are not as many `class_names`.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> import torch
        >>> member_probs = torch.tensor([[0.9, 0.1], [0.7, 0.3]])
        >>> ax = plot_probabilities(member_probs, class_names=["sandal", "boot"], target=0)
        >>> [text.get_text() for text in ax.get_xticklabels()]
        ['sandal', 'boot']
    """
    if member_probs.ndim != 2:
        raise ValueError(
            f"`member_probs` must have shape (samples, classes), got {tuple(member_probs.shape)}"
        )
    classes = member_probs.shape[1]
    names = [str(k) for k in range(classes)] if class_names is None else list(class_names)
    if len(names) != classes:
        raise ValueError(f"`class_names` must be {classes} names, got {len(names)}")
    ax = _axes("plot_probabilities", ax)
    probs = _lanes(member_probs)
    mean, (low, high) = probs.mean(0).tolist(), _band(probs, quantiles)
    bars = ax.bar(range(classes), mean, alpha=0.8)
    for k, bar in enumerate(bars):
        bar.set_fill(target is None or k == target)
        bar.set_edgecolor("C0")
    ink = ax.xaxis.label.get_color()
    ax.vlines(range(classes), low, high, color=ink, linewidth=2)
    ax.set_xticks(range(classes), names, rotation=90 if class_names is not None else 0)
    ax.set(ylabel="probability", ylim=(0, 1))
    return ax


def _axes(plot: str, ax: Axes | None) -> Axes:
    return new_axes(plot)[0] if ax is None else ax


def _lanes(values: Tensor) -> Tensor:
    """All lanes, one after the other, or the only one."""
    return values.detach().cpu().double().reshape(-1, values.shape[-1])


def _band(
    lanes: Tensor, quantiles: tuple[float, float] = (0.1, 0.9)
) -> tuple[list[float], list[float]]:
    levels = torch.tensor(quantiles, dtype=torch.float64)
    low, high = torch.nanquantile(lanes, levels, dim=0).tolist()
    return low, high


def _legend(ax: Axes, label: str | None) -> Axes:
    if label is not None:
        ax.legend()
    return ax
