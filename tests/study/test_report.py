"""The report is one page of sound HTML that needs nothing else and says what the study says."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import CALL, made

from fdnn.study import Study

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Reads a page, and fails where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[Any]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self.open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        elif tag == "data":
            self.tables[-1][-1][-1] = float(dict(attrs)["value"])

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data
            if self.open[-1] in ("th", "td"):
                self.tables[-1][-1][-1] += data.strip("\n")

    def table(self, head: str) -> list[list[Any]]:
        """The first table with a column of that title, without its titles."""
        return next(table[1:] for table in self.tables if head in table[0])


def report(study: Study, folder: Path, **options: Any) -> tuple[Page, str]:
    study.report(folder / "page.html", **options)
    text = (folder / "page.html").read_text()
    return Page(text), text


RATES = ({"lr": 0.01}, {"lr": 0.1})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str]:
    """The report of two arms and two cells, with all that there is."""
    return report(made({"a": 1.0, "b": 1.2}, cells=RATES), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What most of the time goes into."""
    monkeypatch.setattr("fdnn.study.page.figure", lambda *args: "<figure></figure>")


@pytest.mark.usefixtures("no_pictures")
def test_the_numbers_are_the_studys(tmp_path: Path) -> None:
    study = made({"a": 1.0, "<b>": 1.2})
    page, text = report(study, tmp_path, title="Learning & rates", confidence=0.9)
    assert page.texts["h1"] == ["Learning & rates"] == page.texts["title"]
    for metric in ("accuracy", "loss"):
        rows = {row[0]: row for row in section(text, metric).table("95 %")}
        for arm, s in study.summary(metric, confidence=0.9).items():
            assert rows[arm][1:] == [
                s.n, s.diverged, s.mean, *s.t_interval, s.sd,
                s.min, s.q05, s.q25, s.median, s.q75, s.q95, s.max,
            ]  # fmt: skip
    (row,) = section(text, "loss").table("p (Holm)")
    one = study.compare("loss", "a", "<b>", confidence=0.9)
    assert row == [
        "a - <b>", 6, one.difference, *one.t_interval, one.t_test_p, one.t_test_p,
        one.effect_size, one.probability_above, "a is below <b>", "",
    ]  # fmt: skip


def section(text: str, title: str) -> Page:
    """The part of a page under a heading."""
    return Page(re.search(rf"<section>\n<h2>{title}</h2>.*?</section>", text, re.S)[0])


def test_it_needs_nothing_else(whole: tuple[Page, str]) -> None:
    page, text = whole
    assert "prefers-color-scheme: dark" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        page.tags
    )
    names = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(names) == len(set(names))
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "img")
        for name in ("src", "href", "xlink:href"):
            assert (attrs.get(name) or "#")[0] == "#"
    for place in re.findall(r"url\(([^)]*)\)", text):
        assert place[0] == "#" and place[1:] in names
    assert set(re.findall(r"https?://[^\"\s]*", text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "#010203" not in text and "currentColor" in text


def test_every_plot_is_there(whole: tuple[Page, str]) -> None:
    page, text = whole
    pictures = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    assert pictures == page.texts["figcaption"]
    for metric, with_curves in (("loss", True), ("accuracy", False)):
        mine = section(text, metric).texts["figcaption"]
        assert mine[0] == f"{metric}: every run, the mean and its 95 % interval"
        assert any("by epoch" in caption for caption in mine) is with_curves
        assert f"{metric} against lr: median, 10 % to 90 % of the runs" in mine
        assert f"{metric}: a lr=0.01 - b lr=0.1, seed by seed" in mine
        assert len(mine) == 2 + with_curves + 6
    assert len(section(text, "History").texts["figcaption"]) == 1
    assert "a lr=0.01" in "".join(page.texts["text"])  # of a picture


def test_it_says_how_it_was_run(whole: tuple[Page, str]) -> None:
    page, _ = whole
    assert page.texts["pre"][0] == CALL.command
    assert [CALL.started, "0:01:01 h", CALL.command] in page.table("took")
    assert ["torch", "2.13.0"] in page.table("environment")
    assert ["a", "{'name': 'a'}", 12, 0, "2.5 s"] in page.table("settings")
    text = "2 arms, 2 cells of a sweep, 6 seeds: 24 runs, 0 diverged. The runs took 5.0 s."
    assert text in page.texts["p"]


@pytest.mark.usefixtures("no_pictures")
def test_more_seeds_for_what_is_not_settled(tmp_path: Path) -> None:
    study = made({"a": 1.0, "b": 1.01, "c": 3.0})
    (ab, ac, _) = section(report(study, tmp_path)[1], "loss").table("p (Holm)")
    plan = study.power("loss", "a", "b", alpha=(1 - 0.95) / 3)
    assert ab[9:] == ["not settled", plan.more_seeds]
    assert plan.more_seeds > 0
    assert ac[9:] == ["a is below c", ""]


@pytest.mark.usefixtures("no_pictures")
def test_equal_arms_have_no_number_of_seeds(tmp_path: Path) -> None:
    study = made({"a": 1.0, "b": 1.0})
    study.arms["b"].results["loss"][:] = study.arms["a"].results["loss"]
    (row,) = section(report(study, tmp_path)[1], "loss").table("p (Holm)")
    assert row[2] == 0 and row[9:] == ["not settled", ""]


@pytest.mark.usefixtures("no_pictures")
def test_diverged_runs_are_left_out_and_said(tmp_path: Path) -> None:
    study = made({"a": 1.0, "b": math.nan, "c": 1.2})
    study.arms["c"].results["loss"][0, 0] = math.nan
    page, text = report(study, tmp_path)
    assert ["b", 6, "0, 1, 2, 3, 4, 5"] in page.table("seeds")
    loss = section(text, "loss")
    assert loss.table("95 %")[1] == ["b", 0.0, 6.0, *[""] * 11]
    assert [row[:2] for row in loss.table("p (Holm)")] == [["a - c", 5]]
    assert "'b' has 0 finite values of 6 runs: no statistics." in loss.texts["p"]
    assert "Not compared: 'b' has 0 finite values of 6 runs." in loss.texts["p"]


@pytest.mark.parametrize(
    "study",
    [
        made({"a": 1.0}),
        made({"a": 1.0, "b": 2.0}, seeds=1),
        made({"a": math.nan, "b": math.nan}),
        made({"a": math.nan, "b": 1.0}),
        made({"a": 1.0, "b": 1.0}, spread=0.0, epochs=1),
    ],
    ids=["one arm", "one seed", "all diverged", "all but one diverged", "no spread"],
)
def test_any_study_has_a_report(study: Study, tmp_path: Path) -> None:
    page, _ = report(study, tmp_path)
    assert page.texts["h1"] == ["Study"]


@pytest.mark.usefixtures("no_pictures")
def test_many_arms_are_compared_with_one(tmp_path: Path) -> None:
    study = made({name: i for i, name in enumerate("abcdef")}, epochs=1)
    rows = section(report(study, tmp_path)[1], "loss").table("p (Holm)")
    assert [row[0] for row in rows] == [f"{name} - a" for name in "bcdef"]
    rows = section(report(study, tmp_path, baseline="c")[1], "loss").table("p (Holm)")
    assert [row[0] for row in rows] == [f"{name} - c" for name in "abdef"]
    with pytest.raises(ValueError, match=r"`baseline` must be one of the arms .*got 'z'"):
        study.report(tmp_path / "other.html", baseline="z")


@pytest.mark.usefixtures("no_pictures")
def test_runs_that_are_not_there_are_no_diverged_ones(tmp_path: Path) -> None:
    study = made({"a": 1.0, "b": 1.2})
    study.arms["b"].finished[0, 4:] = False
    for values in study.arms["b"].results.values():
        values[0, 4:] = math.nan
    page, text = report(study, tmp_path)
    assert section(text, "loss").table("95 %")[1][1:3] == [4, 0]
    assert section(text, "loss").table("p (Holm)")[0][1] == 4
    assert "of 12 possible runs 2 are not there" in page.texts["p"][0]


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made({"a": 1.0}, epochs=1)
    (tmp_path / "page.html").write_text("before")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: .*page\.html'"):
            study.report(tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "before"
    study.report(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().endswith("</html>\n")
    with pytest.raises(FileNotFoundError, match=r"nowhere/page\.html"):
        study.report(tmp_path / "nowhere" / "page.html")


@pytest.mark.usefixtures("no_pictures")
def test_a_table_keeps_numbers_whole(tmp_path: Path) -> None:
    values = np.array([0.1, 1 / 3, 0.25, 1e-7, 12345.678, 0.7])
    study = made({"a": 1.0})
    study.arms["a"].results["loss"][0] = values
    row = section(report(study, tmp_path)[1], "loss").table("95 %")[0]
    assert (row[7], row[13]) == (1e-7, 12345.678)
