"""What the optimizers with running moments share.

Scalars (hyperparameters, counts) are 0-d tensors or, where all leaves are updated at once, Python
numbers; the functions here take either.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["bias_correction", "root", "where"]


def bias_correction(beta: Any, count: Any) -> Any:
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
    if not isinstance(beta, Tensor):
        return 1 - beta ** (count + 1)
    tiny = torch.finfo(beta.dtype).tiny  # beta = 0 has its value and its derivative too
    return 1 - torch.exp((count + 1) * torch.log(beta + tiny))


def root(moment: Tensor) -> Tensor:
    """Return the square root of a mean square, differentiable at 0 (the gradient of a dead unit).

    Example:
        >>> root(torch.tensor([0.0, 4.0]))
        tensor([1.0842e-19, 2.0000e+00])
    """
    return torch.sqrt(moment + torch.finfo(moment.dtype).tiny)


def where(condition: Any, this: Any, other: Any) -> Any:
    """Return one of two scalars, as `torch.where` does.

    Example:
        >>> where(2 > 1, 0.5, 0.0), where(torch.tensor(False), 0.5, 0.0)
        (0.5, tensor(0.))
    """
    if isinstance(condition, Tensor):
        return torch.where(condition, this, other)
    return this if condition else other
