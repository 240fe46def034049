"""The site: every page is in its nav, every public name on a page of the reference."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import griffe
import pytest
import yaml

ROOT = Path(__file__).parents[1]


def load(file: str) -> ModuleType:
    """Import a file of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"_docs_{file}", ROOT / f"docs/{file}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site, shown = load("_site"), load("conftest")


@pytest.fixture(scope="module")
def package() -> Any:
    extension = griffe.load_extensions(f"{ROOT}/docs/_site.py:Examples")
    return griffe.load("fdnn", search_paths=[ROOT], extensions=extension, docstring_parser="google")


def leaves(nav: Any) -> list[str]:
    """List the pages of a nav."""
    if isinstance(nav, str):
        return [nav]
    return [
        page for item in (nav.values() if isinstance(nav, dict) else nav) for page in leaves(item)
    ]


def test_every_page_is_in_the_nav_once() -> None:
    nav = leaves(site.expand(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    made = {f"api/{name}.md" for name in ("index", *site.MODULES)}
    assert len(nav) == len(set(nav))
    assert set(nav) == written | made


def test_every_module_has_a_page() -> None:
    files = {path.stem for path in (ROOT / "fdnn").iterdir() if path.name[0] not in "._"}
    assert set(site.MODULES) == files - {"py"}
    index = site.api_index()
    assert all(f"[fdnn.{name}]({name}.md)" in index for name in site.MODULES)


@pytest.mark.parametrize("name", site.MODULES)
def test_every_public_name_is_on_its_page(name: str, package: Any) -> None:
    module = importlib.import_module(f"fdnn.{name}")
    paths = dict(zip(module.__all__, site.public(f"fdnn.{name}"), strict=True))
    shown = site.api_page(name).splitlines()
    for public, path in paths.items():
        assert f"::: {path}" in shown
        place, _, last = path.rpartition(".")
        assert last == public
        assert getattr(importlib.import_module(place), public) is getattr(module, public)
        found = package[path.removeprefix("fdnn.")]
        assert not found.is_module and found.docstring, path
        kinds = {section.kind.value for section in found.docstring.parse("google")}
        assert not found.is_function or "examples" in kinds, path


def test_mathematics_needs_no_script() -> None:
    made = site.on_page_content(r'a <span class="arithmatex">\(x_1 &lt; \text{max\_lr}\)</span> b')
    assert made.startswith("a <math") and made.endswith("</math> b")
    assert "max_lr" in made and "arithmatex" not in made
    block = site.on_page_content('<div class="arithmatex">\\[\nx^2\n\\]</div>')
    assert 'display="block"' in block


def test_unknown_commands_of_latex_end_the_build() -> None:
    with pytest.raises(ValueError, match=r"does not know \\nonsense in"):
        site.on_page_content(r'<span class="arithmatex">\(x \nonsense\)</span>')


def test_fences_say_python_to_the_site() -> None:
    assert site.on_page_markdown("```python continuation\n1\n```") == "```python\n1\n```"


def test_every_gotcha_shows_what_comes_out() -> None:
    """As code whose prints all say what they print; `docs/conftest.py` compares it on each run."""
    sections = shown.PAGE.read_text().split("\n### ")[1:]
    titles = [section.split("\n")[0] for section in sections]
    assert len(set(titles)) == len(titles) > 50
    for section, title in zip(sections, titles, strict=True):
        code = "".join(code for _, code in shown.BLOCK.findall(section))
        comments = shown.shown(code)
        assert all(comments) and code.count("print(") == len(comments), title
        assert comments or " notest\n" in section, title


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [
        (["`lr` must be positive, got -1", "tensor(True)"], None),
        (["`lr` must be positive, got -1", "tensor(False)"], "it is\ntensor"),
        (["`lr` must be above 0, got -1", "tensor(True)"], "it is\n`lr` must be above"),
        (["tensor(True)"], "2 prints, of which ran"),  # nothing was raised
    ],
)
def test_a_gotcha_that_says_something_else_fails(printed: list[str], complaint: str | None) -> None:
    code = """
try:
    optimizer(lr=-1)
except ValueError as error:
    print(error)
    # `lr` must be
    # positive, ...
print((x == 0).all())  # tensor(True)
"""
    if complaint is None:
        shown.compare(code, printed)
    else:
        with pytest.raises(AssertionError, match=complaint):
            shown.compare(code, printed)
