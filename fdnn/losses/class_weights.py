"""Weights that make up for classes with few examples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level

from fdnn.losses.check import in_0_1
from fdnn.types import Scalar

__all__ = ["class_weights"]


def class_weights(targets: Tensor, num_classes: int, *, beta: Scalar = 1.0) -> Tensor:
    r"""Weigh classes by how few examples they have, for the `weight` of `cross_entropy`.

    $w_c = \frac{n}{k n_c}$ with $n$ examples in all, $n_c$ of class $c$, and $k$ classes: all
    classes count alike ("balanced"). With $\beta < 1$ large classes keep some of their weight:
    $w_c \propto 1 / E_c$, where $E_c = \frac{1 - \beta^{n_c}}{1 - \beta}$ is the effective number
    of examples, which is $n_c$ for $\beta = 1$ and 1 for $\beta = 0$. The mean of $w_t$ over the
    examples is 1 for every $\beta$, so the size of the loss and a good learning rate stay.

    Args:
        targets: $t$, classes of all training examples, integers of any shape.
        num_classes: $k$.
        beta: $\beta$, in [0, 1].

    Returns:
        Weights of shape `(num_classes,)`, float32.

    Raises:
        ValueError: `targets` holds no integers; a label is not in [0, num_classes), or a class has
            no example (under vmap and the compiler, where values cannot be seen, such a class has
            the weight inf); `num_classes` or `beta` is out of range.

    Example:
        >>> targets = torch.tensor([0, 0, 0, 1])
        >>> class_weights(targets, 2)
        tensor([0.6667, 2.0000])
        >>> class_weights(targets, 2, beta=0.5)
        tensor([0.8421, 1.4737])

    References:
        King, Zeng (2001), "Logistic regression in rare events data", for the balanced weights,
        which are scikit-learn's.
        Cui, Jia, Lin, Song, Belongie (2019), "Class-balanced loss based on effective number of
        samples", whose weights add up to $k$ instead.
    """
    in_0_1(beta=beta)
    if num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1, got {num_classes}")
    if targets.is_floating_point() or targets.is_complex():
        raise ValueError(f"`targets` must hold integers, got {targets.dtype}")
    labels = targets.flatten().to(torch.int64)
    can_see = not torch.compiler.is_compiling() and maybe_current_level() is None
    outside = labels[(labels < 0) | (labels >= num_classes)] if can_see else labels[:0]
    if outside.numel():
        raise ValueError(f"`targets` must be in [0, {num_classes}), got {outside[0].item()}")
    count = _wide(labels.new_zeros(num_classes)).scatter_add(
        0, labels, _wide(torch.ones_like(labels))
    )
    if can_see and not count.all():
        empty = (count == 0).nonzero().flatten().tolist()
        raise ValueError(f"`targets` must have examples of every class, got none of {empty}")
    effective = _effective(count, beta)
    return (count.sum() / effective / (count / effective).nan_to_num(0.0).sum()).float()


def _effective(count: Tensor, beta: Scalar) -> Tensor:
    """The effective number of examples: the sum of the first `count` powers of beta."""
    rest = _wide(torch.as_tensor(1 - beta, device=count.device))
    some = torch.where(rest > 0, rest, 1.0)
    return torch.where(rest > 0, -torch.expm1(count * torch.log1p(-some)) / some, count)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)
