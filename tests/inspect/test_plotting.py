"""The plots show the medians and quantiles of what was measured."""

from __future__ import annotations

import math
import sys
from typing import Any

import matplotlib
import pytest
import torch

from fdnn import inspect
from fdnn.inspect import LayerSignals

matplotlib.use("Agg")
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def close() -> Any:
    yield
    pyplot.close("all")


def signals(*lanes: int) -> dict[str, LayerSignals]:
    return {name: LayerSignals(*torch.rand(6, *lanes)) for name in ("0", "1", "3")}


def test_signals_of_one_run() -> None:
    found = signals()
    axes = inspect.plot_signals(found)
    assert [ax.get_yscale() for ax in axes] == ["log", "log", "linear"]
    for ax, field in zip(axes, ("std", "grad_norm", "dead"), strict=True):
        (line,) = ax.lines
        assert list(line.get_ydata()) == [getattr(s, field).item() for s in found.values()]
        assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "3"]
        assert not ax.collections and ax.get_legend() is None
    axes[0].figure.canvas.draw()


def test_signals_of_many_runs_and_several_kinds() -> None:
    first, second = signals(11), signals(11)
    axes = inspect.plot_signals(first, label="He")
    assert inspect.plot_signals(second, axes, label="Glorot") is axes
    assert len(axes[0].lines) == 2
    assert list(axes[0].lines[0].get_ydata()) == [s.std.median().item() for s in first.values()]
    corners = axes[0].collections[0].get_paths()[0].vertices[:, 1]  # of the 10 % to 90 % band
    ordered = torch.stack([s.std for s in first.values()]).double().sort().values
    assert corners.min() == ordered[:, 1].min()
    assert corners.max() == ordered[:, 9].max()
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["He", "Glorot"]


def test_signals_need_three_axes() -> None:
    with pytest.raises(ValueError, match="`axes` must be 3 axes, got 2"):
        inspect.plot_signals(signals(), pyplot.subplots(1, 2)[1])


def test_gradient_norms() -> None:
    norms = inspect.gradient_norms({"b": torch.tensor([3.0, 4.0]), "a": torch.tensor([2.0])})
    ax = inspect.plot_gradient_norms(norms)
    assert list(ax.lines[0].get_ydata()) == [5.0, 2.0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["b", "a"]
    assert ax.get_yscale() == "log"
    assert inspect.plot_gradient_norms(norms, ax, label="again") is ax


def test_weight_update_ratio_leaves_out_what_has_no_logarithm() -> None:
    ratios = {"w": torch.tensor([1e-2, 4e-2]), "b": torch.tensor([torch.inf, 3e-2])}
    ratios["frozen"] = torch.zeros(2)
    ax = inspect.plot_weight_update_ratio(ratios)
    line, rule = ax.lines
    assert line.get_ydata()[:2] == pytest.approx([2.5e-2, 3e-2])
    assert math.isnan(line.get_ydata()[2])
    assert list(rule.get_ydata()) == [1e-3, 1e-3]
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("plot_signals", {}),
        ("plot_gradient_norms", inspect.GradientNorms({}, torch.zeros(()))),
        ("plot_weight_update_ratio", {}),
    ],
)
def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, name: str, argument: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=f"`{name}` needs matplotlib: pip install"):
        getattr(inspect, name)(argument)
