"""Optimizers that treat the layers of one model differently: in time, and in size of step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fdnn import optim, schedules
from fdnn.types import GradientTransformation, ScalarOrSchedule, Where

__all__ = ["discriminative", "gradual_unfreezing"]


def gradual_unfreezing(
    inner: GradientTransformation, releases: Sequence[tuple[Where, int | Tensor]]
) -> GradientTransformation:
    """Let an optimizer leave groups of parameters alone until their time has come.

    A schedule of masks: at count t, the number of steps before, the parameters of a group are
    trained if t >= its release, and stay where they are to the bit before. Each group has a state
    of its own, which counts the steps since its release: momentum, Adam's bias correction and
    schedules begin there, as torch.optim's do when a parameter gets its first gradient.

    Nothing changes its structure, so that all phases are one compiled step and releases may differ
    from lane to lane; but gradients of what waits are computed, and there are slots for it. Who
    wants to spare them freezes the model itself, phase by phase (`unfreeze`, `carry_over`).

    Args:
        inner: the optimizer.
        releases: pairs of a group and the count of its release: a glob, several globs or a
            predicate `(path, leaf)`, and a number or a 0-d tensor. The first group that matches a
            parameter counts; parameters of no group are trained from the start.

    Returns:
        An optimizer. Its state holds that of group i in the slot "i.inner", that of the rest in
        "rest.inner".

    Raises:
        ValueError: a release is negative, or, when used, a glob matches no path.

    Example:
        >>> import torch
        >>> params = {"body": torch.ones(1), "head": torch.ones(1)}
        >>> tx = gradual_unfreezing(optim.sgd(lr=0.5), [("body", 1)])
        >>> state = tx.init(params)
        >>> params, state = optim.step(tx, params, params, state)
        >>> params
        {'body': tensor([1.]), 'head': tensor([0.5000])}
        >>> optim.step(tx, params, params, state)[0]
        {'body': tensor([0.5000]), 'head': tensor([0.2500])}

    References:
        Howard, Ruder (2018), "Universal language model fine-tuning for text classification", which
        releases one layer an epoch, from the last.
    """
    for _, release in releases:
        if not isinstance(release, Tensor) and release < 0:
            raise ValueError(f"`releases` must not be negative, got {release}")
    transforms = {
        str(i): optim.conditionally_transform(inner, _reached(release))
        for i, (_, release) in enumerate(releases)
    }
    labels: dict[str, Where] = {str(i): where for i, (where, _) in enumerate(releases)}
    rest = optim.conditionally_transform(inner, _reached(0))
    return optim.partition({**transforms, "rest": rest}, {**labels, "rest": _anything})


def discriminative(
    make: Callable[[ScalarOrSchedule], GradientTransformation],
    lr: ScalarOrSchedule,
    groups: Mapping[str, Sequence[str]],
    *,
    decay: float = 1 / 2.6,
) -> GradientTransformation:
    r"""Train lower layers by smaller steps: the learning rate of each group by its depth.

    Of $n$ groups, the last has the rate $\eta$, the one $k$ before it $\eta d^k$, with $\eta$ =
    `lr` and $d$ = `decay`.

    Args:
        make: `make(lr)` gives the optimizer of a group: `optim.adam`, for example.
        lr: the rate of the last group: a number, a 0-d tensor or a schedule.
        groups: the names of each group's parameters, from the first group to the last: `layers` of
            the model, or a coarser division. Names of no parameter (of buffers) are passed over.
        decay: the factor from one group to the one before, above 0.

    Returns:
        An optimizer, `optim.partition` of the groups: the rate of group "0" is "0.lr" in its
        hyperparameters. It serves the model with or without frozen layers, whose groups are empty.

    Raises:
        ValueError: `decay` is not positive, there are no groups, or, when used, a parameter is in
            none.

    Example:
        >>> import torch
        >>> groups = {"body": ["0.weight"], "head": ["1.weight"]}
        >>> tx = discriminative(optim.sgd, 0.1, groups, decay=0.5)
        >>> params = {"0.weight": torch.ones(1), "1.weight": torch.ones(1)}
        >>> optim.step(tx, params, params, tx.init(params))[0]
        {'0.weight': tensor([0.9500]), '1.weight': tensor([0.9000])}

    References:
        Howard, Ruder (2018), "Universal language model fine-tuning for text classification": the
        default decay.
    """
    if not decay > 0:
        raise ValueError(f"`decay` must be above 0, got {decay}")
    if not groups:
        raise ValueError("`groups` must hold at least one group, got none")
    label_of = {name: label for label, names in groups.items() for name in names}
    transforms = {
        label: make(_scaled(lr, decay ** (len(groups) - 1 - i))) for i, label in enumerate(groups)
    }
    return optim.partition(transforms, lambda path, leaf: label_of.get(path, "(none)"))


def _reached(release: int | Tensor) -> Callable[[Tensor], Any]:
    return lambda count: count >= release


def _anything(path: str, leaf: Any) -> bool:
    return True


def _scaled(lr: ScalarOrSchedule, factor: float) -> ScalarOrSchedule:
    return schedules.chained([lr, factor]) if callable(lr) else lr * factor
