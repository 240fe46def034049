"""Training: state, loss, step, fit, evaluation and checkpoints, for one run or many at once."""

from fdnn.train.batch_norm import reestimate_batch_norm
from fdnn.train.checkpoint import load, save
from fdnn.train.checkpoints import Checkpoints
from fdnn.train.evaluate import evaluate
from fdnn.train.fit import fit
from fdnn.train.lr_find import LRFindResult, lr_find
from fdnn.train.shuffle import epoch_order
from fdnn.train.state import TrainState, init
from fdnn.train.step import make_step, supervised, value_and_grad
from fdnn.train.weights import LoadedParams, load_params

__all__ = [
    "Checkpoints",
    "LRFindResult",
    "LoadedParams",
    "TrainState",
    "epoch_order",
    "evaluate",
    "fit",
    "init",
    "load",
    "load_params",
    "lr_find",
    "make_step",
    "reestimate_batch_norm",
    "save",
    "supervised",
    "value_and_grad",
]
