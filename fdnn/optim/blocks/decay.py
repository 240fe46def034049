"""Weight decay."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fdnn.optim.blocks.groups import masked
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree, Where

__all__ = ["add_decayed_weights"]


def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, mask: Where | None = None) -> Chain:
    r"""Add a multiple of the parameters: $u' = u + \lambda \theta$.

    Where it stands in a chain says what it is: before an optimizer's scaling, the gradient of the
    L2 penalty $\frac{\lambda}{2} \lVert \theta \rVert^2$ (torch's `weight_decay` of SGD and Adam);
    between the scaling and the learning rate, decoupled weight decay (AdamW's), which removes the
    share $\text{lr} \cdot \lambda$ of a parameter in each step.

    The optimizers with an argument `weight_decay` decay every leaf, as torch's do for one group.
    To spare biases and norms, either say so here, or give them a group of their own:

    - `chain(scale_by_adam(), add_decayed_weights(0.01, "*weight"), scale_by_learning_rate(lr))`;
    - `partition({"decay": adamw(lr), "rest": adamw(lr, weight_decay=0.0)}, labels)`.

    The weights of a batch norm match `"*weight"` too: choose by shape
    (`lambda path, leaf: leaf.ndim > 1`) or by layer (`names_by_type`).

    Args:
        weight_decay: the factor $\lambda$: a number, a 0-d tensor, or a schedule.
        mask: which leaves decay (all if left out): a glob on paths, several globs, or a predicate
            `(path, leaf)`. The updates of the others pass through.

    Raises:
        ValueError: `weight_decay` is negative, `update` is called without `params`, or a glob of
            `mask` matches no path (when used).

    Example:
        >>> import torch
        >>> tx = add_decayed_weights(0.5, mask="*weight")
        >>> grads = {"weight": torch.zeros(1), "bias": torch.zeros(1)}
        >>> params = {"weight": torch.ones(1), "bias": torch.ones(1)}
        >>> tx.update(grads, tx.init(params), params)[0]
        {'weight': tensor([0.5000]), 'bias': tensor([0.])}

    References:
        Loshchilov, Hutter (2019), "Decoupled weight decay regularization".
    """
    check(weight_decay=(weight_decay, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        factor = hyper["weight_decay"]
        return leafwise(lambda u, p: u + p * factor, updates, params), {}, {}

    tx = chain(
        Part(
            "decay",
            lambda params: {},
            update,
            {"weight_decay": weight_decay},
            elementwise=True,
            needs_params="weight decay needs them",
        )
    )
    return tx if mask is None else masked(tx, mask)
