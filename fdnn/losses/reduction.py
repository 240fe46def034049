"""From the terms of a loss to one number, or to one number for each example."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

__all__ = ["Reduction", "check_reduction", "per_example", "reduce", "weighted_mean"]

Reduction = Literal["none", "mean", "sum"]
"""What becomes of a loss's terms: they stay, or their mean, or their sum."""


def check_reduction(reduction: str, known: tuple[str, ...] = ("none", "mean", "sum")) -> None:
    """Raise unless `reduction` is one of `known`."""
    if reduction not in known:
        raise ValueError(f"`reduction` must be one of {list(known)}, got {reduction!r}")


def reduce(terms: Tensor, reduction: Reduction) -> Tensor:
    """Apply a reduction to the terms of a loss."""
    check_reduction(reduction)
    if reduction == "none":
        return terms
    return terms.mean() if reduction == "mean" else terms.sum()


def per_example(terms: Tensor) -> Tensor:
    r"""Average the terms of each example: $\ell_i = \frac{1}{k} \sum_j \ell_{ij}$.

    The mean of the result is the mean of the terms, since all examples have equally many. (A
    divergence is a sum over its support instead: `kl_div(..., reduction="none").sum(-1)`.)

    Args:
        terms: $\ell$, what a loss returns with `reduction="none"`, of shape `(n, ...)`.

    Returns:
        A tensor of shape `(n,)`.

    Raises:
        ValueError: `terms` is a 0-d tensor, which is reduced already.

    Example:
        >>> import torch
        >>> from fdnn.losses import mse_loss
        >>> output, target = torch.tensor([[1.0, 3.0], [0.0, 2.0]]), torch.zeros(2, 2)
        >>> per_example(mse_loss(output, target, reduction="none"))
        tensor([5., 2.])
    """
    if terms.ndim == 0:
        raise ValueError("`terms` must have a dimension of examples, got a 0-d tensor")
    return terms.flatten(1).mean(1) if terms.ndim > 1 else terms


def weighted_mean(terms: Tensor, weight: Tensor) -> Tensor:
    r"""Average terms with weights: $\sum_i w_i \ell_i / \sum_i w_i$.

    A mask is a weight of zeros and ones: the padding of sequences does not count.

    Args:
        terms: $\ell$, what a loss returns with `reduction="none"`, of shape `(n, ...)`.
        weight: $w$, one for each example, of shape `(n,)`, or for each of some more of the
            leading dimensions of `terms`; what they hold shares the weight. Numbers or booleans.

    Returns:
        A 0-d tensor, nan if all weights are 0.

    Raises:
        ValueError: the shape of `weight` is not the beginning of that of `terms`.

    Example:
        >>> import torch
        >>> from fdnn.losses import l1_loss
        >>> terms = l1_loss(torch.tensor([1.0, 2.0, 9.0]), torch.zeros(3), reduction="none")
        >>> weighted_mean(terms, torch.tensor([3.0, 1.0, 0.0]))
        tensor(1.2500)
    """
    if weight.shape != terms.shape[: weight.ndim]:
        raise ValueError(
            f"`weight` must have a shape with which that of `terms` begins, {tuple(terms.shape)}, "
            f"got {tuple(weight.shape)}"
        )
    weight = weight.reshape(*weight.shape, *(1 for _ in range(terms.ndim - weight.ndim)))
    return (weight * terms).sum() / weight.expand_as(terms).sum()
