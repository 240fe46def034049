"""Contrastive losses over a batch: each example finds its partner among all others'."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fdnn.losses.check import above_0, same_shape
from fdnn.losses.reduction import Reduction, reduce
from fdnn.types import Scalar

__all__ = ["info_nce", "nt_xent"]


def info_nce(
    input1: Tensor, input2: Tensor, *, temperature: Scalar = 0.1, reduction: Reduction = "mean"
) -> Tensor:
    r"""Pick out the partner of each row of `input1` from the rows of `input2`.

    $\ell_i = -\log \frac{\exp(s_{ii} / \tau)}{\sum_j \exp(s_{ij} / \tau)}$ with the cosine $s_{ij}$
    of row $i$ of `input1` and row $j$ of `input2`. The mean of both directions is symmetric, as
    for images and their captions.

    Args:
        input1: embeddings of shape `(n, d)`; they need not have length 1.
        input2: of the shape of `input1`; row $i$ is the partner of row $i$ there.
        temperature: $\tau$; the smaller, the more the nearest wrong rows count.
        reduction: "none" (one for each row of `input1`), "mean" or "sum".

    Raises:
        ValueError: the shapes differ or are not `(n, d)`, `temperature` is not positive, or
            `reduction` is unknown.

    Example:
        >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0)
        tensor(0.3133)

    References:
        Van den Oord, Li, Vinyals (2018), "Representation learning with contrastive predictive
        coding". Its score is bilinear; the cosine and the temperature came later.
    """
    first, second = _units(input1, input2, temperature)
    terms = _choice(first @ second.mT / temperature)
    return reduce(terms, reduction)


def nt_xent(
    input1: Tensor, input2: Tensor, *, temperature: Scalar = 0.1, reduction: Reduction = "mean"
) -> Tensor:
    r"""Pick out the other view of each example from all views of all examples (SimCLR's loss).

    Let $z$ be the $2n$ rows of `input1` and `input2`, $s_{ij}$ their cosines, and $j$ the place of
    the other view of $i$: $\ell_i = -\log \frac{\exp(s_{ij} / \tau)}{\sum_{k \ne i} \exp(s_{ik} /
    \tau)}$. An example's term is the mean of the two of its views.

    Args:
        input1: embeddings of one view, of shape `(n, d)`; they need not have length 1.
        input2: those of the other view, of the same shape, in the same order.
        temperature: $\tau$; the smaller, the more the nearest wrong rows count.
        reduction: "none" (one for each example), "mean" or "sum".

    Raises:
        ValueError: the shapes differ or are not `(n, d)`, `temperature` is not positive, or
            `reduction` is unknown.

    Example:
        >>> nt_xent(torch.eye(2), torch.eye(2), temperature=1.0)
        tensor(0.5514)

    References:
        Chen, Kornblith, Norouzi, Hinton (2020), "A simple framework for contrastive learning of
        visual representations".
    """
    views = torch.cat(_units(input1, input2, temperature))
    itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
    scores = (views @ views.mT / temperature).masked_fill(itself, -torch.inf)
    terms = _choice(scores.roll(len(input1), 1))
    return reduce(terms.reshape(2, -1).mean(0), reduction)


def _units(input1: Tensor, input2: Tensor, temperature: Scalar) -> tuple[Tensor, Tensor]:
    """The rows scaled to length 1."""
    above_0(temperature=temperature)
    same_shape("input1", input1, input2=input2)
    if input1.ndim != 2:
        raise ValueError(f"`input1` must have shape (n, d), got {tuple(input1.shape)}")
    return F.normalize(input1, dim=1), F.normalize(input2, dim=1)


def _choice(scores: Tensor) -> Tensor:
    """The cross-entropy of each row of scores, of which the diagonal one is right."""
    right = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, right, reduction="none")
