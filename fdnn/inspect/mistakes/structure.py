"""Layers that do not go together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fdnn.inspect.mistakes.operations import (
    BATCH_NORMS,
    DROPOUTS,
    POOLING,
    WEIGHTED,
    weight_and_bias,
)
from fdnn.inspect.mistakes.report import Finding, listed
from fdnn.inspect.mistakes.trace import Op, upstream
from fdnn.nn import MCDropout

__all__ = ["USELESS", "batch_norm_mistakes", "dropout_mistakes"]

USELESS = "bias before batch norm"

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, MCDropout)


def dropout_mistakes(module: nn.Module, ops: Sequence[Op]) -> list[Finding]:
    """Look for ordinary dropout in a network with SELU, as modules and as functions."""
    layers = dict(module.named_modules())
    self_normalizing = any(isinstance(layer, nn.SELU) for layer in layers.values())
    if not self_normalizing and not any(op.name == "selu" for op in ops):
        return []
    ordinary = [
        name or type(layer).__name__
        for name, layer in layers.items()
        if isinstance(layer, _DROPOUT) and layer.p > 0
    ]
    ordinary += [op.where for op in ops if op.name in DROPOUTS and op.argument(1, "p", 0.5) > 0]
    if not ordinary:
        return []
    return [
        Finding(
            "dropout with selu",
            listed(list(dict.fromkeys(ordinary))),
            "dropout sets units to 0, which is not what selu saturates at, so that mean and "
            "variance leave 0 and 1",
            "nn.AlphaDropout (nn.FeatureAlphaDropout for channels, fdnn.nn.MCAlphaDropout for "
            "Monte Carlo), with a small p such as 0.1",
        )
    ]


def batch_norm_mistakes(ops: Sequence[Op], train: bool) -> list[Finding]:
    """Look for biases that batch norm takes off, and batches without a variance."""
    useless, alone = [], []
    for op in ops:
        if op.name not in BATCH_NORMS or op.input is None:
            continue
        before = upstream(ops, op, POOLING)
        in_use = not train or op.name == "instance_norm" or op.argument(5, "training", False)
        if before is not None and ops[before].name in WEIGHTED and in_use:
            weighted = ops[before]
            over_units = weighted.name != "linear" or weighted.output.ndim == 2
            if over_units and weight_and_bias(weighted)[1] is not None:
                useless.append(weighted.where)
        if op.name == "batch_norm" and op.argument(5, "training", False) and len(op.input) == 1:
            alone.append(op.where)
    found = []
    if useless:
        found.append(
            Finding(
                USELESS,
                listed(useless),
                "batch norm subtracts the mean, and with it the bias, which has no effect",
                "build the layer with bias=False; the norm has a shift of its own",
            )
        )
    if alone:
        found.append(
            Finding(
                "batch norm with a batch of one",
                listed(alone),
                "the statistics are those of one example, which has no variance to its batch",
                "use larger batches and drop a last one of size 1, or layer or group norm",
            )
        )
    return found
