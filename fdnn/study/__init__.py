"""Experiments over many seeds: what their results say."""

from fdnn.study.statistics import (
    Comparison,
    Equivalence,
    Interval,
    Position,
    Power,
    Proportion,
    Summary,
    compare,
    compare_all,
    equivalence,
    holm,
    power,
    proportion,
    seeds_needed,
    summarize,
    where,
)

__all__ = [
    "Comparison",
    "Equivalence",
    "Interval",
    "Position",
    "Power",
    "Proportion",
    "Summary",
    "compare",
    "compare_all",
    "equivalence",
    "holm",
    "power",
    "proportion",
    "seeds_needed",
    "summarize",
    "where",
]
