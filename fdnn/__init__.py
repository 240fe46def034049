"""fdnn: deep learning on PyTorch as pure functions.

Models are pure functions of parameter dicts, optimizers are pairs of pure functions, randomness
is an explicit key, and `torch.func.vmap` makes one run a hundred.
"""

from fdnn import (
    activations,
    compress,
    data,
    initializers,
    inspect,
    losses,
    metrics,
    model,
    nn,
    normalization,
    optim,
    pretrain,
    random,
    schedules,
    train,
    transfer,
    tree,
    types,
    uncertainty,
)
from fdnn.jit import jit
from fdnn.model import Model, functionalize
from fdnn.recipe import Recipe, recipe

__version__ = "0.1.0"

__all__ = [
    "Model",
    "Recipe",
    "activations",
    "compress",
    "data",
    "functionalize",
    "initializers",
    "inspect",
    "jit",
    "losses",
    "metrics",
    "model",
    "nn",
    "normalization",
    "optim",
    "pretrain",
    "random",
    "recipe",
    "schedules",
    "train",
    "transfer",
    "tree",
    "types",
    "uncertainty",
]
