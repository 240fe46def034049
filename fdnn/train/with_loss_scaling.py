"""Loss scaling around an optimizer: gradients are scaled, checked, and skipped if they overflow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fdnn import optim, tree
from fdnn.optim.core.branch import either
from fdnn.optim.core.chain import Chain
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import scalar_like
from fdnn.train.loss_scaling import LossScaleState, LossScaling, dynamic_loss_scaling
from fdnn.types import GradientTransformation, Params, Tree

__all__ = ["loss_scale", "unscaled", "with_loss_scaling"]

_SLOT = "loss_scale"


def with_loss_scaling(inner: GradientTransformation, scaling: LossScaling | None = None) -> Chain:
    """Let training steps scale the loss before the gradient is taken, and skip what overflows.

    The step (`train.make_step`) multiplies the loss by the scale in the optimizer's state, and
    divides the gradients by it: what `inner` and all around it sees is not scaled. Small gradients
    of float16 survive so. If a gradient is not finite, the updates are zero, `inner` keeps its
    state and does not count the step, and the scale goes down; gradients that `inner` takes at
    other points (`sam`) are checked too. The step's own count and the model's buffers go on.

    Args:
        inner: the optimizer; its state is the slot `inner`.
        scaling: how the scale moves, `dynamic_loss_scaling()` if left out. Its state is the slot
            `loss_scale`, so that checkpoints hold it, and every lane has its own.

    Returns:
        A transformation with the diagnostics `loss_scale`, which the step used, and `overflow`: 1
        if the step was skipped, else 0.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, random, train
        >>> policy = train.Policy(compute=torch.float16)
        >>> model = train.mixed_precision(functionalize(nn.Linear(4, 2)), policy)
        >>> tx = with_loss_scaling(optim.adamw())
        >>> step = train.make_step(train.supervised(model, F.cross_entropy), tx)
        >>> state = train.init(model, tx, random.key(0))
        >>> batch = torch.full((3, 4), 1e4), torch.tensor([0, 1, 1])
        >>> state, info = step(state, batch)
        >>> info["loss_scale"], info["overflow"], train.loss_scale(state.opt_state)
        (tensor(65536.), tensor(1.), tensor(32768.))

    References:
        Micikevicius and others (2018), "Mixed precision training". The same trajectory as torch's
        loop `scaler.scale(loss).backward(); scaler.step(optimizer); scaler.update()`.
    """
    inner, scaling = optim.chain(inner), scaling or dynamic_loss_scaling()

    def init(params: Tree) -> dict[str, Tree]:
        state = inner.init(params)
        # Made from a count, so that vmap gives every lane a state of its own.
        own = tree.map(lambda x: torch.zeros_like(state.count, dtype=x.dtype) + x, scaling.init())
        return {"inner": state, _SLOT: own}

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: dict[str, Tensor],
        count: Tensor,
        *,
        stored: Tree,
        **extra: Any,
    ) -> tuple[Tree, dict[str, Tree], dict[str, Tensor]]:
        seen: list[Tensor] = []
        finite = torch.ones_like(count, dtype=torch.bool) & tree.all_finite(updates)
        evaluate = extra.get("value_and_grad")

        def watched(params: Params) -> tuple[Tensor, Params]:
            value, grads = evaluate(params)  # type: ignore[misc]
            seen.append(tree.all_finite(grads))
            return value, grads

        if evaluate is not None:
            extra["value_and_grad"] = watched

        def act() -> tuple[Tree, Tree]:
            # Where it will not be used, `inner` gets zeros: derivatives of NaN would be NaN.
            given = either(finite, lambda: updates, lambda: tree.zeros_like(updates))
            moves: tuple[Tree, Tree] = inner.update(given, slots["inner"], params, **extra)
            return moves

        def stay() -> tuple[Tree, Tree]:
            return tree.zeros_like(updates), slots["inner"]

        moves, state = either(finite, act, stay)
        if seen:  # gradients at other points, as of `sam`
            finite = torch.stack([finite, *seen]).all()
            new = moves, state
            moves, state = either(finite, lambda: new, stay)
        used: LossScaleState = slots[_SLOT]
        notes = {_SLOT: used.scale, "overflow": ~finite}
        return moves, {"inner": state, _SLOT: scaling.update(used, finite)}, notes

    part = optim.Part(
        "with_loss_scaling",
        init,
        update,
        slots=("inner", _SLOT),
        diagnostics=(_SLOT, "overflow"),
        as_is=True,
        is_step=any(part.is_step for part in inner.parts),
    )
    return optim.chain(part)


def loss_scale(opt_state: Any) -> Tensor | None:
    """Return what the loss of the next step is to be multiplied by, from the optimizer's state.

    Args:
        opt_state: of an optimizer that has `with_loss_scaling` somewhere in it, or of any other.

    Returns:
        A 0-d float32 tensor; None if the loss is not scaled.

    Example:
        >>> params = {"w": torch.zeros(2)}
        >>> loss_scale(with_loss_scaling(optim.sgd()).init(params))
        tensor(65536.)
        >>> loss_scale(optim.sgd().init(params)) is None
        True
    """
    if not isinstance(opt_state, optim.OptState):
        return None
    if _SLOT in opt_state.slots:
        scale: Tensor = opt_state.slots[_SLOT].scale
        return scale
    found = (loss_scale(slot) for slot in opt_state.slots.values())
    return next((scale for scale in found if scale is not None), None)


def unscaled(grads: Params, scale: Tensor | None) -> Params:
    """Divide gradients by the scale of the loss that they are of.

    Args:
        grads: by dotted name.
        scale: from `loss_scale`.

    Raises:
        ValueError: a gradient is of float16, where it would vanish again.
    """
    if scale is None:
        return grads
    halves = [name for name, value in grads.items() if value.dtype == torch.float16]
    if halves:
        raise ValueError(
            f"`params` must be float32 where the loss is scaled, got float16 at {halves}; "
            "keep them in float32 and compute in float16: `train.mixed_precision`"
        )
    inverse = (1 / (scalar_like(scale, 0.0) + scale)).to(scale.dtype)  # rounded as torch does
    divided: Params = leafwise(lambda g: g * inverse, grads)
    return divided
