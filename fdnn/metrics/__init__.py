"""Metrics as pure functions of a state, so that they vmap over lanes, compile and checkpoint."""

from fdnn.metrics.adapter import from_torchmetrics
from fdnn.metrics.means import (
    MeanState,
    accuracy,
    cross_entropy,
    mean_absolute_error,
    mean_squared_error,
)
from fdnn.metrics.metric import Metric, in_lanes

__all__ = [
    "MeanState",
    "Metric",
    "accuracy",
    "cross_entropy",
    "from_torchmetrics",
    "in_lanes",
    "mean_absolute_error",
    "mean_squared_error",
]
