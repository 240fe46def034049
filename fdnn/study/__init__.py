"""Experiments over many seeds at once: running them, keeping them, and what they say."""

from fdnn.study.arm import Arm
from fdnn.study.call import Call
from fdnn.study.experiment import Experiment, from_functions, training
from fdnn.study.halving import Halving, Rung, successive_halving
from fdnn.study.ray_executor import RayExecutor
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
from fdnn.study.study import Study

__all__ = [
    "Arm",
    "Call",
    "Comparison",
    "Equivalence",
    "Experiment",
    "Halving",
    "Interval",
    "Position",
    "Power",
    "Proportion",
    "RayExecutor",
    "Rung",
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
    "successive_halving",
    "summarize",
    "training",
    "where",
]
