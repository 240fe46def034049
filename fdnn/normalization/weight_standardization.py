"""Weights brought to mean 0 and variance 1 before they are used."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["weight_standardize"]


def weight_standardize(weight: Tensor, *, eps: float = 1e-10) -> Tensor:
    r"""Give the weights of each output mean 0 and variance 1.

    $$\hat W_{i} = \frac{W_{i} - \mu_i}{\sqrt{\sigma_i^2 + \epsilon}}$$

    with mean $\mu_i$ and biased variance $\sigma_i^2$ over all dimensions of `weight` but the
    first, and $\epsilon$ = `eps`. The layer's outputs are then about sqrt(fan_in) times as large as
    its inputs: let a normalization follow.

    Args:
        weight: shape (out, in, *kernel), or any with two dimensions or more.
        eps: added to the variance. Small against the 1 / fan_in that a usual weight has.

    Returns:
        The standardized weight. Its gradient with respect to `weight` has, for each output, mean 0
        and, but for `eps`, no part along `weight`.

    Raises:
        ValueError: `weight` has fewer than 2 dimensions.

    Example:
        >>> import torch
        >>> weight_standardize(torch.tensor([[1.0, 3.0], [20.0, 60.0]]))
        tensor([[-1.,  1.],
                [-1.,  1.]])

    References:
        Qiao, Wang, Liu, Shen, Yuille (2019), "Micro-batch training with batch-channel
        normalization and weight standardization". The formula is the paper's; its code divides by
        the unbiased standard deviation plus 1e-5 instead.
    """
    if weight.ndim < 2:
        raise ValueError(f"`weight` must have at least 2 dimensions, got {tuple(weight.shape)}")
    return F.layer_norm(weight, weight.shape[1:], eps=eps)
