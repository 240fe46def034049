"""The learning rate range test."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import optim
from fdnn.train.batches import source
from fdnn.train.state import TrainState
from fdnn.train.step import Step

__all__ = ["LRFindResult", "lr_find"]


class LRFindResult(NamedTuple):
    """What a range test saw; one run has no lanes.

    Attributes:
        lrs: the rates, of shape `(steps,)` or `(lanes, steps)`.
        losses: the loss before each step, of the same shape.
        smoothed: their running means, bias-corrected, in float64.
        diverged: the first step whose smoothed loss is out of bounds; the number of steps if none.
        lowest: the rate at which the smoothed loss is lowest before it diverges, float64: about as
            high as it can go, so a `max_lr` for `schedules.one_cycle`.
        suggestion: a tenth of it, a constant rate to start with.
    """

    lrs: Tensor
    losses: Tensor
    smoothed: Tensor
    diverged: Tensor
    lowest: Tensor
    suggestion: Tensor


def lr_find(
    step: Step,
    state: TrainState,
    data: Any,
    *,
    min_lr: float = 1e-4,
    max_lr: float = 1.0,
    steps: int | None = None,
    batch_size: int = 32,
    name: str = "lr",
    smoothing: float = 0.98,
    divergence: float = 4.0,
) -> LRFindResult:
    r"""Train for an epoch at a learning rate that grows at every step, and watch the loss.

    $\eta_t = \text{min\_lr} \cdot (\text{max\_lr} / \text{min\_lr})^{t / (n - 1)}$ in $n$ steps.
    The loss falls where the rate is good, and rises where it is too high. Both are matters of a
    factor of 3: runs that differ in their key alone turn that far apart, so look at several.

    The rate goes into the state as a hyperparameter, so nothing is compiled anew, and the new
    states are thrown away: `state` is what it was.

    Args:
        step: from `make_step`, with a number for the learning rate. For one run it may be compiled,
            `fdnn.jit(step)`.
        state: one run, or many stacked (each with a curve of its own); not changed.
        data: as for `fit`. Tensors are taken in the order of the run's first epoch.
        min_lr: the first rate, above 0.
        max_lr: the last rate, above `min_lr`.
        steps: how many steps, at least 2; those of one epoch, if left out.
        batch_size: examples in a step, if `data` is tensors.
        name: which hyperparameter of the optimizer.
        smoothing: forgetting factor of the running mean of losses, in [0, 1).
        divergence: the smoothed loss is out of bounds when it is not finite, or (for positive
            losses) this many times the lowest before, above 1.

    Returns:
        The curve and the suggestion. On a stacked state every field has lanes in front.

    Raises:
        KeyError: the optimizer has no hyperparameter `name`.
        ValueError: a value outside its range, or the hyperparameter follows a schedule (seen
            where the function is not itself vmapped or compiled).

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, random, train
        >>> model, tx = functionalize(nn.Linear(4, 1)), optim.sgd()
        >>> step = train.make_step(train.supervised(model, F.mse_loss), tx)
        >>> state = train.init(model, tx, random.key(0))
        >>> x = random.normal(random.key(1), (64, 4))
        >>> found = lr_find(step, state, (x, x.sum(1, keepdim=True)), steps=40, batch_size=8)
        >>> found.lrs[[0, -1]], bool(found.suggestion < 0.5)
        (tensor([1.0000e-04, 1.0000e+00], dtype=torch.float64), True)

    References:
        Smith (2017), "Cyclical learning rates for training neural networks" (there the rate grows
        linearly). Factors of 4 and 10 are the field's habit.
    """
    for label, value, holds, rule in (
        ("min_lr", min_lr, min_lr > 0, "above 0"),
        ("max_lr", max_lr, min_lr < max_lr < math.inf, f"above {min_lr:g}"),
        ("smoothing", smoothing, 0 <= smoothing < 1, "in [0, 1)"),
        ("divergence", divergence, divergence > 1, "above 1"),
    ):
        if not holds:
            raise ValueError(f"`{label}` must be {rule}, got {value}")
    batches = source(data, batch_size)
    count = batches.steps if steps is None else steps
    if count < 2:
        raise ValueError(f"`steps` must be at least 2, got {count}")
    ratio = (max_lr / min_lr) ** (1 / (count - 1))

    def scan(state: TrainState) -> tuple[LRFindResult, Tensor]:
        epochs = (batches.picks(state, epoch) for epoch in itertools.count())
        picks = itertools.islice(itertools.chain.from_iterable(epochs), count)
        lrs = min_lr * ratio ** torch.arange(count, dtype=torch.float64, device=state.count.device)
        losses, used = [], []
        for lr, pick in zip(lrs, picks, strict=True):
            opt_state = optim.set_hyperparams(state.opt_state, **{name: lr})
            state, info = step(state._replace(opt_state=opt_state), batches.look_up(pick))
            losses.append(info["loss"].detach())
            used.append(info.get(name, lr))
        return _judged(lrs, torch.stack(losses), smoothing, divergence), torch.stack(used)

    stacked = state.count.ndim > 0
    result, used = torch.vmap(scan)(state) if stacked else scan(state)
    known = not torch.compiler.is_compiling() and not _is_wrapped(used)
    if known and not torch.equal(used.to(result.lrs.dtype), result.lrs):
        raise ValueError(
            f"`step`'s hyperparameter {name!r} must be a number, got a schedule, "
            "which sets it anew at each step"
        )
    return result


def _judged(lrs: Tensor, losses: Tensor, smoothing: float, divergence: float) -> LRFindResult:
    """Smooth the curve, see where it diverges, and suggest a rate."""
    smoothed, mean = [], torch.zeros_like(losses[0], dtype=torch.float64)
    for number, loss in enumerate(losses.to(torch.float64), start=1):
        mean = smoothing * mean + (1 - smoothing) * loss
        smoothed.append(mean / (1 - smoothing**number))
    curve = torch.stack(smoothed)
    finite = torch.where(curve.isfinite(), curve, math.inf)
    lowest = finite.cummin(0).values
    out = ~(curve <= lowest + (divergence - 1) * lowest.abs())
    gone = out.to(torch.int64).cumsum(0) > 0
    best = torch.where(gone, math.inf, curve).argmin(0)
    lowest_at = lrs.index_select(0, best.reshape(1)).reshape(())
    return LRFindResult(lrs, losses, curve, (~gone).sum(0), lowest_at, lowest_at / 10)


def _is_wrapped(x: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(x)
