"""A is said to be above B: under one condition or several, each judged, then all together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from _chapter import DOES_NOT, HOLDS, ONLY_WHEN, OPEN, Claim, corrected, judge

from fdnn import study


class Contrast(NamedTuple):
    """A number of two arms, seed by seed."""

    a: str
    x: Any
    b: str
    y: Any


def contrast(
    claimed: str, contrasts: Mapping[str, Contrast], *, delta: float, points: bool = True
) -> Claim:
    """Judge "A is above B" under every condition, with Holm's correction if there are several.

    Args:
        claimed: in our words.
        contrasts: by condition, as it reads after "when"; the name of a single one is not shown.
        delta: the smallest difference that matters, chosen before any run. What no test settles
            is a tie if the arms are equal to within it; if not even that is settled, it is said
            how many seeds would find it.
        points: whether the numbers are shares, to be shown in points.
    """
    if len(contrasts) == 1:
        measured, verdicts = _judged(contrasts, delta, points, _in_full)
        return Claim(claimed, *measured.values(), *verdicts.values())
    measured, verdicts = _judged(contrasts, delta, points, _brief)
    names = {f"{one.a} − {one.b}" for one in contrasts.values()}
    head = f"{names.pop()}, " if len(names) == 1 else ""
    each = [
        f"when {when}, " + f"{one.a} − {one.b}: " * (not head) + measured[when]
        for when, one in contrasts.items()
    ]
    unit = "points, " * points
    said = f"{unit}95 % interval over seeds, Holm-corrected p: {'; '.join(each)}"
    return Claim(claimed, head + said, together(verdicts))


def family(contrasts: Mapping[str, Contrast], *, delta: float, points: bool = True) -> list[Claim]:
    """Judge several claims "A is above B", each by itself, with Holm's correction.

    Args:
        contrasts: by what is claimed.
        delta: as for `contrast`.
        points: likewise.
    """
    measured, verdicts = _judged(contrasts, delta, points, _in_full)
    return [Claim(claimed, measured[claimed], verdicts[claimed]) for claimed in contrasts]


def _in_full(found: study.Comparison, a: str, b: str, points: bool) -> str:
    return judge(found, a, b, points=points)[0]


def _brief(found: study.Comparison, a: str, b: str, points: bool) -> str:
    """The numbers of a comparison, where what they are has been said."""
    scale = 100 if points else 1
    low, high = (scale * end for end in found.t_interval)
    lost = f", {found.left_out} diverged" if found.left_out else ""
    return (
        f"{scale * found.difference:+.3g} ({low:+.3g} to {high:+.3g}, n = {found.n_a}, "
        f"p = {found.t_test_p if found.p_holm is None else found.p_holm:.2g}{lost})"
    )


def _judged(
    contrasts: Mapping[str, Contrast],
    delta: float,
    points: bool,
    tell: Callable[[study.Comparison, str, str, bool], str],
) -> tuple[dict[str, str], dict[str, str]]:
    """Say what was measured of each, and its verdict."""
    measured, verdicts, found = {}, {}, {}
    for when, (a, x, b, y) in contrasts.items():
        pairs = int((np.isfinite(x) & np.isfinite(y)).sum())
        if pairs > 1:
            found[when] = study.compare(x, y)
        measured[when] = f"{a} and {b}: all but {pairs} of {len(x)} pairs diverged"
        verdicts[when] = OPEN
    if len(contrasts) > 1:
        found = corrected(found)
    for when, one in found.items():
        a, x, b, y = contrasts[when]
        measured[when] = tell(one, a, b, points)
        verdicts[when] = judge(one, a, b, points=points)[1]
        if verdicts[when] != OPEN:
            continue
        size = f"{100 * delta:g} point{'s' * (delta != 0.01)}" if points else f"{delta:g}"
        if study.equivalence(x, y, delta).p_value <= 0.05:
            measured[when] += f": a tie to within {size}"
            verdicts[when] = DOES_NOT
        else:
            more = study.power(x, y, delta).more_seeds
            measured[when] += f"; {more} more seeds would find {size}"
    return measured, verdicts


def together(verdicts: Mapping[str, str]) -> str:
    """Say of a claim judged under several conditions when it holds."""
    under = {
        verdict: ", or ".join(when for when, own in verdicts.items() if own == verdict)
        for verdict in (HOLDS, DOES_NOT, OPEN)
    }
    kinds = [verdict for verdict, whens in under.items() if whens]
    if len(kinds) == 1:
        return kinds[0]
    if not under[HOLDS]:
        return OPEN
    open_too = f" ({OPEN} when {under[OPEN]})" if under[OPEN] else ""
    return f"{ONLY_WHEN} {under[HOLDS]}{open_too}"
