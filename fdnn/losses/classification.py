"""Losses of predicted distributions: over classes, of a yes or no, and between two of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fdnn.losses.check import in_0_1, same_shape
from fdnn.losses.reduction import Reduction, check_reduction, reduce
from fdnn.types import Scalar

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "kl_div"]


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: Scalar = 0.0,
) -> Tensor:
    r"""Compare logits with classes: $\ell = -w_t \log \mathrm{softmax}(x)_t$.

    With probabilities $q$ as target $\ell = -\sum_c w_c \, q_c \log \mathrm{softmax}(x)_c$. Label
    smoothing $\varepsilon$ puts $(1 - \varepsilon) q + \varepsilon / C$ in place of $q$ (of the
    one-hot vector of $t$). It is `torch.nn.functional.cross_entropy`.

    Args:
        input: $x$, logits of shape `(C,)`, `(n, C)` or `(n, C, ...)`.
        target: $t$, classes of shape `()`, `(n,)` or `(n, ...)`, integers; or $q$, of the shape of
            `input`.
        weight: $w$, of shape `(C,)`; as in torch it has no derivative.
        ignore_index: a class that marks what does not count. It is for integer targets.
        reduction: "none", "mean" or "sum". The mean over classes $t$ is weighted: the sum divided
            by that of the $w_t$ which count, nan if there are none. With probabilities it is the
            sum divided by the number of examples.
        label_smoothing: $\varepsilon$.

    Returns:
        A 0-d tensor, or with "none" a tensor of shape `()`, `(n,)` or `(n, ...)`, zero where
        ignored.

    Raises:
        ValueError: `reduction` is unknown, or `label_smoothing` not in [0, 1].

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
        >>> cross_entropy(logits, torch.tensor([0, 1]), reduction="none")
        tensor([0.1269, 0.6931])

    References:
        Szegedy, Vanhoucke, Ioffe, Shlens, Wojna (2016), "Rethinking the inception architecture
        for computer vision", for label smoothing.
    """
    check_reduction(reduction)
    in_0_1(label_smoothing=label_smoothing)

    def smoothed(amount: float) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=amount,
        )

    if not isinstance(label_smoothing, Tensor):
        return smoothed(label_smoothing)
    # torch's takes a float; the loss is linear in it.
    hard = smoothed(0.0)
    return hard + label_smoothing * (smoothed(1.0) - hard)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    r"""Compare logits with yes or no.

    $\ell = -w \, (p \, t \log \sigma(x) + (1 - t) \log \sigma(-x))$, as
    `torch.nn.functional.binary_cross_entropy_with_logits`, but differentiable in both weights.

    Args:
        input: $x$, logits of any shape.
        target: $t$ in [0, 1], of the shape of `input`; integers and booleans will do.
        weight: $w$, a factor on the terms, of a shape that broadcasts to theirs. "mean" does not
            divide by it.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of elements.
        pos_weight: $p$, a factor on the positive part, of a shape that broadcasts to the terms'.
            Above 1 it raises recall, below 1 precision.

    Raises:
        ValueError: the shapes of `input` and `target` differ, or `reduction` is unknown.

    Example:
        >>> logits, target = torch.tensor([2.0, 0.0]), torch.tensor([1, 0])
        >>> binary_cross_entropy_with_logits(logits, target, reduction="none")
        tensor([0.1269, 0.6931])
    """
    check_reduction(reduction)
    same_shape("input", input, target=target)
    target = target if target.is_floating_point() else target.to(input.dtype)
    yes, no = target * F.logsigmoid(input), (1 - target) * F.logsigmoid(-input)
    terms = -(yes + no) if pos_weight is None else -(pos_weight * yes + no)
    return reduce(terms if weight is None else weight * terms, reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    *,
    reduction: Reduction | Literal["batchmean"] = "mean",
    log_target: bool = False,
) -> Tensor:
    r"""Measure the Kullback-Leibler divergence: $\ell = q \, (\log q - \log p)$, by element.

    The divergence of $q$ from $p$ is the sum over their support, and `reduction="batchmean"` its
    mean over examples. "mean" divides by the size of the support as well, as torch's does (with a
    warning). The terms are those of `torch.nn.functional.kl_div`, which does not vmap.

    Args:
        input: $\log p$, of shape `(n, ...)`.
        target: $q$, or $\log q$ if `log_target`, of the shape of `input`. Where $q = 0$ the term
            is 0.
        reduction: "none", "mean", "sum" or "batchmean", the sum divided by $n$.
        log_target: whether `target` holds logarithms.

    Raises:
        ValueError: the shapes differ, or `reduction` is unknown.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
        >>> kl_div(p.log(), q, reduction="batchmean")
        tensor(0.6931)
    """
    check_reduction(reduction, ("none", "mean", "sum", "batchmean"))
    same_shape("input", input, target=target)
    if log_target:
        terms = target.exp() * (target - input)
    else:
        terms = torch.xlogy(target, target) - target * input
    if reduction == "batchmean":
        return terms.sum() / (input.shape[0] if input.ndim else 1)
    return reduce(terms, reduction)
