"""What the optimizers with running moments share."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bias_correction", "root"]


def bias_correction(beta: Tensor, count: Tensor) -> Tensor:
    r"""Return $1 - \beta^t$, the total weight of the $t$ terms of a running mean from zero.

    Written with a logarithm, which the compiler computes once and shares among the leaves; a
    power it computes anew for every few elements, at more than the cost of the rest of the step.

    Args:
        beta: $\beta$, in [0, 1).
        count: $t - 1$, the steps taken before this one.

    Example:
        >>> bias_correction(torch.tensor(0.5), torch.tensor(1))
        tensor(0.7500)
    """
    tiny = torch.finfo(beta.dtype).tiny  # beta = 0 has its value and its derivative too
    return 1 - torch.exp((count + 1) * torch.log(beta + tiny))


def root(moment: Tensor) -> Tensor:
    """Return the square root of a mean square, differentiable at 0 (the gradient of a dead unit).

    Example:
        >>> root(torch.tensor([0.0, 4.0]))
        tensor([1.0842e-19, 2.0000e+00])
    """
    return torch.sqrt(moment + torch.finfo(moment.dtype).tiny)
