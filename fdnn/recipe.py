"""A good start in one call: the defaults that the field has settled on, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import Tensor

from fdnn import losses, nn, optim, schedules
from fdnn.model import Model, functionalize
from fdnn.types import GradientTransformation, ScalarOrSchedule

__all__ = ["Recipe", "recipe"]

Task = Literal["classification", "binary", "regression"]

DEEP = 6  # hidden layers from which a plain stack is hard to train


class _Style(NamedTuple):
    """A way to build a network, in the words of `nn.MLP`, and why."""

    activation: str
    norm: Literal["batch"] | None
    rates: tuple[float, float]  # constant, and highest of 1cycle: the best on Fashion-MNIST
    choices: dict[str, str]


_HE = "He's: keeps the size of signals through activations that cut off one half"
_STYLES = {
    "shallow": _Style(
        "relu",
        None,
        (0.01, 0.03),
        {
            "activation": "ReLU: the fastest, and as good where gradients have not far to go",
            "initialisation": _HE,
            "normalization": "none: with few layers it costs more than it brings",
        },
    ),
    "deep": _Style(
        "silu",
        "batch",
        (1e-3, 5e-3),
        {
            "activation": "Swish (SiLU): smooth, and no unit of it can die",
            "initialisation": _HE,
            "normalization": "batch, before the activation: keeps signals in range all along",
        },
    ),
    "self-normalizing": _Style(
        "selu",
        None,
        (0.003, 0.01),
        {
            "activation": "SELU: pulls mean and variance to 0 and 1 by itself",
            "initialisation": "LeCun's: what SELU's constants presume, as standardized inputs",
            "normalization": "none: it is in the activation",
        },
    ),
}
_CRITERIA: dict[str, tuple[Callable[[Any, Any], Tensor], str]] = {
    "classification": (losses.cross_entropy, "logits, into cross-entropy; no softmax before it"),
    "binary": (losses.binary_cross_entropy_with_logits, "a logit; no sigmoid before the loss"),
    "regression": (losses.mse_loss, "linear: an activation there would bound what can be said"),
}


class Recipe(NamedTuple):
    """What `recipe` chose.

    Attributes:
        build: `build(in_features, out_features) -> Model`.
        criterion: the loss for the task, `criterion(output, target) -> 0-d tensor`.
        transform: the optimizer, with the schedule in it.
        schedule: the learning rate: a function of the step count, or a number.
        choices: each choice and its reason, in words.
    """

    build: Callable[[int, int], Model]
    criterion: Callable[[Any, Any], Tensor]
    transform: GradientTransformation
    schedule: ScalarOrSchedule
    choices: dict[str, str]


def recipe(
    depth: int,
    task: Task = "classification",
    *,
    width: int = 100,
    total_steps: int | None = None,
    self_normalizing: bool = False,
    dropout: float = 0.0,
) -> Recipe:
    """Choose network, loss, optimizer and schedule for tabular data or small images.

    - Up to five hidden layers: ReLU (the fastest, and as good where gradients have not far to go),
      He's initialisation (keeps the size of signals through it), no normalization (with few layers
      it costs more than it brings), Nesterov's momentum of 0.9 (steady, and as good as any at its
      rate).
    - From six: Swish (smooth, and no unit of it can die), He's initialisation, batch normalization
      before the activation (keeps signals in range all along, not only at the start), AdamW (one
      rate suits nearly all deep networks).
    - With `self_normalizing`, whatever the depth: SELU, LeCun's initialisation, alpha dropout, no
      normalization, and Nesterov's momentum. Standardize the inputs.

    The schedule is 1cycle if `total_steps` is known, which gets the most out of a fixed number of
    steps; otherwise a constant rate, to be lowered when the validation loss stands still
    (`train.plateau`). Weight decay acts on weights alone, not on biases and norms.
    Keep the parameters of the best validation loss (`train.early_stopping`).

    Args:
        depth: number of hidden layers.
        task: "classification": targets are class indices; "binary": targets are 0.0 or 1.0;
            "regression": targets are real.
        width: units of a hidden layer.
        total_steps: the steps of the whole run (epochs times batches), if known.
        self_normalizing: build a self-normalizing network.
        dropout: probability of dropping a hidden unit.

    Returns:
        A `Recipe`. Its parts are ordinary ones: replace what you know better.

    Raises:
        ValueError: `depth` is negative, or `task` is none of the three.

    Example:
        >>> import torch
        >>> from fdnn import random, train
        >>> chosen = recipe(2, "classification", width=16, total_steps=100)
        >>> model = chosen.build(8, 3)
        >>> step = train.make_step(train.supervised(model, chosen.criterion), chosen.transform)
        >>> state = train.init(model, chosen.transform, random.key(0))
        >>> state, info = step(state, (torch.ones(4, 8), torch.tensor([0, 1, 2, 0])))
        >>> print(chosen.choices["activation"])
        ReLU: the fastest, and as good where gradients have not far to go

    References:
        Géron (2025), "Hands-on machine learning with Scikit-Learn and PyTorch", chapter "Training
        deep neural networks", the guidelines at its end; here given numbers.
    """
    if depth < 0:
        raise ValueError(f"`depth` must be at least 0, got {depth}")
    if task not in _CRITERIA:
        raise ValueError(f"`task` must be one of {list(_CRITERIA)}, got {task!r}")
    deep = depth >= DEEP and not self_normalizing
    style = _STYLES["self-normalizing" if self_normalizing else "deep" if deep else "shallow"]
    criterion, output = _CRITERIA[task]

    def build(in_features: int, out_features: int) -> Model:
        return functionalize(
            nn.MLP(
                in_features,
                width,
                out_features,
                depth=depth,
                activation=style.activation,
                norm=style.norm,
                dropout=dropout,
            )
        )

    rate, highest = style.rates
    schedule: ScalarOrSchedule = (
        rate if total_steps is None else schedules.one_cycle(highest, total_steps)
    )
    optimizer = _adamw(schedule) if deep else _nesterov(schedule)
    return Recipe(
        build,
        criterion,
        optimizer,
        schedule,
        {
            **style.choices,
            "output": output,
            "optimizer": (
                "AdamW: one rate suits nearly all deep networks"
                if deep
                else "Nesterov's momentum of 0.9: steady, and as good as any at its rate"
            ),
            "schedule": (
                f"constant {rate}: lower it when the validation loss stands still "
                "(`train.plateau`), or say `total_steps`"
                if total_steps is None
                else f"1cycle up to {highest}: the most out of a fixed number of steps"
            ),
            "regularization": (
                "weight decay of weights, not of biases and norms; keep the parameters of the best "
                "validation loss (`train.early_stopping`)"
            ),
        },
    )


def _nesterov(lr: ScalarOrSchedule) -> GradientTransformation:
    return optim.chain(
        optim.add_decayed_weights(1e-4, _is_matrix), optim.sgd(lr, momentum=0.9, nesterov=True)
    )


def _adamw(lr: ScalarOrSchedule) -> GradientTransformation:
    return optim.chain(
        optim.scale_by_adam(),
        optim.add_decayed_weights(0.01, _is_matrix),
        optim.scale_by_learning_rate(lr),
    )


def _is_matrix(path: str, leaf: Any) -> bool:
    """Tell weights from biases and from the scales and shifts of norms."""
    is_matrix: bool = leaf.ndim > 1
    return is_matrix
