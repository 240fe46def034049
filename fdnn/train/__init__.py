"""Training: state, loss, step, fit, evaluation and checkpoints, for one run or many at once."""

from fdnn.train.accumulate import accumulate
from fdnn.train.batch_norm import reestimate_batch_norm
from fdnn.train.checkpoint import load, save
from fdnn.train.checkpoints import Checkpoints
from fdnn.train.early_stopping import EarlyStoppingState, early_stopping
from fdnn.train.evaluate import evaluate, evaluator
from fdnn.train.fit import fit
from fdnn.train.gradient import value_and_grad
from fdnn.train.loggers import csv_logger, tensorboard_logger
from fdnn.train.loss_scaling import LossScaleState, LossScaling, dynamic_loss_scaling
from fdnn.train.lr_find import LRFindResult, lr_find
from fdnn.train.monitor import Monitor
from fdnn.train.plateau import plateau
from fdnn.train.precision import Policy, mixed_precision
from fdnn.train.predict import predict
from fdnn.train.shuffle import epoch_order
from fdnn.train.state import TrainState, init
from fdnn.train.step import make_step, supervised
from fdnn.train.weights import LoadedParams, load_params
from fdnn.train.with_loss_scaling import loss_scale, with_loss_scaling

__all__ = [
    "Checkpoints",
    "EarlyStoppingState",
    "LRFindResult",
    "LoadedParams",
    "LossScaleState",
    "LossScaling",
    "Monitor",
    "Policy",
    "TrainState",
    "accumulate",
    "csv_logger",
    "dynamic_loss_scaling",
    "early_stopping",
    "epoch_order",
    "evaluate",
    "evaluator",
    "fit",
    "init",
    "load",
    "load_params",
    "loss_scale",
    "lr_find",
    "make_step",
    "mixed_precision",
    "plateau",
    "predict",
    "reestimate_batch_norm",
    "save",
    "supervised",
    "tensorboard_logger",
    "value_and_grad",
    "with_loss_scaling",
]
