"""Losses of distances between embeddings, of pairs and of triplets."""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn.losses.check import above_0, labels_fit, same_shape
from fdnn.losses.reduction import Reduction, reduce
from fdnn.types import Scalar

__all__ = ["contrastive_loss", "cosine_embedding_loss", "triplet_margin_loss"]

_EPS = 9.999999960041972e-13  # torch's: 1e-12, rounded to float32


def contrastive_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    *,
    margin: Scalar = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Pull similar pairs together, and push others apart up to a margin.

    $\ell = \frac12 D^2$ for a similar pair, else $\frac12 \max(0, m - D)^2$, with the Euclidean
    distance $D = \lVert x_1 - x_2 \rVert$.

    Args:
        input1: $x_1$, embeddings of shape `(n, d)`.
        input2: $x_2$, of the shape of `input1`.
        target: above 0 (1, True) where the pair is similar, else (0, -1, False) not, of shape
            `(n,)`.
        margin: $m$, the distance beyond which pairs are left alone.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: the shapes do not fit, `margin` is not positive, or `reduction` is unknown.

    Example:
        >>> x1, x2 = torch.zeros(2, 2), torch.tensor([[0.6, 0.8], [0.3, 0.4]])
        >>> contrastive_loss(x1, x2, torch.tensor([True, False]), reduction="none")
        tensor([0.5000, 0.1250])

    References:
        Hadsell, Chopra, LeCun (2006), "Dimensionality reduction by learning an invariant mapping".
        Its labels are the other way round: there 1 means dissimilar.
    """
    above_0(margin=margin)
    same_shape("input1", input1, input2=input2)
    labels_fit(target, input1)
    gap = input1 - input2
    short = (margin - torch.linalg.vector_norm(gap, dim=-1)).clamp_min(0)
    terms = torch.where(target > 0, gap.square().sum(-1), short.square())
    return reduce(0.5 * terms, reduction)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    *,
    margin: Scalar = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Align similar pairs, and turn others apart.

    $\ell = 1 - \cos(x_1, x_2)$ for a similar pair, else $\max(0, \cos(x_1, x_2) - m)$. It is
    `torch.nn.functional.cosine_embedding_loss`.

    Args:
        input1: $x_1$, embeddings of shape `(n, d)` or `(d,)`.
        input2: $x_2$, of the shape of `input1`.
        target: 1 where the pair is similar, -1 where not, of shape `(n,)` or `()`; as in torch,
            another value makes the term 0.
        margin: $m$, the cosine below which pairs are left alone.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: the shapes do not fit, or `reduction` is unknown.

    Example:
        >>> x1, x2 = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
        >>> cosine_embedding_loss(x1, x2, torch.tensor([1, -1]), reduction="none")
        tensor([1., 1.])
    """
    same_shape("input1", input1, input2=input2)
    labels_fit(target, input1)
    lengths = (input1.square().sum(-1) + _EPS) * (input2.square().sum(-1) + _EPS)
    cosine = (input1 * input2).sum(-1) / lengths.sqrt()
    apart = torch.where(target == -1, (cosine - margin).clamp_min(0), 0.0)
    return reduce(torch.where(target == 1, 1 - cosine, apart), reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: Scalar = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Keep an anchor closer to a positive than to a negative, by a margin.

    $\ell = \max(0, d(a, x^+) - d(a, x^-) + m)$ with $d(x, y) = \lVert x - y + \epsilon \rVert_p$.
    It is `torch.nn.functional.triplet_margin_loss`, which does not vmap.

    Args:
        anchor: $a$, embeddings of shape `(n, d)` or `(d,)`.
        positive: $x^+$, of a class with the anchor, of its shape.
        negative: $x^-$, of another class, of the same shape.
        margin: $m$.
        p: the norm's degree.
        eps: $\epsilon$, which keeps the norm's gradient finite.
        swap: use the positive's distance to the negative where it is the smaller one.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: the shapes differ, `margin` is not positive, or `reduction` is unknown.

    Example:
        >>> a, near, far = torch.zeros(1, 2), torch.ones(1, 2), torch.full((1, 2), 1.5)
        >>> triplet_margin_loss(a, near, far)
        tensor(0.2929)

    References:
        Balntas, Riba, Ponsa, Mikolajczyk (2016), "Learning local feature descriptors with triplets
        and shallow convolutional neural networks", for `swap`.
    """
    above_0(margin=margin)
    same_shape("anchor", anchor, positive=positive, negative=negative)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(x - y + eps, p, dim=-1)
        return length

    far = distance(anchor, negative)
    if swap:
        far = torch.minimum(far, distance(positive, negative))
    return reduce((margin + distance(anchor, positive) - far).clamp_min(0), reduction)
