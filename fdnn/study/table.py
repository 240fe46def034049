"""Tables as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fdnn.study import statistics
from fdnn.study.columns import Column

__all__ = ["rows_of", "text_table"]


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """Align the cells of each column."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def rows_of(
    metric: str, columns: Mapping[str, Column], confidence: float = 0.95
) -> list[list[str]]:
    """Write the summary of each column in a row, as far as it has one."""
    return [[name, metric, *_numbers(column, confidence)] for name, column in columns.items()]


def _numbers(column: Column, confidence: float) -> list[str]:
    there = column.finite
    n, diverged = str(len(there)), str(len(column.runs) - len(there))
    if len(there) < 2:
        return [n, diverged, f"{there[0]:.4g}" if len(there) else "", "", "", "", "", ""]
    s = statistics.summarize(there, confidence)
    interval = f"{s.t_interval.low:.4g} to {s.t_interval.high:.4g}"
    spread = (f"{value:.4g}" for value in (s.sd, s.min, s.median, s.max))
    return [n, diverged, f"{s.mean:.4g}", interval, *spread]
