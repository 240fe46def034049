"""Gradient accumulation: one step of an optimizer for several micro-batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.branch import either
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.exact import exact_copy
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part, narrow
from fdnn.types import GradientTransformation, ScalarOrSchedule, Tree

__all__ = ["multi_steps"]


def multi_steps(
    inner: GradientTransformation, every_k_schedule: ScalarOrSchedule, use_grad_mean: bool = True
) -> Chain:
    r"""Gather the gradients of $k$ micro-steps, then take one step of `inner` with their mean.

    The first $k - 1$ updates are zero and leave `inner` as it is; the last is that of `inner` for
    $\frac{1}{k} \sum_{i=1}^k g_i$. If all micro-batches have one size, and the loss is a mean over
    its batch, that is the step on the whole batch.

    `inner` counts its own steps, which its schedules follow; the count of the whole is that of
    micro-steps. Its state is the slot `inner`. Run eagerly, micro-steps do not call it; under
    transforms they do, and what it says is not used. Gradients are summed in float32 where
    parameters have half precision.

    Args:
        inner: the optimizer.
        every_k_schedule: $k$, at least 1: an integer, a 0-d tensor (the hyperparameter `every_k`),
            or a schedule of the number of steps that `inner` has taken.
        use_grad_mean: whether `inner` is given the mean of the gradients; otherwise their sum.

    Returns:
        A transformation with the diagnostics `mini_step`, the gradients that wait for a step, and
        `has_updated`, whether the last update was a step. Extra arguments of `update` reach `inner`
        as the last micro-step passes them.

    Raises:
        ValueError: `every_k_schedule` is a number below 1 or not whole.

    Example:
        >>> from fdnn import optim
        >>> params = {"w": torch.ones(1)}
        >>> tx = multi_steps(optim.sgd(lr=0.1), 2)
        >>> state = tx.init(params)
        >>> for gradient in (1.0, 3.0):
        ...     updates, state = tx.update({"w": torch.tensor([gradient])}, state, params)
        ...     print(updates["w"])
        tensor([0.])
        tensor([-0.2000])

    References:
        The name and the arguments are those of optax's `MultiSteps`, which calls `inner` on
        micro-steps too. Its `should_skip_update_fn` is `skip_not_finite` around this.
    """
    is_fixed = not callable(every_k_schedule)
    if is_fixed and not isinstance(every_k_schedule, Tensor):
        is_whole = isinstance(every_k_schedule, int) and not isinstance(every_k_schedule, bool)
        if not is_whole or every_k_schedule < 1:  # type: ignore[operator]
            raise ValueError(
                "`every_k_schedule` must be a whole number of at least 1, a 0-d tensor or a "
                f"schedule, got {every_k_schedule}"
            )
    inner = chain(inner)

    def init(params: Tree) -> dict[str, Tree]:
        state = inner.init(params)
        return {
            "inner": state,
            "acc_grads": tree.zeros_like(exact_copy(params)),
            "mini_step": torch.zeros_like(state.count),
        }

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
        summed = leafwise(lambda a, g: a + g.to(a.dtype), slots["acc_grads"], updates)
        size = slots["mini_step"] + 1
        k = hyper["every_k"] if is_fixed else every_k_schedule(slots["inner"].count)  # type: ignore[operator]
        is_last = size > k - 0.5  # whatever k is rounded to

        def whole_step() -> tuple[Tree, dict[str, Tree]]:
            grads = leafwise(lambda a: a / size, summed) if use_grad_mean else summed
            moves, state = inner.update(grads, slots["inner"], params, **extra)
            empty = tree.zeros_like(summed)
            left = {"inner": state, "acc_grads": empty, "mini_step": torch.zeros_like(size)}
            return narrow(moves, stored), left

        waiting = {"inner": slots["inner"], "acc_grads": summed, "mini_step": size}
        moves, left = either(is_last, whole_step, lambda: (tree.zeros_like(updates), waiting))
        return moves, left, {"mini_step": left["mini_step"], "has_updated": is_last}

    part = Part(
        "multi_steps",
        init,
        update,
        {"every_k": every_k_schedule} if is_fixed else {},
        slots=("inner", "acc_grads", "mini_step"),
        diagnostics=("mini_step", "has_updated"),
        as_is=True,
        is_step=any(part.is_step for part in inner.parts),
    )
    return chain(part)
