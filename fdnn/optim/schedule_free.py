"""Schedule-free learning: an average of iterates in place of a decaying learning rate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, OptState, chain, diagnostics
from fdnn.optim.core.check import check
from fdnn.optim.core.exact import Halves, exact_copy, exact_halves, exact_values, moved
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part, narrow, scalar_like, widen
from fdnn.types import GradientTransformation, Params, Scalar, ScalarOrSchedule, Tree

__all__ = ["schedule_free", "schedule_free_eval_params"]

_SLOTS = ("z", "y", "weight_sum", "lr_max", "inner")


def schedule_free(
    inner: GradientTransformation,
    beta: Scalar = 0.9,
    warmup_steps: ScalarOrSchedule = 0,
    r: ScalarOrSchedule = 0.0,
    weight_lr_power: ScalarOrSchedule = 2.0,
) -> Chain:
    r"""Replace an optimizer's momentum and its decaying schedule by averaging.

    There are three points. `inner` moves $z$; $x$ is an average of all $z$; gradients are taken at
    $y$ between the two:

    $y_t = (1 - \beta) z_t + \beta x_t$, $z_{t+1} = z_t + \omega_t u_t$, $x_{t+1} = (1 - c_t) x_t +
    c_t z_{t+1}$,

    where $u_t$ is the step of `inner` for the gradient and the parameters at $y_t$ (so that weight
    decay acts at $y$), $\omega_t = \min(1, t / T)$ with $T$ = `warmup_steps`, and $c_t = w_t / (w_1
    + \dots + w_t)$ with $w_t = t^r \max_{s \le t} (\omega_s \text{lr}_s)^p$, $p$ =
    `weight_lr_power`. $t$ counts from 1, and $\text{lr}_t$ is the hyperparameter `lr` of `inner` at
    that step.

    **Where to evaluate.** The parameters that `update` moves are $y$: training, gradients and the
    training loss are there. $z$ is the slot `z`. Validate, test and export at $x$, which
    `schedule_free_eval_params` derives; go on training from $y$, never from $x$. Batch norm's
    running statistics are gathered at $y$ and are wrong for $x$: evaluate with the buffers that
    `fdnn.train.reestimate_batch_norm` makes of some training batches at $x$, and go on training
    with the old ones.

    Half-precision parameters are rounded values of $y$. Their exact values are the slot `y`
    (float32, by path; nothing for others), and their $z$ is float32 too: otherwise the average
    would stop moving when $c_t$ is small. `inner` sees $y$ in float32.

    Args:
        inner: a whole optimizer with one hyperparameter `lr`, best without momentum and without a
            decaying schedule. Its state is the slot `inner`.
        beta: $\beta$, in (0, 1); constant, because $x$ is derived with it: `set_hyperparams` on it
            in the middle of a run shifts $x$.
        warmup_steps: $T$, steps in which the learning rate grows linearly to `lr`.
        r: power of $t$ in the weights; 0 weighs all steps alike.
        weight_lr_power: power of the largest learning rate so far in the weights.

    Raises:
        ValueError: a value outside its range; `inner` has no hyperparameter `lr` (when
            initialized); or `update` is called without `params`.

    Example:
        >>> from fdnn import optim
        >>> tx = schedule_free(optim.sgd(lr=0.5), beta=0.9)
        >>> params = {"w": torch.ones(1)}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     params, state = optim.step(tx, params, {"w": torch.ones(1)}, state)
        >>> params, state.slots["z"], schedule_free_eval_params(state, params)
        ({'w': tensor([0.2250])}, {'w': tensor([0.])}, {'w': tensor([0.2500])})

    References:
        Defazio et al. (2024), "The road less scheduled". The algorithm there has $r = 0$ and $p =
        2$; both powers are the `schedulefree` package's. optax's `schedule_free` calls a schedule
        of the learning rate with 1 at the first step; here it is 0, as in torch.
    """
    if callable(beta) or (isinstance(beta, Real) and not 0 < beta < 1):
        raise ValueError(f"`beta` must be a constant in (0, 1), got {beta}")
    check(
        beta=(beta, 0.0, 1.0),
        warmup_steps=(warmup_steps, 0.0, math.inf),
        r=(r, 0.0, math.inf),
        weight_lr_power=(weight_lr_power, 0.0, math.inf),
    )
    inner = chain(inner)

    def init(params: Tree) -> dict[str, Tree]:
        state = inner.init(params)
        _learning_rate(state)
        zeros = scalar_like(params, 0.0), scalar_like(params, 0.0)
        values = (exact_copy(params), exact_halves(params), *zeros, state)
        return dict(zip(_SLOTS, values, strict=True))

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
        y, z = exact_values(params, slots["y"]), slots["z"]
        steps, state = inner.update(updates, slots["inner"], y, **extra)

        warmup = _warmup(hyper["warmup_steps"], count)
        lr = _learning_rate(state) * warmup
        lr_max = torch.maximum(slots["lr_max"], lr)
        weight = (count + 1) ** hyper["r"] * lr_max ** hyper["weight_lr_power"]
        total = slots["weight_sum"] + weight
        c = torch.where(total > 0, weight / torch.where(total > 0, total, 1.0), 0.0)

        # x is not needed: its share of y' = beta x' + (1 - beta) z' is (1 - c) (y - (1 - beta) z).
        pull = warmup * (1 - hyper["beta"] * (1 - c))
        wide_y, wide_z, wide_u = widen(y), widen(z), widen(steps)
        moves = leafwise(lambda y, z, u: (z - y) * c + u * pull, wide_y, wide_z, wide_u)
        z = narrow(leafwise(lambda z, u: z + u * warmup, wide_z, wide_u), z)
        moves, halves = moved(params, y, narrow(moves, y), slots["y"])
        values = (z, halves, total, lr_max, state)
        return moves, dict(zip(_SLOTS, values, strict=True)), {"scheduled_lr": lr}

    return chain(
        Part(
            "schedule_free",
            init,
            update,
            {
                "beta": beta,
                "warmup_steps": warmup_steps,
                "r": r,
                "weight_lr_power": weight_lr_power,
            },
            slots=_SLOTS,
            diagnostics=("scheduled_lr",),
            as_is=True,
            needs_params="`schedule_free` moves them",
            is_step=True,
        )
    )


def schedule_free_eval_params(opt_state: OptState, params: Params) -> Params:
    r"""Derive the point at which to evaluate: the average $x = (y - (1 - \beta) z) / \beta$.

    For batch norm see `schedule_free`. Leaves that `schedule_free` does not govern (of other
    groups of a `partition`) are returned as they are.

    Args:
        opt_state: of an optimizer with `schedule_free` in it, of one run: for a stacked state use
            `vmap(schedule_free_eval_params)`.
        params: the parameters $y$ that belong to it.

    Returns:
        The average, in the dtypes of `params`.

    Raises:
        ValueError: there is no `schedule_free` in `opt_state`, or it is stacked.

    Example:
        >>> from fdnn import optim
        >>> tx = optim.schedule_free_sgd(lr=0.5)
        >>> params = {"w": torch.ones(1)}
        >>> params, state = optim.step(tx, params, {"w": torch.ones(1)}, tx.init(params))
        >>> schedule_free_eval_params(state, params)
        {'w': tensor([0.5000])}

    References:
        Defazio et al. (2024), "The road less scheduled".
    """
    found = list(_points(opt_state))
    if not found:
        slots = list(getattr(opt_state, "slots", ()))
        raise ValueError(f"`opt_state` must be of `schedule_free`, got one with slots {slots}")
    for beta, z, halves in found:
        if beta.ndim:
            raise ValueError(
                f"`opt_state` must be of one run, got {tuple(beta.shape)} of them stacked: "
                "use vmap(schedule_free_eval_params)"
            )
        params = _average(params, beta, tree.select(z), halves)
    return params


def _average(params: Params, beta: Tensor, z: dict[str, Tensor], halves: Halves) -> Params:
    """Turn y into x where there is a z, which is given by path."""

    def averaged(path: str, p: Tensor, y: Tensor) -> Tensor:
        return (y + (y - z[path]) * ((1 - beta) / beta)).to(p.dtype) if path in z else p

    new: Params = tree.map_with_path(averaged, params, exact_values(params, halves))
    return new


def _points(opt_state: Any) -> Iterator[tuple[Tensor, Tree, Halves]]:
    """Yield (beta, z, y) of each `schedule_free` in a state, whatever their names became."""
    if not isinstance(opt_state, OptState):
        return
    for name, slot in opt_state.slots.items():
        yield from _points(slot)
        match = re.fullmatch(r"(.*?)(schedule_free(?:_\d+)?\.)?weight_sum", name)
        if match:
            label, own = match[1], match[2] or "schedule_free."
            known = {**opt_state.slots, **opt_state.hyperparams}
            beta, z, y = (
                next(known[n] for n in (label + own + short, label + short) if n in known)
                for short in ("beta", "z", "y")
            )
            yield beta, z, y


def _learning_rate(state: OptState) -> Tensor:
    """Return the learning rate of the last step, wherever it is in a state."""
    found = diagnostics(state)
    if "lr" not in found:
        raise ValueError(
            "`inner` must have one hyperparameter `lr`, which weighs the average; it has "
            f"{sorted(found)}. Give each group of a `partition` a `schedule_free` of its own"
        )
    return found["lr"]


def _warmup(warmup_steps: Tensor, count: Tensor) -> Tensor:
    is_used = warmup_steps > 0
    rising = (count + 1) / torch.where(is_used, warmup_steps, 1.0)
    return torch.where(is_used, rising, 1.0).clamp(max=1.0)
