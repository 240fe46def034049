"""The contract's rows of `fdnn.train`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from contracts.shared import (
    LINEAR,
    MODEL,
    STEPPED,
    TX,
    Row,
    batch,
    draw,
    key,
    normal,
    optimizer,
    params,
    state,
    weights,
)
from torch import Tensor

from fdnn import metrics, optim, random, schedules, train, tree


def monitor(watch: train.Monitor) -> Row:
    """Three epochs of changing numbers: what it remembers, and the state when it is done."""

    def run(state: train.TrainState, losses: Tensor) -> Any:
        memory = watch.init(state)
        for loss in losses:
            memory, state = watch.update(memory, state, {"loss": loss})
        return watch.finish(memory, state), memory, watch.stopped(memory).to(losses.device)

    def args(lane: int) -> tuple[Any, ...]:
        state = train.init(LINEAR, STEPPED, random.key(lane))
        return state, normal(lane, 3)

    return Row(run, args)


LOSS = train.supervised(MODEL, F.cross_entropy)


STEP = train.make_step(LOSS, TX)


FIND = train.make_step(train.supervised(LINEAR, F.cross_entropy), optim.sgd())


MIXED = train.mixed_precision(MODEL, train.Policy(compute=torch.float64))


SCALING = train.dynamic_loss_scaling(growth_interval=1)


SCALED = train.with_loss_scaling(TX, SCALING)


ROWS: dict[str, Row] = {
    "train.early_stopping": monitor(train.early_stopping("loss", patience=1)),
    "train.plateau": monitor(train.plateau("loss", schedules.reduce_on_plateau(patience=0))),
    "train.predict": Row(
        lambda state, data: train.predict(MODEL, state, data[0], batch_size=2),
        lambda i: (state(i), batch(i)),
        exact=False,
    ),
    "train.evaluator": Row(
        lambda state, data: train.evaluator(MODEL, {"loss": metrics.cross_entropy()}, some=data)(
            state
        ),
        lambda i: (state(i), batch(i)),
        exact=False,
    ),
    "train.accumulate": Row(
        lambda state, batch: train.accumulate(train.value_and_grad(LOSS), 2)(
            state.params, state.buffers, batch, state.key
        ),
        lambda i: (state(i), batch(i)),
        exact=False,
    ),
    "train.dynamic_loss_scaling": Row(
        SCALING.update,
        lambda i: (tree.map(lambda x: x + i, SCALING.init()), torch.tensor(i != 1)),
    ),
    "train.epoch_order": draw(lambda key: train.epoch_order(key, 3, 20)),
    "train.evaluate": Row(
        lambda state, data: train.evaluate(MODEL, state, data, {"accuracy": metrics.accuracy()}),
        lambda i: (state(i), batch(i)),
        exact=False,
    ),
    "train.init": draw(lambda key: train.init(MODEL, TX, key)),
    "train.loss_scale": Row(lambda p: train.loss_scale(SCALED.init(p)), lambda i: (params(i),)),
    "train.lr_find": Row(
        lambda state, data: train.lr_find(FIND, state, [data, data], smoothing=0.5),
        lambda i: (train.init(LINEAR, optim.sgd(), random.key(i)), batch(i)),
        exact=False,
    ),
    "train.make_step": Row(STEP, lambda i: (state(i), batch(i)), exact=False),
    "train.supervised": Row(LOSS, lambda i: (*weights(i), batch(i), *key(i)), exact=False),
    "train.mixed_precision": Row(
        lambda p, b, x, k: MIXED.apply(p, b, x, key=k, train=True),
        lambda i: (*weights(i), batch(i)[0], *key(i)),
        exact=False,
    ),
    "train.with_loss_scaling": Row(
        optimizer(SCALED).fn,
        lambda i: (params(i), tree.map(lambda g: g / (i != 1), params(i + 20))),  # overflow in 1
        exact=False,
    ),
    "train.value_and_grad": Row(
        train.value_and_grad(LOSS), lambda i: (*weights(i), batch(i), *key(i)), exact=False
    ),
}

EXEMPT: dict[str, str] = {
    "train.reestimate_batch_norm": "a loop over batches with a copied module; tested with it",
    "train.csv_logger": "writes a file",
    "train.tensorboard_logger": "writes files",
    "train.fit": "a loop with progress and interruption",
    "train.load": "reads a file",
    "train.load_params": "reads a file or a state_dict of torch",
    "train.save": "writes a file; that it changes nothing is tested with it",
}
