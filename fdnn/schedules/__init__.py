"""Schedules: pure functions from the number of steps taken to a value, for any hyperparameter."""

from fdnn.schedules.annealing import cosine_annealing, cosine_annealing_warm_restarts, swa
from fdnn.schedules.composition import chained, per_epoch, sequential
from fdnn.schedules.cyclic import cyclic, cyclic_momentum
from fdnn.schedules.decay import exponential, inverse_sqrt, multi_step, polynomial, power, step
from fdnn.schedules.given import lambda_, multiplicative, piecewise
from fdnn.schedules.one_cycle import one_cycle, one_cycle_momentum
from fdnn.schedules.plateau import Plateau, PlateauState, reduce_on_plateau
from fdnn.schedules.plotting import plot
from fdnn.schedules.schedule import Schedule
from fdnn.schedules.warmup import constant, linear, warmup, warmup_stable_decay

__all__ = [
    "Plateau",
    "PlateauState",
    "Schedule",
    "chained",
    "constant",
    "cosine_annealing",
    "cosine_annealing_warm_restarts",
    "cyclic",
    "cyclic_momentum",
    "exponential",
    "inverse_sqrt",
    "lambda_",
    "linear",
    "multi_step",
    "multiplicative",
    "one_cycle",
    "one_cycle_momentum",
    "per_epoch",
    "piecewise",
    "plot",
    "polynomial",
    "power",
    "reduce_on_plateau",
    "sequential",
    "step",
    "swa",
    "warmup",
    "warmup_stable_decay",
]
