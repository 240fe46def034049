"""Snapshot ensembles: the members are stations of one run."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.train import Monitor, TrainState
from fdnn.types import Buffers, Params, Tree

__all__ = ["Snapshots", "snapshots"]


class Snapshots(NamedTuple):
    """What `snapshots` remembers of a run: an ensemble for `deep_ensemble`.

    Attributes:
        params: the parameters at the ends of the last cycles, `(members, ...)`; nan where no
            cycle has ended yet.
        buffers: the buffers then, likewise; integers are 0 where no cycle has ended yet.
    """

    params: Params
    buffers: Buffers


def snapshots(members: int, every: int) -> Monitor:
    r"""Keep the parameters at the end of each of the last cycles of a learning rate.

    Under `schedules.cosine_annealing_warm_restarts(lr, T_0=every)` a run settles in one optimum
    after another, and each of them becomes a member: one training run gives an ensemble. Cycle
    $k = 1, 2, \dots$ ends after $k \cdot \text{every}$ steps and goes to place
    $(k - 1) \bmod \text{members}$, so that the last ones stay.

    Args:
        members: how many snapshots are kept, at least 1.
        every: steps of a cycle, at least 1. Monitors look once an epoch, so a cycle must be a
            whole number of epochs: `cycle_epochs * batches`.

    Returns:
        A monitor for `train.fit`; its memory is a `Snapshots`.

    Raises:
        ValueError: `members` or `every` is below 1.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, optim, random, schedules, train
        >>> model = functionalize(nn.Linear(4, 1))
        >>> tx = optim.sgd(schedules.cosine_annealing_warm_restarts(0.1, T_0=4))
        >>> x = random.normal(random.key(1), (64, 4))
        >>> state, _ = train.fit(
        ...     train.make_step(train.supervised(model, F.mse_loss), tx),
        ...     train.init(model, tx, random.key(0)),
        ...     (x, x.sum(1, keepdim=True)),
        ...     epochs=6,
        ...     monitors={"snapshots": snapshots(members=3, every=4)},  # 2 epochs
        ...     compile=False,
        ...     progress=False,
        ... )
        >>> state.monitors["snapshots"].params["weight"].shape
        torch.Size([3, 1, 4])

    References:
        Huang, Li, Pleiss, Liu, Hopcroft, Weinberger (2017), "Snapshot ensembles: train 1, get M
        for free".
    """
    for argument, value in (("members", members), ("every", every)):
        if value < 1:
            raise ValueError(f"`{argument}` must be at least 1, got {value}")

    def empty(leaf: Tensor) -> Tensor:
        fill = torch.nan if leaf.is_floating_point() else 0
        return torch.full_like(leaf, fill).expand(members, *leaf.shape).clone()

    def init(state: TrainState) -> Snapshots:
        return Snapshots(tree.map(empty, state.params), tree.map(empty, state.buffers))

    def update(
        memory: Snapshots, state: TrainState, numbers: dict[str, Tensor]
    ) -> tuple[Snapshots, TrainState]:
        place = torch.remainder(state.count // every - 1, members)
        ends = (state.count > 0) & (state.count % every == 0)
        here = ends & (torch.arange(members, device=state.count.device) == place)

        def put(old: Tree, new: Tree) -> Tree:
            fresh = tree.map(lambda kept, leaf: leaf.expand_as(kept), old, new)
            return tree.where(here, fresh, old)

        params, buffers = put(memory.params, state.params), put(memory.buffers, state.buffers)
        return Snapshots(params, buffers), state

    return Monitor(init, update)
