"""The plots of a study show its medians, quantiles, intervals and runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
from studies import made

matplotlib.use("Agg")
from matplotlib import pyplot

RATES = ({"lr": 0.01}, {"lr": 0.1}, {"lr": 1.0})


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def ticks(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_yticklabels()]


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def draw(ax: Any) -> None:
    ax.figure.canvas.draw()


def test_arms_are_dots_with_mean_and_interval() -> None:
    study = made({"a": 1.0, "b": 2.0})
    ax = study.plot("loss")
    assert ticks(ax) == ["a", "b"]
    assert ax.get_xlabel() == "loss"
    dots = [line.get_xdata() for line in ax.lines if line.get_marker() == "."]
    assert [list(x) for x in dots] == [list(study.values("loss", arm)) for arm in "ab"]
    for container, arm in zip(ax.containers, "ab", strict=True):
        mean, _, (bar,) = container
        summary = study.summary("loss")[arm]
        assert mean.get_xdata()[0] == summary.mean
        assert bar.get_segments()[0][:, 0] == pytest.approx(summary.t_interval)
    heights = [line.get_ydata() for line in ax.lines if line.get_marker() == "."]
    assert all((np.abs(y - place) < 0.3).all() for place, y in enumerate(heights))
    draw(ax)


def test_many_runs_have_a_density() -> None:
    assert not made({"a": 1.0}, seeds=19).plot("loss").collections[1:]
    ax = made({"a": 1.0}, seeds=20).plot("loss")
    assert len(ax.collections) == 2  # beside the interval
    draw(ax)
    draw(made({"a": 1.0}, seeds=30, spread=0).plot("loss"))  # no spread, no density


def test_curves_are_median_and_band() -> None:
    study = made({"a": 1.0, "b": 2.0}, seeds=11)
    study.arms["a"].curves["loss"][2, 0, :10] = np.nan  # all but one have stopped
    ax = study.plot("step_loss", "curves")
    assert legend(ax) == ["a", "b"]
    rows = study.arms["b"].curves["step_loss"][:, 0]
    assert ax.lines[1].get_xdata() == pytest.approx([1, 2, 3])
    assert ax.lines[1].get_ydata() == pytest.approx(np.median(rows, 1))
    corners = ax.collections[1].get_paths()[0].vertices[:, 1]
    ordered = np.sort(rows, 1)
    assert (corners.min(), corners.max()) == (ordered[:, 1].min(), ordered[:, 9].max())
    shorter = study.plot("loss", "curves", quantiles=(0.0, 1.0))
    assert shorter.lines[0].get_ydata()[2] == study.arms["a"].curves["loss"][2, 0, 10]
    draw(shorter)


def test_difference_is_by_seed() -> None:
    study = made({"a": 1.0, "b": 2.0, "c": 3.0})
    study.arms["b"].results["loss"][0, 2] = np.nan
    ax = study.plot("loss", "difference", a="a", b="b")
    change = np.delete(study.values("loss", "a") - study.values("loss", "b"), 2)
    (dots,) = (line for line in ax.lines if line.get_marker() == ".")
    assert list(dots.get_ydata()) == list(change)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "3", "4", "5"]
    found = study.compare("loss", "a", "b")
    assert ax.lines[1].get_ydata()[0] == pytest.approx(found.difference)
    (band,) = ax.patches
    low = band.get_y()
    assert (low, low + band.get_height()) == pytest.approx(found.t_interval)
    assert ax.get_title() == "a - b"
    draw(ax)


def test_response_is_by_value() -> None:
    cells = tuple({"lr": lr, "decay": d} for lr in (1.0, 0.01, 0.1) for d in (0.0, 0.5))
    study = made({"a": 1.0, "b": 2.0}, cells=cells)
    ax = study.plot("loss", "response", hyper="lr")
    assert legend(ax) == ["a decay=0", "a decay=0.5", "b decay=0", "b decay=0.5"]
    assert list(ax.lines[1].get_xdata()) == [0.01, 0.1, 1.0]
    medians = [np.median(study.values("loss", "a", lr=lr, decay=0.5)) for lr in (0.01, 0.1, 1)]
    assert ax.lines[1].get_ydata() == pytest.approx(medians)
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "lr", "loss")
    with pytest.raises(ValueError, match=r"`hyper` must be one of .*\['lr', 'decay'\], got None"):
        study.plot("loss", "response")
    with pytest.raises(ValueError, match=r"got 'momentum'"):
        study.plot("loss", "response", hyper="momentum")
    with pytest.raises(ValueError, match=r"`hyper` must be one of the hyperparameters \[\]"):
        made({"a": 1.0}).plot("loss", "response")


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.001, 0.01, 0.1], "log"),
        ([0.1, 1.0], "log"),
        ([0.1, 0.2], "linear"),
        ([1, 2, 3, 4, 5, 6], "linear"),
        ([0, 1e-4, 1e-3, 1e-2], "symlog"),
        ([0, 0.25, 0.5, 0.75], "linear"),
        ([-1, 1, 10, 100], "linear"),
        ([0.5], "linear"),
    ],
)
def test_the_axis_fits_the_values(values: list[float], scale: str) -> None:
    study = made({"a": 1.0}, cells=tuple({"x": float(value)} for value in values))
    ax = study.plot("loss", "response", hyper="x")
    assert ax.get_xscale() == scale
    draw(ax)


def test_results_over_many_decades_are_on_a_logarithmic_axis() -> None:
    study = made({"a": 1.0, "b": 1.0})
    study.arms["b"].results["loss"] *= 1e6
    assert study.plot("loss").get_xscale() == "log"
    study.arms["b"].results["loss"] *= -1
    assert study.plot("loss").get_xscale() == "linear"


KINDS: list[dict[str, Any]] = [
    {"kind": "arms"},
    {"kind": "curves"},
    {"kind": "difference", "a": "a lr=0.01", "b": "b lr=1"},
    {"kind": "response"},
]


@pytest.mark.parametrize("options", KINDS, ids=lambda options: options["kind"])
@pytest.mark.parametrize("seeds", [1, 2, 40])
@pytest.mark.parametrize("b", [2.0, float("nan")])
def test_every_kind_draws(options: dict[str, Any], seeds: int, b: float) -> None:
    """One seed, many, and an arm that diverged."""
    study = made({"a": 1.0, "b": b}, seeds=seeds, cells=RATES)
    draw(study.plot("loss", **options))
    mine = pyplot.subplots()[1]
    assert study.plot("loss", ax=mine, **options) is mine


def test_diverged_runs_are_counted() -> None:
    study = made({"a": 1.0, "b": 2.0})
    study.arms["b"].results["loss"][0, :2] = np.nan, np.inf
    ax = study.plot("loss")
    assert ticks(ax) == ["a", "b (2 of 6 diverged)"]


def test_many_arms_have_colors_of_their_own() -> None:
    study = made({f"arm {i}": i for i in range(25)}, seeds=3)
    ax = study.plot("loss", "curves")
    assert len({matplotlib.colors.to_hex(line.get_color()) for line in ax.lines}) == 25
    assert len(legend(ax)) == 25
    draw(ax)
    same = study.plot("loss", labels=["arm 3", "arm 7"])
    assert ticks(same) == ["arm 3", "arm 7"]
    colors = [line.get_color() for line in same.lines if line.get_marker() == "."]
    assert [list(color) for color in colors] == [list(ax.lines[i].get_color()) for i in (3, 7)]


def test_runs_that_are_not_there_are_not_drawn() -> None:
    study = made({"a": 1.0, "b": 2.0})
    study.arms["b"].finished[0, 4:] = False
    study.arms["b"].results["loss"][0, 4:] = np.nan
    ax = study.plot("loss")
    assert ticks(ax) == ["a", "b"]
    study.arms["b"].finished[:] = False
    assert ticks(study.plot("loss")) == ["a"]


def test_names_are_checked() -> None:
    study = made({"a": 1.0, "b": 2.0})
    with pytest.raises(ValueError, match=r"`kind` must be one of \['arms', .*got 'violin'"):
        study.plot("loss", "violin")
    with pytest.raises(KeyError, match="there is no metric 'los', but"):
        study.plot("los")
    with pytest.raises(KeyError, match=r"no metric 'accuracy' in the history, but \['loss'"):
        study.plot("accuracy", "curves")
    with pytest.raises(KeyError, match="there is no arm 'z', but"):
        study.plot("loss", "difference", a="a", b="z")
    with pytest.raises(KeyError, match="there is no arm 'z', but"):
        study.plot("loss", labels=["z"])


def test_matplotlib_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'fdnn-torch\[study\]'"):
        made({"a": 1.0}).plot("loss")
