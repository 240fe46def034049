"""Normalization as pure functions: what is learned and what runs along are arguments."""

from fdnn.normalization.batch_norm import BatchNormState, batch_norm, init_batch_norm
from fdnn.normalization.group_norm import group_norm
from fdnn.normalization.layer_norm import layer_norm, rms_norm
from fdnn.normalization.weight_standardization import weight_standardize

__all__ = [
    "BatchNormState",
    "batch_norm",
    "group_norm",
    "init_batch_norm",
    "layer_norm",
    "rms_norm",
    "weight_standardize",
]
