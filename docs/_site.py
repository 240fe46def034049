"""What MkDocs needs to be told about fdnn: MkDocs and Griffe call the functions of this file."""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
ROOT = DOCS.parent
MODULES = sorted(
    path.stem
    for path in (ROOT / "fdnn").iterdir()
    if not path.stem.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").exists())
)
"""The packages and modules of fdnn: each has a page of the API, which is made here."""


def source(module: str) -> Path:
    """Find the file of a module, or a package's `__init__.py`."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public(module: str) -> list[str]:
    """List what a module exports, by the place where each name is defined.

    Griffe takes `fdnn.optim.adam` for the module of that name; `fdnn.optim.adam.adam` is clear.
    """
    code = ast.parse(source(module).read_text())
    names: list[str] = next(
        ast.literal_eval(node.value)
        for node in code.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return [origin(module, name) for name in names]


def origin(module: str, name: str) -> str:
    """Follow the imports of `__init__.py` files to where a name is defined."""
    path = source(module)
    if path.name == "__init__.py":
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
                return origin(str(node.module), name)
    return f"{module}.{name}"


def api_page(name: str) -> str:
    """Write the page of a package: what it is, and everything that it exports."""
    module = f"fdnn.{name}"
    text = ast.get_docstring(ast.parse(source(module).read_text())) or ""
    return "\n\n".join([f"# {module}", text, *(f"::: {path}" for path in public(module))])


def api_index() -> str:
    """Write the page of the reference that lists the others."""
    rows = ["# Reference", "| | |\n|---|---|"]
    for name in MODULES:
        text = ast.get_docstring(ast.parse(source(f"fdnn.{name}").read_text())) or ""
        rows[-1] += f"\n| [fdnn.{name}]({name}.md) | {text.splitlines()[0]} |"
    return "\n\n".join(rows)


def expand(nav: Any) -> Any:
    """Put the pages of a folder where the nav of mkdocs.yml says `folder/*`."""
    if isinstance(nav, dict):
        return {title: expand(item) for title, item in nav.items()}
    if isinstance(nav, list):
        items = [pages(item) if str(item).endswith("/*") else [expand(item)] for item in nav]
        return [item for some in items for item in some]
    return nav


def pages(pattern: str) -> list[str]:
    """List the pages of a folder, its README first; none if it is not there."""
    if pattern == "api/*":
        return [f"api/{name}.md" for name in ("index", *MODULES)]
    found = [path.relative_to(DOCS).as_posix() for path in DOCS.glob(f"{pattern}.md")]
    return sorted(found, key=lambda page: (not page.endswith(("README.md", "index.md")), page))


def on_config(config: MkDocsConfig) -> None:
    """Write the nav out."""
    config.nav = [item for item in expand(config.nav) if item not in ({}, [])]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add a page for every module of fdnn, which mkdocstrings fills from the docstrings."""
    for name in MODULES:
        files.append(File.generated(config, f"api/{name}.md", content=api_page(name)))
    files.append(File.generated(config, "api/index.md", content=api_index()))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep from Markdown what the fences of Python say to the tests."""
    return re.sub(r"^```python (continuation|notest)$", "```python", markdown, flags=re.M)


def on_page_content(content: str, **_: Any) -> str:
    """Turn LaTeX into MathML, which browsers draw without a script."""

    def mathml(found: re.Match[str]) -> str:
        tex = html.unescape(found["tex"]).replace(r"\_", "_")
        made: str = convert(tex, display="block" if found["tag"] == "div" else "inline")
        if unknown := re.search(r">(\\[A-Za-z]+)<", made):
            raise ValueError(f"latex2mathml does not know {unknown[1]} in {tex!r}")
        return made

    pattern = r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>'
    return re.sub(pattern, mathml, content, flags=re.S)


class Examples(Extension):
    """Call the section `Example` by the name under which Griffe looks for doctests."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rename it in the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.M
            )
