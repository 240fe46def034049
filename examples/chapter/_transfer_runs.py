"""The runs of h01: bodies, and classifiers of two classes that begin from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _fashion_mnist import stack
from _two_classes import HELD_OUT, Task, binary_accuracy
from torch import Tensor, nn

from fdnn import (
    data,
    functionalize,
    initializers,
    losses,
    metrics,
    optim,
    pretrain,
    random,
    study,
    train,
    transfer,
)

HE = {"weight": initializers.he_uniform(), "bias": initializers.zeros}
LR, HEAD_STEPS = 0.005, 10  # of the chapter
DRAWN_FROM = 4000  # images are drawn from so many of the pool, the other 1 000 are for validation


def body(others: data.Batch) -> nn.Sequential:
    """Build the hidden layers 784-100-100-100."""
    return stack(data.Splits(others, others, others), 3, nn.ReLU)[:-1]


def classifier(others: data.Batch) -> Any:
    """Build model A: eight outputs on the body."""
    return functionalize(nn.Sequential(*body(others), nn.Linear(100, 8)))


def eight_classes(others: data.Batch, test: data.Batch, epochs: int) -> study.Experiment:
    """Train model A as the chapter does."""
    kept = torch.tensor([i for i in range(10) if i not in HELD_OUT])
    among = torch.isin(test.targets, kept)
    unseen = data.Batch(test.inputs[among], torch.searchsorted(kept, test.targets[among]))
    model = classifier(others)
    return study.training(
        model,
        train.supervised(model, losses.cross_entropy),
        optim.sgd(lr=LR),
        others,
        epochs=epochs,
        evaluate=train.evaluator(model, {"accuracy": metrics.accuracy()}, test=unseen),
        **HE,
    )


def autoencoder(others: data.Batch, task: Task, epochs: int) -> study.Experiment:
    """Train the body and its mirror image to give back images, those of the task among them."""
    back = [layer for _ in range(2) for layer in (nn.Linear(100, 100), nn.ReLU())]
    model = functionalize(
        pretrain.Autoencoder(body(others), nn.Sequential(*back, nn.Linear(100, 784)))
    )
    images = torch.cat([others.inputs, task.pool.inputs[:DRAWN_FROM]])
    unseen = task.test.inputs[:1000]
    error = {"error": metrics.mean_squared_error()}
    return study.training(
        model,
        pretrain.reconstruction(model),
        optim.adam(),
        (images,),
        epochs=epochs,
        batch_size=128,
        evaluate=train.evaluator(model, error, test=(unseen, unseen)),
        **HE,
    )


def two_classes(
    others: data.Batch, task: Task, bodies: dict[str, dict[str, Tensor]]
) -> Callable[..., study.Experiment]:
    """Build the experiment of learning two classes from a few images by full-batch steps.

    Args:
        others: what model A was trained on.
        task: the two classes.
        bodies: by name, parameters of bodies, stacked. Seed s has number s modulo how many.
    """
    whole = transfer.replace_head(classifier(others), 1)
    pool = task.pool
    measure = {
        "valid": data.Batch(pool.inputs[DRAWN_FROM:], pool.targets[DRAWN_FROM:]),
        "test": task.test,
    }

    def experiment(
        start: str, trained: str, images: str, labels: int, steps: int, every: int
    ) -> study.Experiment:
        """Build an arm.

        Args:
            start: "scratch", or the name of a body.
            trained: "all"; "head", the body frozen throughout; or "head, then all but the first",
                the chapter's: the head alone for 10 steps, then all layers but the first.
            images: "first" of the pool, the same for all seeds, or "drawn" by each.
            labels: how many.
            steps: in all.
            every: after how many to measure.
        """
        frozen_layers = {"all": 0, "head": -1, "head, then all but the first": 1}[trained]
        model = whole
        if frozen_layers:
            model = transfer.freeze(whole, transfer.by_depth(whole, frozen_layers))
        hidden = [name for name in model.params if name not in ("7.weight", "7.bias")]

        def optimizer(lr: float | Tensor) -> Any:
            tx = optim.sgd(lr=lr)
            if frozen_layers != 1:
                return tx
            return transfer.gradual_unfreezing(tx, [(hidden, HEAD_STEPS)])

        tx = optimizer(LR)
        advance = train.make_step(
            train.supervised(model, losses.binary_cross_entropy_with_logits), tx
        )
        evaluate = train.evaluator(model, {"accuracy": binary_accuracy()}, **measure)

        def init(key: Tensor, lr: float | Tensor = LR) -> dict[str, Any]:
            picks = torch.arange(labels)
            if images == "drawn":  # of more labels the first are the same
                picks = random.permutation(random.fold_in(key, 1), DRAWN_FROM)[:labels]
            if start == "scratch":
                return {"run": train.init(model, optimizer(lr), key, **HE), "images": picks}
            many = bodies[start]
            number = key[1] % len(next(iter(many.values())))  # `key[1]` is the seed
            source = {name: torch.index_select(x, 0, number[None])[0] for name, x in many.items()}
            return {"run": transfer.init(model, optimizer(lr), key, source), "images": picks}

        def step(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
            picks = state["images"]
            run, info = advance(state["run"], (pool.inputs[picks], pool.targets[picks]))
            return {"run": run, "images": picks}, {"loss": info["loss"]}

        return study.from_functions(
            init, step, lambda state: evaluate(state["run"]), num_steps=steps, evaluate_every=every
        )

    return experiment
