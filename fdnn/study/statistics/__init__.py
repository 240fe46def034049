"""The statistics of many seeds: summaries, comparisons, power, shares, by SciPy."""

from fdnn.study.statistics.comparison import Comparison, compare
from fdnn.study.statistics.equivalence import Equivalence, equivalence
from fdnn.study.statistics.interval import Interval
from fdnn.study.statistics.multiple import compare_all, holm
from fdnn.study.statistics.power import Power, power, seeds_needed
from fdnn.study.statistics.proportion import Position, Proportion, proportion, where
from fdnn.study.statistics.summary import Summary, summarize

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
