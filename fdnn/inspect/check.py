"""A look for the classic mistakes before a run begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fdnn.inspect.mistakes.behaviour import signal_mistakes, unused_mistakes
from fdnn.inspect.mistakes.data import finite_mistakes, scale_mistakes
from fdnn.inspect.mistakes.initialization import initialization_mistakes
from fdnn.inspect.mistakes.operations import BATCH_NORMS
from fdnn.inspect.mistakes.optimizer import decay_mistakes, schedule_mistakes
from fdnn.inspect.mistakes.outputs import output_mistakes
from fdnn.inspect.mistakes.rehearsal import rehearse
from fdnn.inspect.mistakes.report import Finding, Report
from fdnn.inspect.mistakes.structure import USELESS, batch_norm_mistakes, dropout_mistakes
from fdnn.inspect.signals import signal_propagation
from fdnn.model import Model
from fdnn.optim.core.branch import can_see
from fdnn.types import Buffers, GradientTransformation, Key, Params

__all__ = ["check"]


def check(
    model: Model,
    params: Params | None = None,
    buffers: Buffers | None = None,
    *,
    batch: Any = None,
    criterion: Callable[[Any, Any], Tensor] | None = None,
    tx: GradientTransformation | None = None,
    steps: int | None = None,
    key: Key | None = None,
) -> Report:
    """Look for classic mistakes before training, each with its cure.

    One training step's worth of work, without the step: the model and the loss run on one batch,
    and every operation is looked at, of modules and of functions of torch alike. Found are

    - "output activation": a ReLU at the end of a regression or of logits, another activation there
      whose range does not hold the targets, or outputs that never fall below 0 and often are 0;
    - "dropout with selu": ordinary dropout, not alpha dropout;
    - "softmax before cross-entropy", "sigmoid before binary cross-entropy": by the last layer, or
      by rows of outputs that sum to 1; "logits into nll_loss" and "logits into binary
      cross-entropy" are their opposites;
    - "initialization": a variance of weights that does not suit the activation that follows
      (`initializers.variance_mismatch`), in three layers or more, one behind the other, or with
      standard deviations ten times wrong in all. So torch's default before ReLU passes with one or
      two hidden layers. A norm makes it harmless. "equal weights": units that cannot become
      different;
    - "unused parameters": no path from them to the loss;
    - "labels out of range", "target shape" (broadcast against the outputs, say), "one class";
    - "schedule length": not that of the run;
    - "dead units", "vanishing signal", "exploding signal", "vanishing gradient", "exploding
      gradient", "not finite": more than half of the units of an activation, a factor of 100 in
      standard deviation or 1000 in gradient from the first hidden layer to the last
      (`signal_propagation`);
    - "inputs not scaled", "inputs not finite", "targets not finite": means or standard deviations
      of features beyond 10, or all below 0.01; with SELU, whatever is not about 0 and 1;
    - "bias before batch norm", "batch norm with a batch of one";
    - "weight decay on norms": their scales and shifts shrink although their gradients are 0.

    What an argument would be needed for is left out, and the report says so. An error of the model
    or of the loss itself is raised as ever.

    Args:
        model: from `functionalize`.
        params: parameters by dotted name; the module's own if left out.
        buffers: buffers by dotted name; the module's own if left out.
        batch: `(*inputs, target)`; a mapping in front holds keyword arguments.
        criterion: `criterion(output, target)` gives the loss, a 0-d tensor.
        tx: the optimizer. Schedules inside one that another wraps (`lookahead`) are not seen.
        steps: how many steps the run will have, batches and not epochs.
        key: the source of randomness. Without it a model that draws runs in eval mode.

    Returns:
        What was found. It is false if that is nothing, and `print` shows it.

    Raises:
        TypeError: `model` is not from `functionalize`.
        ValueError: `steps` is below 1, or the criterion does not return a 0-d tensor.
        RuntimeError: called under vmap, grad or the compiler, where values cannot be seen.

    Example:
        >>> import torch
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, random
        >>> model = functionalize(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)))
        >>> batch = random.normal(random.key(0), (20, 4)), torch.arange(20) % 3
        >>> report = check(model, batch=batch, criterion=F.cross_entropy)
        >>> print(report)
        softmax before cross-entropy: 1
            cross_entropy takes logits and applies its own log-softmax; the softmax before it
            bounds its gradient.
            Cure: leave the softmax out; apply it to logits where probabilities are wanted.
        not looked at: schedule length, weight decay (needs `tx`)
        >>> [finding.mistake for finding in report]
        ['softmax before cross-entropy']
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"`model` must be what fdnn.functionalize returns, got {type(model).__name__}"
        )
    if steps is not None and steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}")
    if not can_see():
        raise RuntimeError(
            "`check` looks at values, which vmap, grad and the compiler hide: call it outside of "
            "them, for one lane"
        )
    params = model.params if params is None else params
    buffers = model.buffers if buffers is None else buffers
    found, missed = _optimizer(model, params, tx, steps)
    if batch is None:
        found = [*dropout_mistakes(model.skeleton(True), ()), *found]
        missed.insert(0, "all that shows when the model runs (needs `batch`)")
    else:
        seen, unseen = _batch(model, params, buffers, batch, criterion, key)
        found, missed = seen + found, unseen + missed
    return Report(tuple(found), tuple(missed))


def _optimizer(
    model: Model, params: Params, tx: GradientTransformation | None, steps: int | None
) -> tuple[list[Finding], list[str]]:
    if tx is None:
        return [], ["schedule length, weight decay (needs `tx`)"]
    found: list[Finding] = []
    missed = []
    if steps is not None:
        found += schedule_mistakes(tx, steps)
    elif getattr(tx, "total_steps", None) is not None:
        missed.append("schedule length (needs `steps`)")
    decay = decay_mistakes(tx, model.skeleton(True), params)
    if decay is None:
        missed.append("weight decay (cannot be told from what else `tx` does)")
    return found + (decay or []), missed


def _batch(
    model: Model,
    params: Params,
    buffers: Buffers,
    batch: Any,
    criterion: Callable[[Any, Any], Tensor] | None,
    key: Key | None,
) -> tuple[list[Finding], list[str]]:
    """Judge what shows when the model and the loss run."""
    *inputs, target = batch
    seen = rehearse(model, params, buffers, batch, criterion, key)
    unreal = finite_mistakes(inputs, target)
    single = batch_norm_mistakes(seen.forward, seen.train)
    found = [
        *unreal,
        *scale_mistakes(seen.forward),
        *seen.wrong,
        *(mistake for loss in seen.losses for mistake in output_mistakes(*loss, seen.ops)),
        *dropout_mistakes(model.skeleton(True), seen.forward),
        *single,
        *initialization_mistakes(seen.forward),
    ]
    missed = []
    if not seen.train:
        missed.append("train mode, since the model draws (needs `key`)")
    if criterion is None or seen.value is None:
        missed.append("targets, outputs, unused parameters, signals, gradients (needs `criterion`)")
        return found, missed
    if not seen.losses:
        missed.append("targets, outputs (`criterion` calls no loss of torch or fdnn)")
    found += unused_mistakes(seen.value, seen.leaves)
    in_the_way = [f.mistake for f in (*unreal, *seen.wrong, *single) if f.mistake != USELESS]
    if not seen.train and any(op.name in BATCH_NORMS for op in seen.forward):
        in_the_way.append("batch norm, which works in train mode")
    if in_the_way:
        return found, [*missed, f"signals, gradients (first: {in_the_way[0]})"]
    signals = signal_propagation(
        model, params, buffers, batch, criterion, key=key, train=seen.train
    )
    more, unseen = signal_mistakes(signals, seen.forward)
    return found + more, missed + unseen
