"""Training: state, loss, step, fit and evaluation, for one run or many at once."""

from fdnn.train.batch_norm import reestimate_batch_norm
from fdnn.train.evaluate import evaluate
from fdnn.train.fit import fit
from fdnn.train.lr_find import LRFindResult, lr_find
from fdnn.train.shuffle import epoch_order
from fdnn.train.state import TrainState, init
from fdnn.train.step import make_step, supervised, value_and_grad

__all__ = [
    "LRFindResult",
    "TrainState",
    "epoch_order",
    "evaluate",
    "fit",
    "init",
    "lr_find",
    "make_step",
    "reestimate_batch_norm",
    "supervised",
    "value_and_grad",
]
