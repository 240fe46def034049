"""SWAG: a normal distribution fitted to the stations of stochastic gradient descent."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fdnn import random, tree
from fdnn.train import Monitor, TrainState
from fdnn.types import Key, Params, Scalar

__all__ = ["SwagState", "swag", "swag_init", "swag_sample", "swag_update"]


class SwagState(NamedTuple):
    """Moments of the parameters collected so far.

    Attributes:
        mean: their mean, by dotted name: the solution of stochastic weight averaging.
        variance: their variance (divided by the count), elementwise.
        deviations: the last ones less the mean at their time, `(rank, ...)`.
        count: how many were collected, 0-d int64.
    """

    mean: Params
    variance: Params
    deviations: Params
    count: Tensor  # type: ignore[assignment]


def swag_init(params: Params, rank: int = 20) -> SwagState:
    """Begin to collect parameters, with none.

    Args:
        params: parameters by dotted name, of which only shapes, dtypes and devices are used.
        rank: how many deviations are kept, each as large as the parameters: 0 for a diagonal
            covariance, or at least 2.

    Returns:
        The state, in float32 where `params` have half precision.

    Raises:
        ValueError: `rank` is negative or 1.

    Example:
        >>> swag_init({"w": torch.ones(3)}, rank=5).deviations["w"].shape
        torch.Size([5, 3])
    """
    if rank < 0 or rank == 1:
        raise ValueError(f"`rank` must be 0 or at least 2, got {rank}")
    zeros = tree.map(lambda x: torch.zeros_like(x, dtype=_exact(x.dtype)), params)
    deviations = tree.map(lambda x: x.new_zeros(rank, *x.shape), zeros)
    # Made from a parameter, so that under vmap every lane has its own.
    count = tree.leaves(params)[0].new_zeros((), dtype=torch.int64)
    return SwagState(zeros, zeros, deviations, count)


def swag_update(state: SwagState, params: Params) -> SwagState:
    r"""Collect the parameters $\theta_n$, the $n$-th.

    $\bar\theta_n = \bar\theta_{n-1} + (\theta_n - \bar\theta_{n-1}) / n$, the variance
    $v_n = ((n - 1) v_{n-1} + (\theta_n - \bar\theta_{n-1})(\theta_n - \bar\theta_n)) / n$, and the
    deviation $\theta_n - \bar\theta_n$, which takes the place of the oldest.

    Args:
        state: $\bar\theta$, $v$ and the deviations.
        params: $\theta_n$.

    Returns:
        The state after it.

    Example:
        >>> state = swag_init({"w": torch.zeros(1)}, rank=2)
        >>> for value in (1.0, 2.0, 6.0):
        ...     state = swag_update(state, {"w": torch.tensor([value])})
        >>> state.mean["w"], state.variance["w"], state.deviations["w"].flatten()
        (tensor([3.]), tensor([4.6667]), tensor([3.0000, 0.5000]))

    References:
        Maddox, Garipov, Izmailov, Vetrov, Wilson (2019), "A simple baseline for Bayesian
        uncertainty in deep learning". The variance is the paper's mean of squares less square of
        the mean, by Welford's recurrence, which does not cancel in float32.
    """
    count = state.count + 1

    def mean(old: Tensor, new: Tensor) -> Tensor:
        return old + (new.to(old.dtype) - old) / count

    def variance(v: Tensor, old: Tensor, now: Tensor, new: Tensor) -> Tensor:
        new = new.to(old.dtype)
        return v + ((new - old) * (new - now) - v) / count

    def deviation(kept: Tensor, now: Tensor, new: Tensor) -> Tensor:
        rank = len(kept)
        if rank == 0:
            return kept
        here = torch.arange(rank, device=kept.device) == state.count % rank
        here = here.reshape(rank, *(1 for _ in now.shape))
        return torch.where(here, new.to(now.dtype) - now, kept)

    means = tree.map(mean, state.mean, params)
    return SwagState(
        means,
        tree.map(variance, state.variance, state.mean, means, params),
        tree.map(deviation, state.deviations, means, params),
        count,
    )


def swag_sample(key: Key, state: SwagState, scale: Scalar = 1.0) -> Params:
    r"""Draw parameters from the normal distribution that was collected.

    $\bar\theta + \sqrt{s / 2} \, (\sqrt{v} \odot z_1 + D z_2 / \sqrt{K - 1})$, where $D$ holds the
    deviations, $K$ is how many there are and $z_1$, $z_2$ are standard normal; with rank 0
    $\bar\theta + \sqrt{s} \, \sqrt{v} \odot z_1$. So the covariance is
    $\frac{s}{2} (\text{diag}(v) + D D^\top / (K - 1))$, or $s \, \text{diag}(v)$.

    Args:
        key: a key; vmap over keys gives the stacked parameters that `deep_ensemble` takes.
        state: $\bar\theta$, $v$ and $D$; of two collected parameters at least.
        scale: $s$, 1 for the covariance that was measured, 0 for the mean.

    Returns:
        Parameters by dotted name. A net with batch norm needs its statistics anew for each
        sample: `train.reestimate_batch_norm`, under vmap.

    Example:
        >>> state = swag_init({"w": torch.zeros(1)}, rank=2)
        >>> for value in (1.0, 2.0, 6.0):
        ...     state = swag_update(state, {"w": torch.tensor([value])})
        >>> draw = lambda key: swag_sample(key, state)
        >>> torch.vmap(draw)(random.split(random.key(0), 100))["w"].shape
        torch.Size([100, 1])

    References:
        Maddox, Garipov, Izmailov, Vetrov, Wilson (2019), "A simple baseline for Bayesian
        uncertainty in deep learning". The authors' code calls $s / 2$ the scale. As long as
        fewer than `rank` deviations are collected, $K$ is their number.
    """
    key_diagonal, key_low_rank = random.split(key)
    rank = len(tree.leaves(state.deviations)[0])
    first = tree.leaves(state.mean)[0]
    kept = state.count.clamp(max=rank)
    coordinates = random.normal(key_low_rank, (rank,), first.dtype)
    coordinates = coordinates / (kept - 1).clamp(min=1).to(first.dtype).sqrt()
    width = (torch.as_tensor(scale, dtype=first.dtype) / (2 if rank else 1)).sqrt()

    def draw(path: str, mean: Tensor, variance: Tensor, deviations: Tensor) -> Tensor:
        own = random.normal(keys[path], mean.shape, mean.dtype)
        low_rank = torch.tensordot(coordinates.to(mean.dtype), deviations, dims=1)
        change: Tensor = width.to(mean.dtype) * (variance.clamp(min=0).sqrt() * own + low_rank)
        return mean + change

    paths = tree.paths(state.mean)
    keys = dict(zip(paths, random.split(key_diagonal, len(paths)).unbind(), strict=True))
    sample: Params = tree.map_with_path(draw, state.mean, state.variance, state.deviations)
    return sample


def swag(rank: int = 20, start: int = 0) -> Monitor:
    """Collect a run's parameters after every epoch.

    To be used with a constant or cyclic learning rate that is high enough to move about, once the
    run has come near an optimum.

    Args:
        rank: as in `swag_init`.
        start: steps after which collecting begins, at least 0: parameters after more steps count.

    Returns:
        A monitor for `train.fit`; its memory is a `SwagState`.

    Raises:
        ValueError: `rank` is negative or 1, or `start` is negative.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch import nn
        >>> from fdnn import functionalize, optim, train
        >>> model, tx = functionalize(nn.Linear(4, 1)), optim.sgd(lr=0.05)
        >>> x = random.normal(random.key(1), (64, 4))
        >>> state, _ = train.fit(
        ...     train.make_step(train.supervised(model, F.mse_loss), tx),
        ...     train.init(model, tx, random.key(0)),
        ...     (x, x.sum(1, keepdim=True)),
        ...     epochs=6,
        ...     monitors={"swag": swag(rank=3, start=4)},  # 2 epochs
        ...     compile=False,
        ...     progress=False,
        ... )
        >>> state.monitors["swag"].count
        tensor(4)

    References:
        Maddox, Garipov, Izmailov, Vetrov, Wilson (2019), "A simple baseline for Bayesian
        uncertainty in deep learning".
    """
    if rank < 0 or rank == 1:
        raise ValueError(f"`rank` must be 0 or at least 2, got {rank}")
    if start < 0:
        raise ValueError(f"`start` must be at least 0, got {start}")

    def update(
        memory: SwagState, state: TrainState, numbers: dict[str, Tensor]
    ) -> tuple[SwagState, TrainState]:
        collected = swag_update(memory, state.params)
        return tree.where(state.count > start, collected, memory), state

    return Monitor(lambda state: swag_init(state.params, rank), update)


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
