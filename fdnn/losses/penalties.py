r"""Penalties on parameters, to be added to a loss.

`l2_penalty` has the factor 1/2 in it, so that `wd * l2_penalty(params)` has the gradient
$wd \, \theta$: added to the loss it *is* `weight_decay=wd` of `optim.sgd` (and of every optimizer
that adds decay to the gradient, as `optim.adam` does and `optim.adamw` does not). The plain sum of
squares times $wd$ would decay twice as fast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fdnn import tree
from fdnn.losses.check import at_least_0
from fdnn.types import Scalar, Tree, Where

__all__ = ["elastic_penalty", "l1_penalty", "l2_penalty"]


def l1_penalty(params: Tree, where: Where | None = None) -> Tensor:
    r"""Sum the sizes of parameters: $\lVert \theta \rVert_1 = \sum_i |\theta_i|$.

    At 0 the gradient is 0, so that gradient descent is that of `optim.add_l1`. Complex numbers
    count as two reals. For parameters that become exactly 0 see `optim.proximal_l1`.

    Args:
        params: $\theta$, a tree of tensors.
        where: which leaves are penalized (all if left out): a glob on paths, several globs, or a
            predicate `(path, leaf)`.

    Returns:
        A 0-d tensor, in float32 at least. It is 0 if there are no leaves.

    Raises:
        ValueError: a glob of `where` matches no path.

    Example:
        >>> params = {"0.weight": torch.tensor([1.0, -2.0]), "0.bias": torch.tensor([5.0])}
        >>> l1_penalty(params, "*.weight")
        tensor(3.)

    References:
        Tibshirani (1996), "Regression shrinkage and selection via the lasso".
    """
    return _total(torch.abs, params, where)


def l2_penalty(params: Tree, where: Where | None = None) -> Tensor:
    r"""Sum the squares of parameters, and halve: $\frac12 \sum_i |\theta_i|^2$.

    Its gradient is $\theta$. So a loss plus `wd * l2_penalty(params)` makes `optim.sgd(lr)` take
    the steps of `optim.sgd(lr, weight_decay=wd)`, with momentum as well; $wd \sum_i \theta_i^2$
    would be `weight_decay=2 * wd`. With `optim.adamw`, whose decay does not pass through the
    gradient, there is no such identity.

    Args:
        params: $\theta$, a tree of tensors.
        where: which leaves are penalized (all if left out): a glob on paths, several globs, or a
            predicate `(path, leaf)`.

    Returns:
        A 0-d tensor, in float32 at least. It is 0 if there are no leaves.

    Raises:
        ValueError: a glob of `where` matches no path.

    Example:
        >>> from fdnn import functionalize, losses, optim, train
        >>> model = functionalize(torch.nn.Linear(4, 1))
        >>> fit_loss = train.supervised(model, losses.mse_loss)
        >>> def loss(params, buffers, batch, key):
        ...     value, buffers = fit_loss(params, buffers, batch, key)
        ...     return value + 1e-4 * l2_penalty(params, "weight"), buffers
        >>> step = train.make_step(loss, optim.sgd(lr=0.1))
        >>> l2_penalty({"w": torch.tensor([3.0, 4.0])})
        tensor(12.5000)
    """
    return 0.5 * _total(torch.square, params, where)


def elastic_penalty(params: Tree, l1: Scalar, l2: Scalar, where: Where | None = None) -> Tensor:
    r"""Weigh both: $\lambda_1 \sum_i |\theta_i| + \frac{\lambda_2}{2} \sum_i |\theta_i|^2$.

    Args:
        params: $\theta$, a tree of tensors.
        l1: $\lambda_1$, the factor of `l1_penalty`.
        l2: $\lambda_2$, the factor of `l2_penalty`: weight decay.
        where: which leaves are penalized (all if left out): a glob on paths, several globs, or a
            predicate `(path, leaf)`.

    Returns:
        A 0-d tensor, in float32 at least. It is 0 if there are no leaves.

    Raises:
        ValueError: `l1` or `l2` is negative, or a glob of `where` matches no path.

    Example:
        >>> elastic_penalty({"w": torch.tensor([3.0, -4.0])}, l1=1.0, l2=2.0)
        tensor(32.)

    References:
        Zou, Hastie (2005), "Regularization and variable selection via the elastic net". There the
        squares are not halved.
    """
    at_least_0(l1=l1, l2=l2)
    return l1 * l1_penalty(params, where) + l2 * l2_penalty(params, where)


def _total(size: Callable[[Tensor], Tensor], params: Tree, where: Where | None) -> Tensor:
    """The sum of a function of all real numbers in the chosen leaves."""
    chosen = tree.leaves(params if where is None else tree.select(params, where))
    reals = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in chosen]
    parts = [size(x).sum(dtype=torch.promote_types(x.dtype, torch.float32)) for x in reals]
    return sum(parts[1:], parts[0]) if parts else torch.zeros(())
