"""What a check found, and how it reads."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["Finding", "Report", "listed"]

_WIDTH = 88
_SHOWN = 4  # names in a list; from there on their number says more


class Finding(NamedTuple):
    """One mistake.

    Attributes:
        mistake: its short name, which stays the same.
        where: the layers, parameters or arguments it was found in.
        problem: what is wrong, with the numbers.
        cure: what to do about it.
    """

    mistake: str
    where: str
    problem: str
    cure: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check` found; `print` shows it. It is as true as a list of its findings.

    Attributes:
        findings: the mistakes, none if all is well.
        not_checked: what was not looked at, and why.
    """

    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __str__(self) -> str:
        lines = [] if self.findings else ["no mistakes found"]
        for mistake, where, problem, cure in self.findings:
            lines.append(f"{mistake}: {where}")
            lines += _paragraph(f"{problem}.") + _paragraph(f"Cure: {cure}.")
        lines += [f"not looked at: {what}" for what in self.not_checked]
        return "\n".join(lines)


def listed(names: Sequence[str]) -> str:
    """Join names; of many, the first few and their number."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN - 1])}, ... ({len(names)} in all)"


def _paragraph(text: str) -> list[str]:
    indent = "    "
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
