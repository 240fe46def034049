"""Trainings of a small network with dropout, each on data and settings of its own, as lanes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn, vmap

import fdnn
from fdnn import functionalize, initializers, optim, random, train, tree, uncertainty
from fdnn.model import Model

HIDDEN, BATCH_SIZE, LENGTH_SCALE = 50, 128, 1e-2
STEPS_PER_CALL = 4
ELEMENTS = 2**19  # of the largest tensor made at once, beside the steps: 2 MiB, for the cache
Done = Callable[[str, float], None]
"""`done(what, fraction)` is told how much of the work is done."""


class Lane(NamedTuple):
    """What one training sees. Many are one `Lane` of stacked tensors.

    Attributes:
        x: features to train on, `(rows, features)`, standardised.
        y: targets, `(rows, 1)`, standardised.
        held_x: features to predict at, standardised as `x` was.
        held_y: their targets, as they are.
        shift: mean of the targets that were trained on.
        scale: their standard deviation.
        rate: probability of dropout.
        tau: precision of the noise, in units of `held_y`.
    """

    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    shift: Tensor
    scale: Tensor
    rate: Tensor
    tau: Tensor


class Network(nn.Module):
    """One hidden layer, dropout before each linear layer, its rate a buffer: lanes differ in it."""

    def __init__(self, features: int):
        super().__init__()
        self.hidden, self.output = nn.Linear(features, HIDDEN), nn.Linear(HIDDEN, 1)
        self.register_buffer("rate", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Predict the target, `(batch, 1)`."""
        return self.output(self.dropout(self.hidden(self.dropout(x)).relu()))

    def dropout(self, x: Tensor) -> Tensor:
        """Do what `F.dropout` does, which wants its rate as a number."""
        return torch.where(torch.rand_like(x) < self.rate, 0.0, x / (1 - self.rate))


def run(
    lanes: Sequence[Lane], key: Tensor, *, epochs: int, samples: int, chunk_size: int, done: Done
) -> tuple[Tensor, Tensor]:
    """Train and score the lanes, some at a time; return RMSE and log-likelihood of each.

    Their tensors have the same shapes. A chunk has the most lanes that divide their number.
    """
    size = max(n for n in range(1, chunk_size + 1) if len(lanes) % n == 0)
    model = functionalize(Network(lanes[0].x.shape[1]))
    fit, score = trainer(model, len(lanes[0].x), epochs), scorer(model, samples)
    keys_fit, keys_score = (random.split(k, len(lanes)) for k in random.split(key))
    scores = []
    for i in range(0, len(lanes), size):

        def at(what: str, fraction: float, i: int = i) -> None:
            done(what, (i + size * fraction) / len(lanes))

        chunk = tree.stack(list(lanes[i : i + size]))
        params = fit(chunk, keys_fit[i : i + size], at)
        scores.append(score(params, chunk, keys_score[i : i + size], at))
    rmse, ll = zip(*scores, strict=True)
    return torch.cat(rmse), torch.cat(ll)


def trainer(model: Model, rows: int, epochs: int) -> Callable[[Lane, Tensor, Done], Any]:
    """Return `fit(lanes, keys, done)`, which gives the parameters after training."""
    tx = optim.adam(lr=1e-3, eps=1e-8)

    def loss(params: Any, buffers: Any, batch: Any, key: Tensor) -> Any:
        x, y, penalty = batch
        output, buffers = model.apply(params, buffers, x, key=key, train=True)
        squares = params["hidden.weight"].square().sum() + params["output.weight"].square().sum()
        return F.mse_loss(output, y) + penalty * squares, buffers

    step = train.make_step(loss, tx)

    def init(key: Tensor, rate: Tensor) -> train.TrainState:
        rules = {"weight": initializers.glorot_uniform(), "bias": initializers.zeros}
        return train.init(model, tx, key, **rules)._replace(buffers={"rate": rate})

    def order(key: Tensor, epoch: Tensor) -> Tensor:
        return train.epoch_order(key, epoch, rows)

    orders = vmap(vmap(order, in_dims=(0, None)), in_dims=(None, 0))  # of all lanes, some epochs

    def several(state: train.TrainState, lane: Lane, penalty: Tensor, *indices: Tensor) -> Any:
        for index in indices:
            state, _ = step(state, (lane.x[index], lane.y[index], penalty))
        return state

    steps = fdnn.jit(vmap(several), donate_argnums=0)

    def fit(lanes: Lane, keys: Tensor, done: Done) -> Any:
        # tau = l^2 (1 - p) / (2 N penalty): the same formula gives the penalty for a tau.
        penalty = uncertainty.model_precision(lanes.rate, LENGTH_SCALE, lanes.tau, rows)
        state = tree.map(torch.clone, vmap(init)(keys, lanes.rate))
        for some in torch.arange(epochs).split(max(1, ELEMENTS // (len(keys) * rows))):
            for indices in orders(state.key, some):
                batches = indices.split(BATCH_SIZE, dim=1)
                for i in range(0, len(batches), STEPS_PER_CALL):
                    state = steps(state, lanes, penalty, *batches[i : i + STEPS_PER_CALL])
            done("training", (some[-1].item() + 1) / epochs)
        return state.params

    return fit


def scorer(model: Model, samples: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return `score(params, lanes, keys, done)`: RMSE and log-likelihood of the held rows.

    Passes come in parts of equal size, each forgotten at once: of all, the mean is the mean of
    their means, and the likelihood that of their likelihoods.
    """

    def part(
        params: Any, lane: Lane, key: Tensor, number: Tensor, passes: int
    ) -> tuple[Tensor, Tensor]:
        key = random.fold_in(key, number)
        buffers, options = {"rate": lane.rate}, {"num_samples": passes, "chunk_size": None}
        outputs = uncertainty.mc_dropout(model, params, buffers, lane.held_x, key=key, **options)
        outputs = outputs * lane.scale + lane.shift
        ll = uncertainty.predictive_log_likelihood(outputs, lane.held_y, lane.tau)
        return outputs.mean(0), ll

    fast = fdnn.jit(vmap(part, in_dims=(0, 0, 0, None, None)))

    def score(params: Any, lanes: Lane, keys: Tensor, done: Done) -> tuple[Tensor, Tensor]:
        most = max(1, ELEMENTS // (HIDDEN * lanes.held_y.numel()))
        passes = max(n for n in range(1, most + 1) if samples % n == 0)
        parts = samples // passes
        mean, likelihood = 0.0, torch.tensor(-math.inf, dtype=torch.float64)
        for i in range(parts):
            means, lls = fast(params, lanes, keys, torch.tensor(i), passes)
            mean = mean + means.double() / parts
            likelihood = torch.logaddexp(likelihood, lls.double() - math.log(parts))
            done("predicting", (i + 1) / parts)
        rmse = (mean - lanes.held_y).square().mean((1, 2)).sqrt()
        return rmse, likelihood.mean(1)

    return score
