"""Gradient descent with Polyak's step size."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check, extra_argument
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["polyak_sgd"]

_SMALLEST = torch.finfo(torch.float64).eps  # below which optax takes no step


def polyak_sgd(
    max_learning_rate: ScalarOrSchedule = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: ScalarOrSchedule = 0.0,
    eps: ScalarOrSchedule = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
) -> Chain:
    r"""Descend by a step that the loss itself measures: optax's arguments and defaults.

    $\theta \leftarrow \theta - s \min\{(f - f^*) / (\lVert g \rVert^2 + \epsilon),
    \gamma_{\max}\} g$, with the loss $f$ and its gradient $g$ at $\theta$. The factor before $g$ is
    the diagnostic `step_size`. It is 0 where $\lVert g \rVert^2 + \epsilon$ is below
    $2.2 \cdot 10^{-16}$, as in optax.

    `update` needs the loss as the extra argument `value`, which `train.make_step` passes.

    Args:
        max_learning_rate: $\gamma_{\max}$, the largest step size.
        scaling: $s$, a factor of the step size.
        f_min: $f^*$, a lower bound of the loss. With one that is too high, `"sps"` climbs where the
            loss lies below it.
        eps: $\epsilon$, added to the squared norm of the gradient.
        variant: `"sps"`, or `"sps+"` which takes no step where the loss is below `f_min`.

    Raises:
        ValueError: an argument outside its range, or, when used, `value` is missing or no 0-d
            tensor.

    Example:
        >>> from fdnn import optim
        >>> tx = polyak_sgd()
        >>> params = {"x": torch.tensor([1.0, 2.0])}
        >>> value, grads = (params["x"] ** 2).sum(), {"x": 2 * params["x"]}
        >>> params, state = optim.step(tx, params, grads, tx.init(params), value=value)
        >>> params, state.diagnostics
        ({'x': tensor([0.5000, 1.0000])}, {'step_size': tensor(0.2500)})

    References:
        Loizou, Vaswani, Laradji, Lacoste-Julien (2021), "Stochastic Polyak step-size for SGD: an
        adaptive learning rate for fast convergence".
        Garrigos, Gower, Schaipp (2023), "Function value learning: adaptive learning rates based on
        the Polyak stepsize and function splitting in ERM" (`"sps+"`).
        The formula is that of optax's documentation. optax 0.2.8 itself takes the norm of
        $s g$ instead of $g$, so that its steps are other ones unless $s = 1$.
    """
    check(
        max_learning_rate=(max_learning_rate, 0.0, math.inf),
        scaling=(scaling, 0.0, math.inf),
        f_min=(f_min, -math.inf, math.inf),
        eps=(eps, 0.0, math.inf),
    )
    if variant not in ("sps", "sps+"):
        raise ValueError(f"`variant` must be 'sps' or 'sps+', got {variant!r}")

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        **extra: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        gap = extra_argument(extra, "value", "polyak_sgd") - hyper["f_min"]
        if gap.ndim != 0:
            raise ValueError(f"`value` must be a 0-d tensor, got shape {tuple(gap.shape)}")
        if variant == "sps+":
            gap = gap.clamp(min=0.0)
        size = sum((g.square().sum() for g in tree.leaves(updates)), hyper["eps"])
        is_flat = size <= _SMALLEST
        step = torch.minimum(gap / torch.where(is_flat, 1.0, size), hyper["max_learning_rate"])
        step = torch.where(is_flat, 0.0, step) * hyper["scaling"]
        return leafwise(lambda g: g * -step, updates), {}, {"step_size": step}

    hyperparams = {
        "max_learning_rate": max_learning_rate,
        "scaling": scaling,
        "f_min": f_min,
        "eps": eps,
    }
    part = Part(
        "polyak",
        lambda params: {},
        update,
        hyperparams,
        diagnostics=("step_size",),
        is_step=True,
    )
    return chain(part)
