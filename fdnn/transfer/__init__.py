"""Transfer: parts of trained models frozen, replaced, reused, adapted, released by and by."""

from fdnn.transfer.freezing import freeze, merge, unfreeze
from fdnn.transfer.layers import by_depth, by_type, layers
from fdnn.transfer.lora import lora
from fdnn.transfer.probing import features, truncate
from fdnn.transfer.reusing import Report, rename, reuse
from fdnn.transfer.runs import carry_over, init
from fdnn.transfer.surgery import replace_head
from fdnn.transfer.unfreezing import discriminative, gradual_unfreezing

__all__ = [
    "Report",
    "by_depth",
    "by_type",
    "carry_over",
    "discriminative",
    "features",
    "freeze",
    "gradual_unfreezing",
    "init",
    "layers",
    "lora",
    "merge",
    "rename",
    "replace_head",
    "reuse",
    "truncate",
    "unfreeze",
]
