"""Knowledge distillation: a student learns from classes and from what a teacher makes of them."""

from __future__ import annotations

from torch import Tensor

from fdnn.losses.check import above_0, in_0_1, same_shape
from fdnn.losses.classification import cross_entropy, kl_div
from fdnn.losses.reduction import Reduction, check_reduction, reduce
from fdnn.types import Scalar

__all__ = ["distillation_loss"]


def distillation_loss(
    input: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    temperature: Scalar = 2.0,
    alpha: Scalar = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Compare a student's logits with a teacher's and with classes.

    $\ell = \alpha \, T^2 \, \mathrm{KL}(q \| p) + (1 - \alpha) \, \mathrm{CE}(x, t)$ with $q =
    \mathrm{softmax}(z / T)$, $p = \mathrm{softmax}(x / T)$. The factor $T^2$ keeps the gradients of
    both parts of one size while $T$ changes. For a large $T$ the first part tends to half the
    squared distance of the centred logits, divided by their number.

    Args:
        input: $x$, the student's logits of shape `(n, C)` or `(C,)`.
        teacher: $z$, the teacher's, of the shape of `input`. The loss has a derivative in them as
            well; `train.value_and_grad` takes none, if they come with the batch.
        target: $t$, classes of shape `(n,)` or `()`, integers; or probabilities of the shape of
            `input`.
        temperature: $T$, above 0. Above 1, classes that the teacher finds unlikely count more.
        alpha: $\alpha$, the share of the teacher, in [0, 1].
        reduction: "none" (one for each example), "mean" or "sum".

    Returns:
        A 0-d tensor, or with "none" a tensor of shape `(n,)` or `()`.

    Raises:
        ValueError: the shapes of `input` and `teacher` differ, `temperature` is not positive,
            `alpha` is not in [0, 1], or `reduction` is unknown.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
        >>> distillation_loss(student, teacher, torch.tensor([0]))
        tensor(0.3371)
        >>> distillation_loss(teacher, teacher, torch.tensor([0]), alpha=1.0)
        tensor(0.)

    References:
        Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network". The paper
        writes the first part as a cross-entropy with the teacher's probabilities, which differs by
        a constant; as a divergence it is 0 where the student agrees.
    """
    above_0(temperature=temperature)
    in_0_1(alpha=alpha)
    check_reduction(reduction)
    same_shape("input", input, teacher=teacher)
    soft = kl_div(
        (input / temperature).log_softmax(-1),
        (teacher / temperature).log_softmax(-1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    hard = cross_entropy(input, target, reduction="none")
    return reduce(alpha * temperature**2 * soft + (1 - alpha) * hard, reduction)
