"""Optimizers as pairs of pure functions: torch's trajectories, composable."""

from fdnn.optim.adam import adam, scale_by_adam
from fdnn.optim.adamw import adamw
from fdnn.optim.apply import apply_updates, step
from fdnn.optim.chain import (
    OptState,
    chain,
    diagnostics,
    set_hyperparams,
    with_extra_args,
)
from fdnn.optim.clip import clip_by_global_norm
from fdnn.optim.decay import add_decayed_weights
from fdnn.optim.groups import freeze, masked, names_by_type, partition, set_to_zero
from fdnn.optim.learning_rate import maximize, scale_by_learning_rate
from fdnn.optim.part import Part
from fdnn.optim.sgd import scale_by_momentum, sgd

__all__ = [
    "OptState",
    "Part",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "chain",
    "clip_by_global_norm",
    "diagnostics",
    "freeze",
    "masked",
    "maximize",
    "names_by_type",
    "partition",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_momentum",
    "set_hyperparams",
    "set_to_zero",
    "sgd",
    "step",
    "with_extra_args",
]
