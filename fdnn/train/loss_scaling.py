"""Dynamic loss scaling, the state machine: how large a factor gradients of float16 allow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn.optim.core.part import scalar_like
from fdnn.types import Scalar

__all__ = ["LossScaleState", "LossScaling", "dynamic_loss_scaling"]


class LossScaleState(NamedTuple):
    """What loss scaling remembers of a run, as 0-d tensors.

    Attributes:
        scale: what the loss of the next step is multiplied by, float32.
        growth_tracker: steps since the scale last changed, int32.
    """

    scale: Tensor
    growth_tracker: Tensor


class LossScaling(NamedTuple):
    """A pair of pure functions.

    Attributes:
        init: `init() -> state`.
        update: `update(state, finite) -> state`, with a boolean: whether all gradients of the step
            were finite. With a stacked state and one of them for each lane, `vmap(update)`.
    """

    init: Callable[[], LossScaleState]
    update: Callable[[LossScaleState, Tensor | bool], LossScaleState]


def dynamic_loss_scaling(
    init_scale: Scalar = 65536.0,
    growth_factor: Scalar = 2.0,
    backoff_factor: Scalar = 0.5,
    growth_interval: int | Tensor = 2000,
) -> LossScaling:
    r"""Keep the scale of the loss as high as gradients allow: torch's GradScaler.

    After a step with a gradient that is not finite the scale $s$ becomes
    $s \cdot \text{backoff\_factor}$. After `growth_interval` finite ones in a row it becomes
    $s \cdot \text{growth\_factor}$, if float32 can hold that.

    Args:
        init_scale: the first scale, above 0.
        growth_factor: above 1.
        backoff_factor: in (0, 1).
        growth_interval: steps, at least 1.

    Returns:
        `init` and `update`.

    Raises:
        ValueError: a value outside its range.

    Example:
        >>> scaling = dynamic_loss_scaling(init_scale=8.0, growth_interval=2)
        >>> state = scaling.init()
        >>> for finite in (False, True, True, True):
        ...     state = scaling.update(state, finite)
        ...     print(state.scale.item(), state.growth_tracker.item())
        4.0 0
        4.0 1
        8.0 0
        8.0 1

    References:
        `torch.amp.GradScaler`, whose arguments, defaults and scales these are.
    """
    rules: tuple[tuple[str, Any, Callable[[Any], bool], str], ...] = (
        ("init_scale", init_scale, lambda x: 0 < x < math.inf, "above 0"),
        ("growth_factor", growth_factor, lambda x: 1 < x < math.inf, "above 1"),
        ("backoff_factor", backoff_factor, lambda x: 0 < x < 1, "in (0, 1)"),
        ("growth_interval", growth_interval, lambda x: x >= 1 and x == int(x), "at least 1, whole"),
    )
    for name, value, holds, rule in rules:
        if not isinstance(value, Tensor) and not holds(value):
            raise ValueError(f"`{name}` must be {rule}, got {value}")

    def init() -> LossScaleState:
        return LossScaleState(torch.zeros(()) + init_scale, torch.zeros((), dtype=torch.int32))

    def update(state: LossScaleState, finite: Tensor | bool) -> LossScaleState:
        scale, tracked = state.scale, state.growth_tracker + 1
        finite = torch.as_tensor(finite, device=scale.device)
        due = tracked == growth_interval
        grown = _times(scale, growth_factor)
        larger = torch.where(due & grown.isfinite(), grown, scale)
        return LossScaleState(
            torch.where(finite, larger, _times(scale, backoff_factor)),
            torch.where(finite & ~due, tracked, torch.zeros_like(tracked)),
        )

    return LossScaling(init, update)


def _times(scale: Tensor, factor: Scalar) -> Tensor:
    """Multiply in double precision, and round once, as torch does."""
    return (scale * (scalar_like(scale, 0.0) + factor)).to(scale.dtype)
