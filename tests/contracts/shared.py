"""What the rows of the contract share: `Row`, arguments by lane, and a small model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fdnn import Model, functionalize, metrics, optim, random, train, tree


class Row(NamedTuple):
    """A pure function, and its arguments in lane i.

    Attributes:
        fn: takes and returns trees of tensors.
        args: the arguments of a lane.
        exact: whether a vmapped or compiled call gives the same bits.
    """

    fn: Callable[..., Any]
    args: Callable[[int], tuple[Any, ...]]
    exact: bool = True


def key(lane: int) -> tuple[Tensor]:
    return (random.key(lane),)


def normal(lane: int, *shape: int) -> Tensor:
    return random.normal(random.key(100 + lane), shape)


def nested(lane: int) -> tuple[Any]:
    return ({"a": normal(lane, 3), "b": (normal(lane + 50, 2, 2), []), "c": {}},)


def two(lane: int) -> tuple[Any, Any]:
    return nested(lane)[0], nested(lane + 7)[0]


def params(lane: int) -> dict[str, Tensor]:
    return {"w": normal(lane, 4, 3), "b": normal(lane + 9, 4), "s": normal(lane, 1)[0]}


def draw(fn: Callable[[Tensor], Any], exact: bool = True) -> Row:
    return Row(fn, key, exact)


def optimizer(tx: Any) -> Row:
    """Three steps on changing gradients: new parameters, and the whole state."""

    def run(params: Any, grads: Any) -> Any:
        state = tx.init(params)
        for factor in (1.0, -0.5, 2.0):
            scaled = tree.map(lambda g, factor=factor: g * factor, grads)
            params, state = optim.step(tx, params, scaled, state)
        return params, state

    return Row(run, lambda lane: (params(lane), params(lane + 20)), exact=False)


def metric(
    m: metrics.Metric, output: Callable[[int], Tensor], target: Callable[[int], Tensor]
) -> Row:
    def run(*batch: Tensor) -> Tensor:
        return m.compute(m.update(m.update(m.init(), *batch), *batch))

    return Row(run, lambda lane: (output(lane), target(lane)), exact=False)


def loss(fn: Callable[..., Tensor], *args: Callable[[int], Tensor]) -> Row:
    """The value of a loss, and its gradient with respect to the first argument."""
    return Row(
        torch.func.grad_and_value(fn), lambda lane: tuple(arg(lane) for arg in args), exact=False
    )


def shares(lane: int) -> Tensor:
    return normal(lane + 30, 5, 3).softmax(-1)


def others(lane: int) -> Tensor:
    return normal(lane + 60, 5, 3)


def labels(lane: int) -> Tensor:
    return random.randint(random.key(lane), (5,), 0, 3, torch.int64)


def logits(lane: int) -> Tensor:
    return normal(lane, 5, 3)


MODEL = functionalize(
    nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
    )
)


TX = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(lr=lambda count: 0.1 / (count + 1)))


LINEAR = functionalize(nn.Linear(4, 3))


STEPPED = optim.chain(optim.sgd(lr=0.1), optim.scale(1.0))


def batch(lane: int) -> tuple[Tensor, Tensor]:
    return normal(lane, 5, 4), labels(lane)


def weights(lane: int) -> tuple[Any, Any]:
    return MODEL.init(random.key(lane))


def state(lane: int) -> train.TrainState:
    return train.init(MODEL, TX, random.key(lane))


def applied(model: Model) -> Row:
    """A forward pass in train mode, of a model with the parameters of `MODEL`."""
    return Row(
        lambda p, b, x, k: model.apply(p, b, x, key=k, train=True),
        lambda i: (*weights(i), batch(i)[0], *key(i)),
        exact=False,
    )
