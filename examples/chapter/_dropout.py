"""What the studies of dropout share: a rate and images that are the run's own, its best cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, vmap

from fdnn import data, functionalize, initializers, losses, metrics, random, study, train
from fdnn.model import Model
from fdnn.types import Buffers, GradientTransformation, Key, Params

MEASURED = 2000  # training images of a run on which it is measured in eval mode
MEASURES = {"accuracy": metrics.accuracy(), "loss": metrics.cross_entropy()}


class Dropout(nn.Module):
    """Dropout whose rate is a buffer, so that runs of one compiled step can differ in it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("p", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return torch.where(torch.rand_like(x) < self.p, 0.0, x / (1 - self.p))


class Classifier(nn.Sequential):
    """Three hidden layers of ReLUs with dropout before each linear layer, and the run's images.

    These are as many as the run has, from the number `start` on.
    """

    def __init__(self, pixels: int, width: int, classes: int):
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs in (pixels, width, width):
            layers += [Dropout(), nn.Linear(inputs, width), nn.ReLU()]
        super().__init__(*layers, Dropout(), nn.Linear(width, classes))
        self.register_buffer("start", torch.zeros((), dtype=torch.int64))


def classifier(splits: data.Splits, width: int) -> Model:
    """Build the net for these images."""
    classes = int(splits.train.targets.max()) + 1
    return functionalize(Classifier(splits.train.inputs[0].numel(), width, classes))


def experiment(
    splits: data.Splits,
    tx: GradientTransformation,
    set_hyper: Callable[..., Any],
    *,
    width: int,
    images: int,
    passes: int,
    epochs: int,
    batch_size: int,
    parts: tuple[str, ...] = ("valid", "test"),
    **options: Any,
) -> study.Experiment:
    """Build the experiment of a net with dropout on `images` images, drawn anew for each seed.

    The images come in random order in the files, so a run takes a stretch of them, which begins at
    a place of its own. The swept `p` is the rate of dropout.

    Args:
        splits: Fashion-MNIST.
        tx: the optimizer.
        set_hyper: `set_hyper(opt_state, **hyper)`, for what else is swept.
        width: units of a hidden layer.
        images: how many a run trains on.
        passes: how often an epoch goes through them; measured is after each epoch.
        epochs: how many.
        batch_size: images in a step.
        parts: of `splits` to be measured on.
        **options: of `study.training`.
    """
    pool, model = splits.train, classifier(splits, width)
    total = len(pool.targets)
    held_out = train.evaluator(model, MEASURES, **{part: getattr(splits, part) for part in parts})

    def own(buffers: Buffers, places: Tensor) -> tuple[Tensor, Tensor]:
        chosen = (buffers["start"] + places) % total
        return pool.inputs[chosen], pool.targets[chosen]

    def loss(params: Params, buffers: Buffers, batch: Any, key: Key) -> tuple[Tensor, Buffers]:
        inputs, targets = own(buffers, batch[0])
        output, buffers = model.apply(params, buffers, inputs, key=key, train=True)
        return losses.cross_entropy(output, targets), buffers

    def on_own(params: Params, buffers: Buffers) -> dict[str, Tensor]:
        inputs, targets = own(buffers, torch.arange(min(MEASURED, images)))
        output, _ = model.apply(params, buffers, inputs)
        right = (output.argmax(1) == targets).float().mean()
        return {"train_accuracy": right, "train_loss": losses.cross_entropy(output, targets)}

    @torch.no_grad()
    def evaluate(state: train.TrainState) -> dict[str, Tensor]:
        measure = vmap(on_own) if state.count.ndim else on_own
        return held_out(state) | measure(state.params, state.buffers)

    plain = study.training(
        model,
        loss,
        tx,
        (torch.arange(images).repeat(passes),),
        epochs=epochs,
        batch_size=batch_size,
        evaluate=evaluate,
        weight=initializers.he_uniform(),
        bias=initializers.zeros,
        **options,
    )

    def init(key: Key, p: Tensor, **hyper: Tensor) -> train.TrainState:
        state = plain.init(key)
        start = random.randint(random.fold_in(key, images), (), 0, total, torch.int64)
        buffers = {name: p.float() if name.endswith("p") else start for name in state.buffers}
        return state._replace(buffers=buffers, opt_state=set_hyper(state.opt_state, **hyper))

    return plain._replace(init=init)


def score(found: study.Study, arm: str, cell: dict[str, float]) -> float:
    """Return the mean validation accuracy of a cell; a run without a number counts as 0."""
    return float(np.nan_to_num(found.values("valid_accuracy", arm, **cell)).mean())


def chosen(found: study.Study, arm: str, **fixed: float) -> dict[str, float]:
    """Return the cell with the best `score`, among those with these values."""
    cells = [cell for cell in found.cells if fixed.items() <= cell.items()]
    return max(cells, key=lambda cell: score(found, arm, cell))
