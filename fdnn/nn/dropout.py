"""Dropout that stays on in eval mode, for Monte Carlo estimates of uncertainty."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MCAlphaDropout", "MCDropout"]


class _AlwaysOn(nn.Module):
    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"`p` must be in [0, 1], got {p}")
        self.p = p

    def extra_repr(self) -> str:
        """Say the probability."""
        return f"p={self.p}"


class MCDropout(_AlwaysOn):
    """Dropout in train mode and in eval mode alike.

    So a prediction is a draw; many draws, one for each key, say how sure the model is. Through
    `functionalize` a call needs `key` whatever `train` says (unless `p` is 0). As a plain module it
    draws from torch's generator, as `nn.Dropout` does.

    In a model without batch norm this is `nn.Dropout` called with `train=True`.

    Args:
        p: the probability of an element to become 0. The others are divided by 1 - p.

    Raises:
        ValueError: `p` is not in [0, 1].

    Example:
        >>> import torch
        >>> from fdnn import functionalize, random
        >>> model = functionalize(nn.Sequential(MCDropout(0.5), nn.Linear(4, 2)))
        >>> x, params, buffers = torch.ones(3, 4), model.params, model.buffers
        >>> draw = lambda key: model.apply(params, buffers, x, key=key)[0]
        >>> torch.func.vmap(draw)(random.split(random.key(0), 100)).shape
        torch.Size([100, 3, 2])

    References:
        Gal, Ghahramani (2016), "Dropout as a Bayesian approximation: representing model uncertainty
        in deep learning".
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape."""
        return F.dropout(x, self.p, training=True)


class MCAlphaDropout(_AlwaysOn):
    """Alpha dropout in train mode and in eval mode alike: `MCDropout` for networks of selu.

    Args:
        p: the probability of an element to go to the saturation of selu. The result is scaled and
            shifted so that mean 0 and variance 1 stay.

    Raises:
        ValueError: `p` is not in [0, 1].

    Example:
        >>> import torch
        >>> MCAlphaDropout(0.1).eval()(torch.zeros(2, 3)).shape
        torch.Size([2, 3])

    References:
        Klambauer, Unterthiner, Mayr, Hochreiter (2017), "Self-normalizing neural networks"; Gal,
        Ghahramani (2016), "Dropout as a Bayesian approximation".
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape."""
        return F.alpha_dropout(x, self.p, training=True)
