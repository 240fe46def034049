"""Optimizers as pairs of pure functions: torch's trajectories, composable."""

from fdnn.optim.adadelta import adadelta, scale_by_adadelta
from fdnn.optim.adafactor import adafactor, scale_by_adafactor
from fdnn.optim.adagrad import adagrad, scale_by_adagrad
from fdnn.optim.adam import adam, scale_by_adam
from fdnn.optim.adamax import adamax, scale_by_adamax
from fdnn.optim.adamw import adamw
from fdnn.optim.ademamix import ademamix, scale_by_ademamix
from fdnn.optim.adopt import adopt, scale_by_adopt
from fdnn.optim.asgd import asgd, scale_by_asgd
from fdnn.optim.blocks.accumulate import multi_steps
from fdnn.optim.blocks.averages import averaged_params, ema_params, swa
from fdnn.optim.blocks.clip import (
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_value,
)
from fdnn.optim.blocks.conditional import apply_if_finite, conditionally_transform, skip_not_finite
from fdnn.optim.blocks.constraints import keep_params_nonnegative, max_norm, project
from fdnn.optim.blocks.decay import add_decayed_weights
from fdnn.optim.blocks.ema import ema
from fdnn.optim.blocks.flatten import flatten
from fdnn.optim.blocks.groups import freeze, masked, names_by_type, partition, set_to_zero
from fdnn.optim.blocks.inject import inject_hyperparams
from fdnn.optim.blocks.l1 import add_l1, proximal_l1
from fdnn.optim.blocks.learning_rate import maximize, scale_by_learning_rate
from fdnn.optim.blocks.noise import add_noise
from fdnn.optim.blocks.normalize import centralize, normalize_by_update_norm, zero_nans
from fdnn.optim.blocks.projections import (
    projection_box,
    projection_l2_ball,
    projection_non_negative,
    projection_simplex,
)
from fdnn.optim.blocks.scaling import identity, scale, scale_by_schedule
from fdnn.optim.blocks.trace import trace
from fdnn.optim.blocks.trust_ratio import scale_by_trust_ratio
from fdnn.optim.core.apply import apply_updates, step
from fdnn.optim.core.chain import (
    OptState,
    chain,
    diagnostics,
    set_hyperparams,
    with_extra_args,
)
from fdnn.optim.core.part import Part
from fdnn.optim.interop.torch_state import from_torch, to_torch
from fdnn.optim.interop.torchopt import TorchOptTransformation, as_torchopt
from fdnn.optim.lamb import lamb
from fdnn.optim.lbfgs import lbfgs
from fdnn.optim.lion import lion, scale_by_lion
from fdnn.optim.lookahead import lookahead
from fdnn.optim.muon import muon, scale_by_muon
from fdnn.optim.nadam import nadam, scale_by_nadam
from fdnn.optim.polyak_sgd import polyak_sgd
from fdnn.optim.radam import radam, scale_by_radam
from fdnn.optim.rmsprop import rmsprop, scale_by_rmsprop
from fdnn.optim.rprop import rprop, scale_by_rprop
from fdnn.optim.sam import sam
from fdnn.optim.schedule_free import schedule_free, schedule_free_eval_params
from fdnn.optim.schedule_free_adamw import schedule_free_adamw
from fdnn.optim.schedule_free_sgd import schedule_free_sgd
from fdnn.optim.sgd import scale_by_momentum, sgd
from fdnn.optim.shampoo import scale_by_shampoo, shampoo
from fdnn.optim.soap import scale_by_soap, soap

__all__ = [
    "OptState",
    "Part",
    "TorchOptTransformation",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_l1",
    "add_noise",
    "ademamix",
    "adopt",
    "apply_if_finite",
    "apply_updates",
    "as_torchopt",
    "asgd",
    "averaged_params",
    "centralize",
    "chain",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_value",
    "conditionally_transform",
    "diagnostics",
    "ema",
    "ema_params",
    "flatten",
    "freeze",
    "from_torch",
    "identity",
    "inject_hyperparams",
    "keep_params_nonnegative",
    "lamb",
    "lbfgs",
    "lion",
    "lookahead",
    "masked",
    "max_norm",
    "maximize",
    "multi_steps",
    "muon",
    "nadam",
    "names_by_type",
    "normalize_by_update_norm",
    "partition",
    "polyak_sgd",
    "project",
    "projection_box",
    "projection_l2_ball",
    "projection_non_negative",
    "projection_simplex",
    "proximal_l1",
    "radam",
    "rmsprop",
    "rprop",
    "sam",
    "scale",
    "scale_by_adadelta",
    "scale_by_adafactor",
    "scale_by_adagrad",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_asgd",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_momentum",
    "scale_by_muon",
    "scale_by_nadam",
    "scale_by_radam",
    "scale_by_rmsprop",
    "scale_by_rprop",
    "scale_by_schedule",
    "scale_by_shampoo",
    "scale_by_soap",
    "scale_by_trust_ratio",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    "set_hyperparams",
    "set_to_zero",
    "sgd",
    "shampoo",
    "skip_not_finite",
    "soap",
    "step",
    "swa",
    "to_torch",
    "trace",
    "with_extra_args",
    "zero_nans",
]
