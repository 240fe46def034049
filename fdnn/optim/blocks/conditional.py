"""Transformations that act on some steps only: on a condition, or where gradients are finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.branch import either
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import GradientTransformation, Tree

__all__ = ["apply_if_finite", "conditionally_transform", "skip_not_finite"]


def conditionally_transform(
    inner: GradientTransformation,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> Chain:
    """Let a transformation act on some steps only; on the others its state stays as it is.

    What happens on the others depends on what `inner` is, as in `masked`. A building block passes
    the updates on unchanged. A whole optimizer leaves the parameters where they are: a raw gradient
    never becomes a step.

    Args:
        inner: a transformation; its state is the slot `inner`, and counts the steps on which it
            acted.
        should_transform_fn: `should_transform_fn(count)` says whether to act; `count` is the number
            of updates before this one, a 0-d tensor. It answers with a boolean 0-d tensor.
        forward_extra_args: whether to call it with the extra arguments of `update` too
            (`value`, for example).

    Returns:
        A transformation with the diagnostic `transformed`: whether `inner` acted last time.

    Example:
        >>> from fdnn import optim
        >>> tx = conditionally_transform(optim.maximize(), lambda count: count % 2 == 1)
        >>> grads = {"w": torch.ones(1)}
        >>> first, state = tx.update(grads, tx.init(grads))
        >>> second, state = tx.update(grads, state)
        >>> first["w"], second["w"]
        (tensor([1.]), tensor([-1.]))

    References:
        optax's `conditionally_transform`, and for whole optimizers its `conditionally_mask`.
    """
    inner = chain(inner)
    is_step = any(part.is_step for part in inner.parts)

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
        acts = torch.as_tensor(should_transform_fn(count, **extra if forward_extra_args else {}))
        moves, state = either(
            acts,
            lambda: inner.update(updates, slots["inner"], params, **extra),
            lambda: (tree.zeros_like(updates) if is_step else updates, slots["inner"]),
        )
        return moves, {"inner": state}, {"transformed": torch.zeros_like(count) + acts}

    part = Part(
        "conditionally_transform",
        lambda params: {"inner": inner.init(params)},
        update,
        slots=("inner",),
        diagnostics=("transformed",),
        as_is=True,
        is_step=is_step,
    )
    return chain(part)


def apply_if_finite(inner: GradientTransformation, max_consecutive_errors: int) -> Chain:
    """Skip the steps whose gradients hold a NaN or an infinity, but not too many in a row.

    On a skipped step the updates are zero, and `inner` stays as it is and does not count. After
    `max_consecutive_errors` of them `inner` is given the gradients whatever they are, so that a run
    that is lost shows it.

    Args:
        inner: a transformation; its state is the slot `inner`.
        max_consecutive_errors: how many steps in a row may be skipped, at least 0.

    Returns:
        A transformation with the diagnostics `applied`, whether `inner` acted last time,
        `notfinite_count`, the bad gradients in a row, and `total_notfinite`, all there have been.

    Raises:
        ValueError: `max_consecutive_errors` is negative.

    Example:
        >>> from fdnn import optim
        >>> tx = apply_if_finite(optim.sgd(lr=0.1), max_consecutive_errors=5)
        >>> params = {"w": torch.ones(1)}
        >>> updates, state = tx.update({"w": torch.tensor([torch.nan])}, tx.init(params), params)
        >>> updates["w"], state.diagnostics["total_notfinite"]
        (tensor([0.]), tensor(1.))

    References:
        optax's `apply_if_finite`.
    """
    if max_consecutive_errors < 0:
        raise ValueError(
            f"`max_consecutive_errors` must be at least 0, got {max_consecutive_errors}"
        )
    return _if_finite("apply_if_finite", inner, max_consecutive_errors)


def skip_not_finite(inner: GradientTransformation) -> Chain:
    """Skip every step whose gradients hold a NaN or an infinity.

    As `apply_if_finite`, without a limit. Around `multi_steps` it leaves bad micro-steps out of
    the mean.

    Args:
        inner: a transformation; its state is the slot `inner`.

    Example:
        >>> from fdnn import optim
        >>> tx = skip_not_finite(optim.adam(lr=0.1))
        >>> params = {"w": torch.ones(1)}
        >>> _, state = tx.update({"w": torch.tensor([torch.inf])}, tx.init(params), params)
        >>> state.slots["inner"].count, state.slots["inner"].slots["exp_avg"]["w"]
        (tensor(0), tensor([0.]))
    """
    return _if_finite("skip_not_finite", inner, None)


def _if_finite(name: str, inner: GradientTransformation, most: int | None) -> Chain:
    inner = chain(inner)
    counts = ("notfinite_count", "total_notfinite")

    def init(params: Tree) -> dict[str, Tree]:
        state = inner.init(params)
        return {"inner": state, **{name: torch.zeros_like(state.count) for name in counts}}

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
        is_finite = torch.ones_like(count, dtype=torch.bool) & tree.all_finite(updates)
        in_a_row = (slots["notfinite_count"] + 1) * ~is_finite
        counted = {
            "notfinite_count": in_a_row,
            "total_notfinite": slots["total_notfinite"] + ~is_finite,
        }
        acts = is_finite if most is None else is_finite | (in_a_row > most)

        def act() -> tuple[Tree, Tree]:
            # Where it will not be used, `inner` gets zeros: derivatives of NaN would be NaN.
            seen = either(acts, lambda: updates, lambda: tree.zeros_like(updates))
            moves: tuple[Tree, Tree] = inner.update(seen, slots["inner"], params, **extra)
            return moves

        moves, state = either(acts, act, lambda: (tree.zeros_like(updates), slots["inner"]))
        return moves, {"inner": state, **counted}, {"applied": acts, **counted}

    part = Part(
        name,
        init,
        update,
        slots=("inner", *counts),
        diagnostics=("applied", *counts),
        as_is=True,
        is_step=any(part.is_step for part in inner.parts),
    )
    return chain(part)
