"""Lookahead: slow weights that follow an optimizer's fast ones."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.exact import exact_copy
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part, narrow, widen
from fdnn.types import GradientTransformation, Scalar, ScalarOrSchedule, Tree

__all__ = ["lookahead"]


def lookahead(
    inner: GradientTransformation,
    sync_period: Scalar = 5,
    slow_step_size: ScalarOrSchedule = 0.5,
) -> Chain:
    r"""Let an optimizer run ahead for some steps, then go only part of the way.

    After every `sync_period` steps of `inner`, $\phi \leftarrow \phi + \alpha (\theta - \phi)$ and
    $\theta \leftarrow \phi$, where $\theta$ are the parameters and $\phi$ the slow weights, at
    first equal to them. Gradients are taken at $\theta$, which is what `update` moves and training
    sees. Validate and test at $\phi$: `state.slots["slow_params"]`.

    The slow weights of half-precision parameters are float32. `inner` keeps its state through a
    synchronization. It is the slot `inner`, in which `set_hyperparams` and `diagnostics` look too.

    Args:
        inner: a whole optimizer: what it returns is added to parameters.
        sync_period: a whole number of steps, at least 1. The slow weights move at every step whose
            number, counted from 1, is a multiple of it.
        slow_step_size: $\alpha$, in [0, 1]; 1 leaves the parameters to `inner`.

    Raises:
        ValueError: a value outside its range, or `update` is called without `params`.

    Example:
        >>> from fdnn import optim
        >>> tx = lookahead(optim.sgd(lr=0.1), sync_period=2, slow_step_size=0.5)
        >>> params = {"w": torch.ones(1)}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = optim.step(tx, params, {"w": torch.ones(1)}, state)
        ...     print(params["w"], state.slots["slow_params"]["w"])
        tensor([0.9000]) tensor([1.])
        tensor([0.9000]) tensor([0.9000])

    References:
        Zhang, Lucas, Hinton, Ba (2019), "Lookahead optimizer: k steps forward, 1 step back". The
        paper's $k$ is `sync_period`. Of its treatments of the inner state, this is the one that
        leaves it alone, as optax and the authors' code do by default. In optax the parameters are
        a pair of fast and slow ones; here they keep their type.
    """
    check(sync_period=(sync_period, 1.0, math.inf), slow_step_size=(slow_step_size, 0.0, math.inf))
    if isinstance(slow_step_size, Real) and slow_step_size > 1:
        raise ValueError(f"`slow_step_size` must be in [0, 1], got {slow_step_size}")
    if callable(sync_period) or (
        isinstance(sync_period, Real) and not float(sync_period).is_integer()
    ):
        raise ValueError(f"`sync_period` must be a whole number of steps, got {sync_period}")
    inner = chain(inner)

    def init(params: Tree) -> dict[str, Tree]:
        return {"slow_params": exact_copy(params), "inner": inner.init(params)}

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        *,
        stored: Tree,
        **extra: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        steps, state = inner.update(updates, slots["inner"], params, **extra)
        share = hyper["slow_step_size"]
        # Rounded, so that arithmetic on a sweep's stacked periods cannot miss every step.
        is_due = torch.remainder(count + 1, torch.round(hyper["sync_period"])) == 0
        old = widen(slots["slow_params"])
        fast, ahead = widen(params), widen(steps)
        slow = leafwise(
            lambda s, p, u: torch.where(is_due, s + (p + u - s) * share, s), old, fast, ahead
        )
        moved = leafwise(lambda s, p, u: torch.where(is_due, s - p, u), slow, fast, ahead)
        slow = narrow(slow, slots["slow_params"])
        return narrow(moved, params), {"slow_params": slow, "inner": state}, {}

    return chain(
        Part(
            "lookahead",
            init,
            update,
            {"sync_period": sync_period, "slow_step_size": slow_step_size},
            slots=("slow_params", "inner"),
            as_is=True,
            is_step=True,
            needs_params="`lookahead` interpolates them",
        )
    )
