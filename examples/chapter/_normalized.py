"""What H5 trains, how it times its steps, and what became of each arm."""

from __future__ import annotations

import statistics
import time
from typing import Any, Literal, NamedTuple

import numpy as np
from _chapter import console

from fdnn import data, functionalize, jit, losses, metrics, nn, optim, random, study, train
from fdnn.model import Model

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
BATCH_SIZE = 128
Norm = Literal["batch", "layer"] | None
ARMS: dict[str, Norm] = {"plain": None, "batch norm": "batch", "layer norm": "layer"}


class Arm(NamedTuple):
    """An arm at its best rate.

    Attributes:
        lr: the rate.
        largest: the largest rate whose mean lowest loss is within 10 % of that of the best.
        loss: of validation, `(epochs, seeds)`.
        test: accuracy by seed.
        epochs: to the mark, by seed; one more than there are if never.
        near: to a loss within 5 % of the mark.
    """

    lr: float
    largest: float
    loss: Any
    test: Any
    epochs: Any
    near: Any


def flat(batch: data.Batch) -> data.Batch:
    return batch._replace(inputs=batch.inputs.flatten(1))


def network(splits: data.Splits, norm: Norm, depth: int) -> Model:
    pixels, classes = splits.train.inputs.shape[1], int(splits.train.targets.max()) + 1
    return functionalize(nn.MLP(pixels, 100, classes, depth=depth, activation="silu", norm=norm))


def experiment(
    splits: data.Splits, norm: Norm, depth: int, epochs: int, patience: int
) -> study.Experiment:
    model = network(splits, norm, depth)
    measures = {"loss": metrics.cross_entropy(), "accuracy": metrics.accuracy()}
    return study.training(
        model,
        train.supervised(model, losses.cross_entropy),
        optim.nadam(lr=RATES[0]),
        splits.train,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        evaluate=train.evaluator(model, measures, valid=splits.valid, test=splits.test),
        monitors={"stop": train.early_stopping("valid_loss", patience=patience)},
    )


def step_times(
    splits: data.Splits, depth: int, compiled: bool, rounds: int, steps: int = 50
) -> dict[str, list[float]]:
    """Time the steps of the arms side by side: milliseconds a step by arm, round after round."""
    batch = tuple(part[:BATCH_SIZE] for part in splits.train)
    runs = {}
    for name, norm in ARMS.items():
        model, tx = network(splits, norm, depth), optim.nadam(lr=1e-3)
        step: Any = train.make_step(train.supervised(model, losses.cross_entropy), tx)
        step = jit(step, donate_argnums=0) if compiled else step
        runs[name] = step, step(train.init(model, tx, random.key(0)), batch)[0]
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, (step, state) in runs.items():
            clock = time.perf_counter()
            for _ in range(steps):
                state, _ = step(state, batch)
            spent = 1000 * (time.perf_counter() - clock) / steps
            runs[name] = step, state
            if turn:  # the first warms up
                found[name].append(spent)
    console.print(f"ms a step: { {k: round(statistics.median(v), 2) for k, v in found.items()} }")
    return found


def at_best(found: study.Study, epochs: int) -> dict[str, Arm]:
    """Take every arm at its best rate, and count the epochs to the plain net's best loss."""
    arms: dict[str, Arm] = {}
    for name in ARMS:
        by_rate = found.arms[name].curves["valid_loss"]  # (epochs, rates, seeds)
        lowest = np.nanmin(np.where(np.isnan(by_rate), np.inf, by_rate), 0).mean(1)
        cell = int(lowest.argmin())
        lr, loss = found.cells[cell]["lr"], by_rate[:, cell]
        largest = max(found.cells[i]["lr"] for i in np.flatnonzero(lowest <= 1.1 * lowest.min()))
        mark = np.nanmin(arms["plain"].loss if arms else loss, 0)
        arms[name] = Arm(
            lr,
            largest,
            loss,
            found.values("test_accuracy", name, lr=lr),
            reached(loss, mark, epochs),
            reached(loss, 1.05 * mark, epochs),
        )
    return arms


def reached(loss: Any, mark: Any, epochs: int) -> Any:
    """Return the first epoch, by seed, whose loss is no higher than the mark."""
    there = loss <= mark
    return np.where(there.any(0), there.argmax(0) + 1.0, epochs + 1.0)


def slower(factors: dict[str, list[float]], name: str) -> tuple[float, float, float]:
    """How many times as long a step takes as the plain net's: median, and quartiles of rounds."""
    ratios = np.array(factors[name]) / np.array(factors["plain"])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)
