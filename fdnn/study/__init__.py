"""Experiments over many seeds at once: running them, keeping them, and what they say."""

from fdnn.study.experiment import Experiment, from_functions, training
from fdnn.study.run import run
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
from fdnn.study.store import Store
from fdnn.study.study import Arm, Study

__all__ = [
    "Arm",
    "Comparison",
    "Equivalence",
    "Experiment",
    "Interval",
    "Position",
    "Power",
    "Proportion",
    "Store",
    "Study",
    "Summary",
    "compare",
    "compare_all",
    "equivalence",
    "from_functions",
    "holm",
    "power",
    "proportion",
    "run",
    "seeds_needed",
    "summarize",
    "training",
    "where",
]
