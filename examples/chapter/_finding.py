"""A mistake of the source material, and what became of the check."""

from __future__ import annotations

import argparse
import json
import re
from typing import NamedTuple

from _chapter import DOES_NOT, ONLY_WHEN

CONFIRMED, NOT_CONFIRMED, BY_READING = "confirmed", "not confirmed", "by reading only"


class Finding(NamedTuple):
    """One row of the list.

    Attributes:
        claimed: what is wrong in the source, in our words, after its number.
        checked: what was computed.
        measured: the numbers.
        verdict: `CONFIRMED`, `NOT_CONFIRMED`, or `BY_READING` where a text was read and no more.
    """

    claimed: str
    checked: str
    measured: str
    verdict: str


def decide(is_so: object) -> str:
    """Turn the outcome of a check into a verdict."""
    return CONFIRMED if is_so else NOT_CONFIRMED


def settle(args: argparse.Namespace, finding: Finding, name: str, about: str) -> Finding:
    """Let a study of the chapter have the last word, if its page is there.

    Args:
        args: from `parse`.
        finding: with the verdict of a small run.
        name: of the study's script.
        about: a pattern for the study's claims that the finding is about. If one of them does not
            hold, or only under a condition, the source is wrong as the finding says.
    """
    path = args.out / f"{name}.json"
    page = json.loads(path.read_text()) if path.exists() else {"claims": [], "command": ""}
    is_short = page["command"].endswith("--fast") and not args.fast
    found = [] if is_short else [c for c in page["claims"] if re.search(about, c["claimed"])]
    if not found:
        where = f"`examples/chapter/{name}.py`"
        return finding._replace(checked=f"{finding.checked} The whole study: {where}.")
    verdicts = "; ".join(f"“{claim['claimed']}”: {claim['verdict']}" for claim in found)
    return finding._replace(
        checked=f"{finding.checked} And the study [{name}]({name}.md), which decides.",
        measured=f"{finding.measured} The study: {verdicts}.",
        verdict=decide(any(c["verdict"].startswith((ONLY_WHEN, DOES_NOT)) for c in found)),
    )
