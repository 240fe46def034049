"""Normalization of each example by itself, over groups of its channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["group_norm"]


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Give each group of channels of each example mean 0 and variance 1, as `nn.GroupNorm`.

    $$y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \, \gamma + \beta$$

    with mean $\mu$ and biased variance $\sigma^2$ over the channels of a group and all positions,
    $\gamma$ the `weight`, $\beta$ the `bias`, $\epsilon$ = `eps`.

    Args:
        x: shape (N, C) or (N, C, ...).
        num_groups: into how many groups of neighbours the C channels are divided. 1 is layer norm
            over channels and positions, C is instance norm.
        weight: one factor for each channel, shape (C,); 1 if left out.
        bias: one summand for each channel, shape (C,); 0 if left out.
        eps: added to the variance.

    Returns:
        y in the shape of `x`. No example depends on another.

    Raises:
        ValueError: `x` has fewer than 2 dimensions, or `num_groups` does not divide C.

    Example:
        >>> import torch
        >>> y = group_norm(torch.tensor([[1.0, 3.0, 10.0, 30.0]]), num_groups=2)
        >>> y.round(decimals=3)
        tensor([[-1.,  1., -1.,  1.]])

    References:
        Wu, He (2018), "Group normalization".
    """
    if x.ndim < 2:
        raise ValueError(f"`x` must have at least 2 dimensions, got shape {tuple(x.shape)}")
    if num_groups < 1 or x.shape[1] % num_groups:
        raise ValueError(
            f"`num_groups` must divide the {x.shape[1]} channels of `x`, got {num_groups}"
        )
    return F.group_norm(x, num_groups, weight, bias, eps)
