"""What an estimator trains with: module, optimizer, weighted loss; functions of its parameters."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from fdnn import losses, optim
from fdnn.metrics import Metric
from fdnn.model import Model
from fdnn.nn import MLP
from fdnn.train.step import Loss
from fdnn.types import Buffers, GradientTransformation, Key, Params

__all__ = ["build_module", "build_optimizer", "integer", "mean_loss", "weighted_loss"]

Criterion = Callable[..., Tensor]
"""`criterion(output, target, reduction="none")`: the terms of a loss."""


def integer(name: str, value: Any) -> int:
    """Make Python's integer of a parameter; grids of hyperparameters hold NumPy's."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, got {value!r}") from None


def build_module(
    module: nn.Module | Callable[[int, int], nn.Module] | None,
    sizes: tuple[int, int],
    seed: int,
    **mlp: Any,
) -> nn.Module:
    """Return a network of its own for inputs and outputs of these sizes.

    Args:
        module: a network, which is copied; a function of `sizes` that returns one; or None for an
            `nn.MLP`.
        sizes: features in and out.
        seed: of what the module draws in its making; torch's generator is lent for it.
        **mlp: the MLP's other arguments.

    Raises:
        TypeError: `module`, or what it returns, is no module.
    """
    if isinstance(module, nn.Module):
        return copy.deepcopy(module)
    build: Any = functools.partial(_mlp, **mlp) if module is None else module
    if not callable(build):
        raise TypeError(
            f"`module` must be an nn.Module, a function that returns one, or None, got {module!r}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        built = build(*sizes)
    if not isinstance(built, nn.Module):
        raise TypeError(f"`module` must return an nn.Module, got {built!r}")
    return built


def _mlp(
    in_features: int, out_features: int, hidden_features: Any, depth: Any, **options: Any
) -> nn.Module:
    if isinstance(hidden_features, Integral):
        hidden: int | list[int] = integer("hidden_features", hidden_features)
    else:
        hidden = [integer("hidden_features", size) for size in hidden_features]
    depth = None if depth is None else integer("depth", depth)
    return MLP(in_features, hidden, out_features, depth=depth, **options)


def build_optimizer(
    optimizer: GradientTransformation | Callable[..., GradientTransformation] | None,
    total_steps: int,
    *,
    lr: float | None,
    weight_decay: float | None,
    schedule: Callable[[float, int], Any] | None,
) -> GradientTransformation:
    """Return an optimizer: AdamW, what a function makes of the hyperparameters, or a ready one.

    Args:
        optimizer: a function such as `optim.sgd`, a `GradientTransformation`, or None for AdamW.
        total_steps: the steps of the run, for the schedule.
        lr: the learning rate; None for the optimizer's own.
        weight_decay: likewise.
        schedule: `schedule(lr, total_steps)`, or None for a constant rate.

    Raises:
        ValueError: a hyperparameter that would have no effect, or a schedule without a rate.
    """
    given = {"lr": lr, "weight_decay": weight_decay, "schedule": schedule}
    if isinstance(optimizer, GradientTransformation):
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"`{name}` must be None if `optimizer` is made already, got {value!r}; give "
                    "the function that makes it, such as `optim.sgd`"
                )
        return optimizer
    hyper: dict[str, Any] = {
        name: float(value)
        for name, value in (("lr", lr), ("weight_decay", weight_decay))
        if value is not None
    }
    if schedule is not None:
        if lr is None:
            raise ValueError("`lr` must be given with `schedule`, got None")
        hyper["lr"] = schedule(hyper["lr"], total_steps)
    return (optim.adamw if optimizer is None else optimizer)(**hyper)


def weighted_loss(model: Model, criterion: Criterion, out_features: int) -> Loss:
    r"""Build the loss $\frac{1}{n} \sum_i w_i \ell_i$ of batches `(x, y, w)`.

    With weights of mean 1 over the data its gradient has the expectation of that of the whole
    data's weighted mean, however unequal the weights of the batches are.
    """

    def loss(params: Params, buffers: Buffers, batch: Any, key: Key) -> tuple[Tensor, Buffers]:
        x, y, weight = batch
        output, buffers = model.apply(params, buffers, x, key=key, train=True)
        if getattr(output, "shape", None) != (len(x), out_features):
            raise ValueError(
                f"`module` must return a tensor of shape {(len(x), out_features)}, got "
                f"{tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__}"
            )
        return (weight * _terms(criterion, output, y)).mean(), buffers

    return loss


def mean_loss(criterion: Criterion) -> Metric:
    r"""Measure $\sum_i w_i \ell_i / \sum_i w_i$, of targets that are pairs `(y, w)`."""

    def init() -> tuple[Tensor, Tensor]:
        zero = torch.zeros((), dtype=torch.float64)
        return zero, zero

    def update(
        state: tuple[Tensor, Tensor], output: Tensor, target: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        (total, weights), (y, weight) = state, target
        terms = weight * _terms(criterion, output, y)
        return total.to(terms.device) + terms.sum(), weights.to(terms.device) + weight.sum()

    return Metric(init, update, lambda state: state[0] / state[1])


def _terms(criterion: Criterion, output: Tensor, target: Tensor) -> Tensor:
    return losses.per_example(criterion(output, target, reduction="none"))
