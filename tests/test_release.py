"""What a release says of itself is the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import fdnn

ROOT = Path(__file__).parents[1]


def test_version_is_semantic() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+|\.dev\d+)?", fdnn.__version__)


def test_version_is_the_same_everywhere() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project and not re.search(r"^version\s*=", project, re.M)
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert citation and citation[1] == fdnn.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest and newest[1] in (fdnn.__version__, "Unreleased")


def test_changelog_dates_every_release_but_the_one_to_come() -> None:
    titles = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    coming, *past = titles
    assert re.fullmatch(r"\S+ (\(unreleased\)|- \d{4}-\d{2}-\d{2})|Unreleased", coming)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d{2}-\d{2}", title) for title in past)
