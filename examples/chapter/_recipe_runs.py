"""The runs of study H10: naive starts, the recipe, and the rungs of exercise 8's ladder."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from _dropout import MEASURES, chosen
from torch import nn as torch_nn

from fdnn import (
    data,
    functionalize,
    losses,
    nn,
    optim,
    random,
    recipe,
    schedules,
    study,
    train,
    uncertainty,
)
from fdnn.model import Model

WIDTH, BATCH_SIZE, SAMPLES = 100, 128, 10
Values = dict[str, Any]  # accuracy and loss of test, accuracy of validation, by seed; the rate


class Runs:
    """Builds the arms: nets of 100 units a layer, 10 epochs, the best epoch kept.

    Args:
        raw: Fashion-MNIST.
        standard: with standardized pixels.
        epochs: of every run.
    """

    def __init__(self, raw: data.Splits, standard: data.Splits, epochs: int):
        self.raw, self.standard = (flat(splits) for splits in (raw, standard))
        self.epochs = epochs
        self.per_epoch = -(-len(raw.train.targets) // BATCH_SIZE)
        self.total = epochs * self.per_epoch
        self.pixels = raw.train.inputs[0].numel()
        self.classes = int(raw.train.targets.max()) + 1

    def naive(self, depth: int, optimizer: str, epochs: int) -> study.Experiment:
        """ReLUs as torch initializes them, at a constant rate."""
        sizes = [self.pixels, *[WIDTH] * depth]
        layers: list[Any] = []
        for inputs, outputs in pairwise(sizes):
            layers += [torch_nn.Linear(inputs, outputs), torch_nn.ReLU()]
        net = torch_nn.Sequential(*layers, torch_nn.Linear(WIDTH, self.classes))
        tx = {"SGD": optim.sgd, "Adam": optim.adam}[optimizer](lr=0.01)
        return self._training(functionalize(net), tx)

    def recipe(self, depth: int, epochs: int) -> study.Experiment:
        """What `fdnn.recipe` says, its rate times the swept `step_size`."""
        made = recipe(depth, "classification", width=WIDTH, total_steps=self.total)
        tx = optim.chain(made.transform, optim.scale(1.0))
        return self._training(made.build(self.pixels, self.classes), tx)

    def rung(
        self, depth: int, standardize: bool, schedule: str, epochs: int, **net: Any
    ) -> study.Experiment:
        """A net of the ladder by NAdam, at a constant rate or by 1cycle up to the swept `lr`."""
        model = self.net(depth, **net)
        if schedule == "constant":
            return self._training(model, optim.nadam(), standardize)
        shapes: Any = schedules.one_cycle(1.0, self.total), schedules.one_cycle_momentum(self.total)
        if schedule == "by epoch":
            shapes = [
                lambda count, shape=shape: shape.at((count // self.per_epoch).double())
                for shape in shapes
            ]
        rate, beta1 = shapes
        tx = optim.chain(optim.nadam(betas=(beta1, 0.999)), optim.scale_by_schedule(rate))
        return self._training(model, tx, standardize)

    def net(self, depth: int, **options: Any) -> Model:
        """Build the net of a rung."""
        return functionalize(nn.MLP(self.pixels, WIDTH, self.classes, depth=depth, **options))

    def sampled(self, ladder: study.Study, arm: str, depth: int, **net: Any) -> Values:
        """Measure an arm by the mean probability of several samples, with dropout on."""
        cell = chosen(ladder, arm)
        params, buffers = ladder.parameters(arm, **cell)
        model, (inputs, targets) = self.net(depth, **net), self.standard.test
        rows = []
        for i, seed in enumerate(ladder.seeds):
            own = ({name: x[i] for name, x in tree.items()} for tree in (params, buffers))
            outputs = uncertainty.mc_dropout(
                model, *own, inputs, key=random.key(seed), num_samples=SAMPLES
            )
            probs = uncertainty.categorical(outputs.double()).probs
            right = (probs.argmax(1) == targets).double().mean()
            rows.append([right.item(), uncertainty.nll(probs, targets).item()])
        accuracy, loss = np.array(rows).T
        return {"accuracy": accuracy, "loss": loss, "lr": cell["lr"], "swept": "lr"}

    def _training(self, model: Model, tx: Any, standardize: bool = False) -> study.Experiment:
        splits = self.standard if standardize else self.raw
        return study.training(
            model,
            train.supervised(model, losses.cross_entropy),
            tx,
            splits.train,
            epochs=self.epochs,
            batch_size=BATCH_SIZE,
            evaluate=train.evaluator(model, MEASURES, valid=splits.valid, test=splits.test),
            monitors={"best": train.early_stopping("valid_loss", patience=self.epochs)},
        )


def flat(splits: data.Splits) -> data.Splits:
    return data.Splits(*(part._replace(inputs=part.inputs.flatten(1)) for part in splits))


def read(found: study.Study, arm: str, **fixed: float) -> Values:
    """Read the test numbers of an arm at its best learning rate."""
    cell = chosen(found, arm, **fixed)
    scores = {name: found.values(f"test_{name}", arm, **cell) for name in MEASURES}
    valid = found.values("valid_accuracy", arm, **cell)
    ((swept, rate),) = cell.items()
    return {**scores, "valid": valid, "lr": rate, "swept": swept}
