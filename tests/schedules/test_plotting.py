"""`plot` draws what schedules return."""

from __future__ import annotations

import sys

import matplotlib
import pytest

from fdnn import schedules

matplotlib.use("Agg")
from matplotlib import pyplot


def test_draws_the_values() -> None:
    rate = schedules.one_cycle(0.1, 20)
    ax = schedules.plot(rate, steps=20)
    (line,) = ax.lines
    assert list(line.get_xdata()) == list(range(20))
    assert list(line.get_ydata()) == [rate(count).item() for count in range(20)]
    assert ax.get_legend() is None
    pyplot.close(ax.figure)


def test_draws_many_on_given_axes() -> None:
    figure, ax = pyplot.subplots()
    assert (
        schedules.plot({"a": schedules.constant(0.1), "b": lambda n: 0.1 if n < 3 else 0.2}, 5, ax)
        is ax
    )
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert list(ax.lines[1].get_ydata()) == [0.1] * 3 + [0.2] * 2
    pyplot.close(figure)


def test_not_beyond_the_end() -> None:
    figure, ax = pyplot.subplots()
    with pytest.raises(ValueError, match="`count` must be below 20"):
        schedules.plot(schedules.one_cycle(0.1, 20), 21, ax)
    pyplot.close(figure)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"`plot` needs matplotlib: pip install"):
        schedules.plot(schedules.constant(0.1), 3)
