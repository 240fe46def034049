"""One HTML page that needs nothing else: its template, tables, pictures inside it, its writing."""

from __future__ import annotations

import html
import io
import math
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from typing import Any

__all__ = ["figure", "figures", "paragraph", "render", "section", "table", "write"]

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d5d9de; --soft: #f4f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e6ea; --paper: #15181c; --line: #3a4048; --soft: #1f242a }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem;
  color: var(--ink); background: var(--paper) }
h1 { line-height: 1.2 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
pre { padding: .7rem; background: var(--soft); white-space: pre-wrap; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top }
thead th { background: var(--soft); vertical-align: bottom }
th:first-child, .text :is(th, td) { text-align: left }
.figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)) }
figure { margin: 1rem 0 }
figure svg { width: 100%; height: auto; max-width: 44rem }
figcaption { font-size: .9rem }
</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")

# What the page draws in its own colour of text, light or dark: replaced in the picture.
_INK = "#010203"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "legend.framealpha": 0,
    **dict.fromkeys(
        [
            "axes.edgecolor",
            "axes.labelcolor",
            "axes.titlecolor",
            "legend.edgecolor",
            "text.color",
            "xtick.color",
            "ytick.color",
        ],
        _INK,
    ),
}


def render(title: str, parts: Sequence[str]) -> str:
    """Put a page together; the parts are HTML."""
    return _PAGE.substitute(title=html.escape(title), body="\n".join(parts))


def section(title: str, parts: Sequence[str]) -> str:
    """Put parts under a heading."""
    return "\n".join(["<section>", f"<h2>{html.escape(title)}</h2>", *parts, "</section>"])


def paragraph(text: str, tag: str = "p") -> str:
    """Write plain text."""
    return f"<{tag}>{html.escape(text)}</{tag}>" if text else ""


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], kind: str = "numbers") -> str:
    """Write a table; numbers are shown with 4 digits, and kept whole in `<data value>`.

    Args:
        head: titles of the columns.
        rows: of text, numbers, or None for nothing.
        kind: the class of the table: "numbers", or "text", which is aligned left.
    """
    titles = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in head)
    lines = [
        f'<tr><th scope="row">{_cell(first)}</th>'
        + "".join(f"<td>{_cell(value)}</td>" for value in rest)
        + "</tr>"
        for first, *rest in rows
    ]
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table class="{kind}">\n<thead><tr>{titles}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f'<data value="{value}">{value:,}</data>'
    if isinstance(value, float):
        return f'<data value="{value!r}">{value:.4g}</data>' if math.isfinite(value) else str(value)
    return html.escape(str(value))


def figure(draw: Callable[..., Any], caption: str, height: float = 4) -> str:
    """Draw a picture, and write it as SVG.

    Args:
        draw: called as `draw(ax=axes)`.
        caption: what is under the picture; of each on a page another.
        height: of the axes, in inches; they are 6.4 wide.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("`report` needs matplotlib: pip install 'fdnn-torch[study]'") from error
    file = io.StringIO()
    with style.context(["default", _STYLE | {"svg.hashsalt": caption}]):
        canvas = Figure(figsize=(6.4, height))
        draw(ax=canvas.subplots())
        nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
        canvas.savefig(file, format="svg", transparent=True, bbox_inches="tight", metadata=nothing)
    text = file.getvalue()
    svg = text[text.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # names of groups, the same in every picture
    named = f'<svg role="img" aria-label="{html.escape(caption)}"' + svg.removeprefix("<svg")
    return f"<figure>\n{named}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>"


def figures(several: Sequence[str]) -> str:
    """Put pictures beside each other, as far as there is space."""
    return "\n".join(['<div class="figures">', *several, "</div>"]) if several else ""


def write(path: str | os.PathLike[str], text: str) -> None:
    """Write a file, which is there whole or not at all.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(aside, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        aside.unlink(missing_ok=True)
