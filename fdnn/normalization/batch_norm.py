"""Batch normalization, its running statistics passed in and handed out."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fdnn.normalization import plain
from fdnn.types import Scalar

__all__ = ["BatchNormState", "batch_norm", "init_batch_norm"]


class BatchNormState(NamedTuple):
    """What batch norm remembers of the batches seen, under the names of torch's buffers.

    Attributes:
        running_mean: moving average of the batch means, shape (C,).
        running_var: moving average of the unbiased batch variances, shape (C,).
        num_batches_tracked: batches seen, 0-d int64.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor


def init_batch_norm(
    num_features: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> BatchNormState:
    """Return the state before the first batch: mean 0, variance 1, nothing seen.

    Args:
        num_features: the number of channels C.
        dtype: dtype of mean and variance.
        device: where the state lives.

    Returns:
        A state for `batch_norm`.

    Raises:
        ValueError: `num_features` is negative.

    Example:
        >>> init_batch_norm(2)
        BatchNormState(running_mean=tensor([0., 0.]), running_var=tensor([1., 1.]), \
num_batches_tracked=tensor(0))
    """
    if num_features < 0:
        raise ValueError(f"`num_features` must not be negative, got {num_features}")
    return BatchNormState(
        torch.zeros(num_features, dtype=dtype, device=device),
        torch.ones(num_features, dtype=dtype, device=device),
        torch.zeros((), dtype=torch.int64, device=device),
    )


def batch_norm(
    x: Tensor,
    state: BatchNormState,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    train: bool,
    momentum: Scalar | None = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, BatchNormState]:
    r"""Normalize every channel over the batch and all positions, as `torch.nn.BatchNorm1d` to 3d.

    $$y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \, \gamma + \beta$$

    with $\gamma$ the `weight`, $\beta$ the `bias` and $\epsilon$ = `eps`. In training $\mu$ and
    $\sigma^2$ are the mean and the biased variance of the channel in this batch, and with m =
    `momentum` the running ones become $(1 - m) \, old + m \, new$, where the new variance is the
    unbiased one. Otherwise $\mu$ and $\sigma^2$ are the running ones.

    Args:
        x: shape (N, C) or (N, C, ...) with up to three dimensions of positions.
        state: the running statistics.
        weight: one factor for each channel, shape (C,); 1 if left out.
        bias: one summand for each channel, shape (C,); 0 if left out.
        train: whether to use this batch's statistics and move the running ones.
        momentum: the weight of the new batch in the running statistics. None makes them the plain
            average over all batches, as in torch, but under vmap and compiled too.
        eps: added to the variance.

    Returns:
        y in the shape of `x`, and the state after it: the given one if not `train`. The running
        statistics carry no gradient to `x`, as in torch.

    Raises:
        ValueError: `x` has the wrong number of dimensions or channels, `momentum` is not in [0, 1];
            in training `eps` is not positive, or a channel has fewer than two values (torch lets
            none at all pass).

    Example:
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> y, state = batch_norm(x, init_batch_norm(1), train=True)
        >>> y.flatten(), state.running_mean, state.running_var
        (tensor([-1.0000,  1.0000]), tensor([0.2000]), tensor([1.1000]))
        >>> batch_norm(x, state, train=False)[1] is state
        True

    References:
        Ioffe, Szegedy (2015), "Batch normalization: accelerating deep network training by reducing
        internal covariate shift".
    """
    mean, var, count = state
    if not 2 <= x.ndim <= 5:
        raise ValueError(f"`x` must have 2 to 5 dimensions, got shape {tuple(x.shape)}")
    if mean.shape != x.shape[1:2] or var.shape != mean.shape:
        raise ValueError(
            f"`state` must have one mean and one variance for each of the {x.shape[1]} channels of "
            f"`x`, got shapes {tuple(mean.shape)} and {tuple(var.shape)}"
        )
    normalize = plain.batch_norm if plain.is_better() else F.batch_norm
    if not train:
        return normalize(x, mean, var, weight, bias, training=False, eps=eps), state
    if momentum is not None and not isinstance(momentum, Tensor) and not 0 <= momentum <= 1:
        raise ValueError(f"`momentum` must be in [0, 1], got {momentum}")
    if not eps > 0:
        raise ValueError(f"`eps` must be positive in training, got {eps}")
    if x[:, :1].numel() < 2:
        raise ValueError(
            "in training `x` must have at least two values for each channel, since one has no "
            f"variance, got shape {tuple(x.shape)}"
        )
    # This batch's own statistics are written here, lane by lane if `x` has lanes.
    new_mean, new_var = (x.new_zeros(old.shape, dtype=old.dtype) for old in (mean, var))
    y = normalize(x, new_mean, new_var, weight, bias, training=True, momentum=1.0, eps=eps)
    count = count + 1
    share = 1 / count.to(mean.dtype) if momentum is None else momentum
    mean, var = (
        (share * new + (1 - share) * old).to(old.dtype)
        for new, old in ((new_mean, mean), (new_var, var))
    )
    return y, BatchNormState(mean, var, count)
