"""Rprop: only the signs of the gradients count."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.learning_rate import maximize as turn_around
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.moments import where
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["rprop", "scale_by_rprop"]

Pair = tuple[ScalarOrSchedule, ScalarOrSchedule]


def scale_by_rprop(
    lr: ScalarOrSchedule = 1e-2, etas: Pair = (0.5, 1.2), step_sizes: Pair = (1e-6, 50.0)
) -> Chain:
    r"""Give each coordinate its own step size, which grows while the gradient keeps its sign.

    With $\Delta_0 = \text{lr}$ and $s_t = \text{sign}(g_t g_{t-1})$, $\Delta_t$ is $\Delta_{t-1}$
    times $\eta^+$, 1 or $\eta^-$ for $s_t = 1$, 0 or $-1$, and lies between the two `step_sizes`.
    The step is $-\text{sign}(g_t) \Delta_t$; after a change of sign $g_t$ counts as 0, so that
    the coordinate stays and forgets. What comes out is a step, to which no learning rate needs to
    be applied.

    Args:
        lr: the first step size; later values do nothing.
        etas: $(\eta^-, \eta^+)$, in (0, 1) and above 1; in the state `eta_minus` and `eta_plus`.
        step_sizes: the smallest and the largest; in the state `step_size_min`, `step_size_max`.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> tx = scale_by_rprop(lr=0.1)
        >>> state = tx.init({"w": torch.ones(2)})
        >>> for g in ([0.5, -2.0], [0.1, 3.0]):
        ...     updates, state = tx.update({"w": torch.tensor(g)}, state)
        ...     print(updates["w"])
        tensor([-0.1000,  0.1000])
        tensor([-0.1200, -0.0000])

    References:
        Riedmiller, Braun (1993), "A direct adaptive method for faster backpropagation learning:
        the RPROP algorithm". As in torch nothing takes back the step before a change of sign
        (Igel, Hüsken, 2000, call it iRprop-).
    """
    check(
        lr=(lr, 0.0, math.inf),
        eta_minus=(etas[0], 0.0, 1.0),
        eta_plus=(etas[1], 1.0, math.inf),
        step_size_min=(step_sizes[0], 0.0, math.inf),
        step_size_max=(step_sizes[1], 0.0, math.inf),
    )
    if any(isinstance(eta, Real) and eta in (0, 1) for eta in etas):
        raise ValueError(f"`etas` must be above 0 and below 1, and above 1, got {etas}")

    def init(params: Tree) -> dict[str, Tree]:
        return {"prev": tree.zeros_like(params), "step_size": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        first = where(count == 0, hyper["lr"], 0.0)
        minus, plus = hyper["eta_minus"], hyper["eta_plus"]
        low, high = hyper["step_size_min"], hyper["step_size_max"]
        # Of signs, since the product of two small gradients would underflow.
        agreement = leafwise(
            lambda g, prev: torch.sign(g) * torch.sign(prev), updates, slots["prev"]
        )

        def resized(size: Any, same: Any) -> Any:
            size = size + first
            size = torch.where(same > 0, size * plus, torch.where(same < 0, size * minus, size))
            return torch.clamp(size, low, high)

        size = leafwise(resized, slots["step_size"], agreement)
        g = leafwise(lambda g, same: torch.where(same < 0, 0.0, g), updates, agreement)
        steps = leafwise(lambda g, size: -torch.sign(g) * size, g, size)
        return steps, {"prev": g, "step_size": size}, {}

    hyperparams = {
        "lr": lr,
        "eta_minus": etas[0],
        "eta_plus": etas[1],
        "step_size_min": step_sizes[0],
        "step_size_max": step_sizes[1],
    }
    slots = ("prev", "step_size")
    return chain(
        Part("rprop", init, update, hyperparams, slots=slots, is_step=True, elementwise=True)
    )


def rprop(
    lr: ScalarOrSchedule = 1e-2,
    etas: Pair = (0.5, 1.2),
    step_sizes: Pair = (1e-6, 50.0),
    *,
    maximize: bool = False,
) -> Chain:
    """Rprop: torch.optim.Rprop's arguments, defaults and trajectory.

    Meant for gradients of the whole data set: the noise of small batches changes signs.

    Args:
        lr: the first step size; later values do nothing.
        etas: factors of the step size after a change of sign, in (0, 1), and without, above 1.
        step_sizes: the smallest and the largest step size.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> from fdnn import optim
        >>> tx = rprop(lr=0.1)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> params, list(state.slots)
        ({'w': tensor([0.9000])}, ['prev', 'step_size'])

    References:
        Riedmiller, Braun (1993), "A direct adaptive method for faster backpropagation learning:
        the RPROP algorithm".
    """
    return chain(
        *([turn_around()] if maximize else []),
        scale_by_rprop(lr, etas, step_sizes),
    )
