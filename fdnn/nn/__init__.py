"""Layers that torch lacks, as ordinary `nn.Module`s."""

from fdnn.nn.activations import GEGLU, ReGLU, ReLUSquared, SwiGLU, Swish
from fdnn.nn.dropout import MCAlphaDropout, MCDropout
from fdnn.nn.mlp import MLP
from fdnn.nn.residual import Residual
from fdnn.nn.token_encoder import TokenEncoder
from fdnn.nn.weight_standardized import WeightStandardizedConv2d, WeightStandardizedLinear

__all__ = [
    "GEGLU",
    "MLP",
    "MCAlphaDropout",
    "MCDropout",
    "ReGLU",
    "ReLUSquared",
    "Residual",
    "SwiGLU",
    "Swish",
    "TokenEncoder",
    "WeightStandardizedConv2d",
    "WeightStandardizedLinear",
]
