"""Layers whose weights are standardized each time they are used."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fdnn.normalization import weight_standardize

__all__ = ["WeightStandardizedConv2d", "WeightStandardizedLinear"]


class WeightStandardizedLinear(nn.Linear):
    """`nn.Linear` with `normalization.weight_standardize` applied to the weight.

    The outputs are about sqrt(in_features) times as large as the inputs: let a normalization
    follow.

    Args:
        *args: what `nn.Linear` takes.
        eps: added to the variance of an output's weights.
        **kwargs: what `nn.Linear` takes.

    Example:
        >>> import torch
        >>> block = nn.Sequential(WeightStandardizedLinear(4, 8), nn.GroupNorm(2, 8), nn.ReLU())
        >>> block(torch.ones(3, 4)).shape
        torch.Size([3, 8])

    References:
        Qiao, Wang, Liu, Shen, Yuille (2019), "Micro-batch training with batch-channel
        normalization and weight standardization".
    """

    def __init__(self, *args: Any, eps: float = 1e-10, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        """Run as `nn.Linear` with the standardized weight."""
        return F.linear(input, weight_standardize(self.weight, eps=self.eps), self.bias)

    def extra_repr(self) -> str:
        """Say what `nn.Linear` says, and eps."""
        return f"{super().extra_repr()}, eps={self.eps}"


class WeightStandardizedConv2d(nn.Conv2d):
    """`nn.Conv2d` with `normalization.weight_standardize` applied to the kernels.

    The outputs are about sqrt(fan_in) times as large as the inputs: let a normalization follow.
    With `nn.GroupNorm` it serves where batches are too small for batch norm.

    Args:
        *args: what `nn.Conv2d` takes.
        eps: added to the variance of an output channel's weights.
        **kwargs: what `nn.Conv2d` takes.

    Example:
        >>> import torch
        >>> block = nn.Sequential(WeightStandardizedConv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU())
        >>> block(torch.ones(1, 3, 6, 6)).shape
        torch.Size([1, 8, 4, 4])

    References:
        Qiao, Wang, Liu, Shen, Yuille (2019), "Micro-batch training with batch-channel
        normalization and weight standardization".
    """

    def __init__(self, *args: Any, eps: float = 1e-10, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        """Run as `nn.Conv2d` with the standardized kernels."""
        weight = weight_standardize(self.weight, eps=self.eps)
        output: Tensor = self._conv_forward(input, weight, self.bias)
        return output

    def extra_repr(self) -> str:
        """Say what `nn.Conv2d` says, and eps."""
        own = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{own}, eps={self.eps}"
