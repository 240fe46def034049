"""Adagrad: a learning rate for each coordinate, from all its gradients so far."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.descent import descent
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import root
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import Scalar, ScalarOrSchedule, Tree

__all__ = ["adagrad", "scale_by_adagrad"]


def scale_by_adagrad(
    lr_decay: ScalarOrSchedule = 0.0,
    initial_accumulator_value: Scalar = 0.0,
    eps: ScalarOrSchedule = 1e-10,
) -> Chain:
    r"""Divide the gradient by the root of the sum of its squares.

    $s_t = s_{t-1} + g_t^2$, from $s_0$ on; the direction of step $t = 1, 2, \dots$ is
    $g_t / (\sqrt{s_t} + \epsilon) / (1 + (t - 1) \eta)$.

    Args:
        lr_decay: $\eta$: how fast the whole decays besides.
        initial_accumulator_value: $s_0$: a number or a 0-d tensor. It fills the slot `sum` and is
            no hyperparameter of the state.
        eps: $\epsilon$, added to the root.

    Raises:
        TypeError: `initial_accumulator_value` is a schedule.
        ValueError: a value is negative.

    Example:
        >>> tx = scale_by_adagrad()
        >>> grads = {"w": torch.tensor([3.0, -0.1])}
        >>> _, state = tx.update(grads, tx.init(grads))
        >>> tx.update(grads, state)[0]
        {'w': tensor([ 0.7071, -0.7071])}

    References:
        Duchi, Hazan, Singer (2011), "Adaptive subgradient methods for online learning and
        stochastic optimization" (the diagonal case; eps outside the root, as in torch).
    """
    if callable(initial_accumulator_value):
        raise TypeError(
            "`initial_accumulator_value` must be a number or a 0-d tensor: it is used "
            f"only once, got {initial_accumulator_value!r}"
        )
    check(
        lr_decay=(lr_decay, 0.0, math.inf),
        initial_accumulator_value=(initial_accumulator_value, 0.0, math.inf),
        eps=(eps, 0.0, math.inf),
    )

    def filled(x: Tensor) -> Tensor:
        value = (
            initial_accumulator_value * (1 + 1j) if x.is_complex() else initial_accumulator_value
        )
        return (torch.zeros_like(x) + value).to(x.dtype)

    def init(params: Tree) -> dict[str, Tree]:
        return {"sum": tree.map(filled, params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        eps, decay = hyper["eps"], 1 + count * hyper["lr_decay"]
        total = leafwise(lambda s, g: s + g * g, slots["sum"], updates)
        direction = leafwise(lambda g, s: g / (root(s) + eps) / decay, updates, total)
        return direction, {"sum": total}, {}

    return chain(
        Part(
            "adagrad",
            init,
            update,
            {"lr_decay": lr_decay, "eps": eps},
            slots=("sum",),
            elementwise=True,
        )
    )


def adagrad(
    lr: ScalarOrSchedule = 1e-2,
    lr_decay: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    initial_accumulator_value: Scalar = 0.0,
    eps: ScalarOrSchedule = 1e-10,
    *,
    maximize: bool = False,
) -> Chain:
    """Adagrad: torch.optim.Adagrad's arguments, defaults and trajectory.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        lr_decay: after t steps the learning rate is divided by 1 + t * lr_decay.
        weight_decay: factor of an L2 penalty, added to the gradient.
        initial_accumulator_value: what the sums of squares start from; a number or a 0-d tensor.
        eps: added to the root of the sum.
        maximize: climb instead of descend.

    Raises:
        TypeError: `initial_accumulator_value` is a schedule.
        ValueError: a value is negative.

    Example:
        >>> from fdnn import optim
        >>> tx = adagrad(lr=0.1, initial_accumulator_value=3.0)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, state.slots
        ({'w': tensor([0.9500])}, {'sum': {'w': tensor([4.])}})

    References:
        Duchi, Hazan, Singer (2011), "Adaptive subgradient methods for online learning and
        stochastic optimization".
    """
    return descent(
        scale_by_adagrad(lr_decay, initial_accumulator_value, eps),
        lr,
        weight_decay,
        maximize=maximize,
    )
