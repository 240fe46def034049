"""What `gotchas.md` says that a block prints is compared with what it prints."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).with_name("gotchas.md")
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", flags=re.M | re.S)
SHOWN = re.compile(
    r"^[ ]*print\(.*?\)(?P<beside>[ ]{2}\#.*)?\n"  # of a print on one line
    r"(?P<below>(?:[ ]*\#.*\n)*)",
    flags=re.M,
)


def shown(code: str) -> list[str]:
    """List what the comments beside or below each `print` of a block say."""
    texts = ((found["beside"] or "") + found["below"] for found in SHOWN.finditer(code))
    return [" ".join(re.sub(r"^ *#", "", text, flags=re.M).split()) for text in texts]


def compare(code: str, printed: list[str]) -> None:
    """Raise if a block printed something else than it shows; `...` stands for any text."""
    expected = shown(code)
    assert len(printed) == len(expected), f"{len(expected)} prints, of which ran: {printed}"
    for text, said in zip(expected, (" ".join(line.split()) for line in printed), strict=True):
        pattern = ".*".join(map(re.escape, text.split("...")))
        assert text and re.fullmatch(pattern, said), f"the page shows\n{text}\nand it is\n{said}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Generator[None, Any, Any]:
    """Begin each block of the page with its first one, and look at what is printed."""
    if item.path != PAGE:
        return (yield)
    begin: dict[str, Any] = {}
    exec(BLOCK.findall(PAGE.read_text())[0][1], begin)
    printed: list[str] = []
    item.funcargs |= begin | {"print": lambda *values: printed.append(" ".join(map(str, values)))}
    result = yield
    compare(item.code, printed)
    return result
