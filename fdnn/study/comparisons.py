"""What columns say: summaries and comparisons, of those that have enough numbers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from fdnn.study import statistics
from fdnn.study.arm import Floats
from fdnn.study.columns import Column

__all__ = ["compared", "pairs", "say_left_out", "summaries", "together"]

Comparisons = dict[tuple[str, str], statistics.Comparison]


def together(a: Column, b: Column, paired: bool = True) -> tuple[Floats, Floats]:
    """Return the values to compare: of pairs, the seeds that both have run."""
    if not paired:
        return a.runs, b.runs
    both = a.finished & b.finished
    return a.values[both], b.values[both]


def pairs(names: list[str], baseline: str | None) -> list[tuple[str, str]]:
    """Say what is compared: each with the baseline, or each with each."""
    if baseline is None:
        return list(combinations(names, 2))
    if baseline not in names:
        raise ValueError(f"`baseline` must be one of the arms {names}, got {baseline!r}")
    return [(name, baseline) for name in names if name != baseline]


def compared(
    found: Mapping[str, Column], baseline: str | None = None, *, paired: bool = True, **options: Any
) -> tuple[Comparisons, list[str]]:
    """Compare columns, with Holm's correction, and say which are left out.

    Args:
        found: from `columns`.
        baseline: as for `statistics.compare_all`.
        paired: likewise.
        **options: of `statistics.compare`.

    Returns:
        The comparisons, and in a sentence each what cannot be compared: fewer than 2 numbers.
    """
    if len(found) < 2:
        raise ValueError(f"there must be at least 2 arms or cells to compare, got {list(found)}")
    wanted = pairs(list(found), baseline)
    lost = {name: _too_few(name, column) for name, column in found.items()}
    left_out = [sentence for sentence in lost.values() if sentence]
    results: Comparisons = {}
    for a, b in wanted:
        if lost[a] or lost[b]:
            continue
        first, second = together(found[a], found[b], paired)
        count = int((np.isfinite(first) & np.isfinite(second)).sum()) if paired else 2
        if count < 2:
            left_out.append(f"{a!r} and {b!r} share {count} seeds with finite values")
            continue
        results[a, b] = statistics.compare(first, second, paired=paired, **options)
    corrected = statistics.holm([one.t_test_p for one in results.values()])
    return {
        pair: one._replace(p_holm=float(p))
        for (pair, one), p in zip(results.items(), corrected, strict=True)
    }, left_out


def say_left_out(sentences: list[str]) -> None:
    """Warn of what is left out, if anything is."""
    if sentences:
        warnings.warn(f"left out: {'; '.join(sentences)}", RuntimeWarning, stacklevel=3)


def _too_few(name: str, column: Column) -> str:
    """Say why a column has no statistics; nothing if it has."""
    count = len(column.finite)
    return "" if count > 1 else f"{name!r} has {count} finite values of {len(column.runs)} runs"


def summaries(
    found: Mapping[str, Column], confidence: float
) -> tuple[dict[str, statistics.Summary], list[str]]:
    """Summarize columns, and say which are left out."""
    lost = {name: _too_few(name, column) for name, column in found.items()}
    return {
        name: statistics.summarize(column.runs, confidence)
        for name, column in found.items()
        if not lost[name]
    }, [sentence for sentence in lost.values() if sentence]
