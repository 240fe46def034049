"""Training: state, loss, step, fit and evaluation, for one run or many at once."""

from fdnn.train.evaluate import evaluate
from fdnn.train.fit import fit
from fdnn.train.shuffle import epoch_order
from fdnn.train.state import TrainState, init
from fdnn.train.step import make_step, supervised, value_and_grad

__all__ = [
    "TrainState",
    "epoch_order",
    "evaluate",
    "fit",
    "init",
    "make_step",
    "supervised",
    "value_and_grad",
]
