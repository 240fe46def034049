"""Layer-wise scaling: steps as long as the parameters that they change."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["scale_by_trust_ratio"]


def scale_by_trust_ratio(
    min_norm: ScalarOrSchedule = 0.0,
    trust_coefficient: ScalarOrSchedule = 1.0,
    eps: ScalarOrSchedule = 0.0,
) -> Chain:
    r"""Give every leaf's update a length in proportion to that of its parameter.

    $u' = u \cdot \eta \lVert \theta \rVert / (\lVert u \rVert + \epsilon)$ for each leaf, with the
    Euclidean norms taken as at least `min_norm`. Where one of the two is 0, $u' = u$, so that a
    parameter that is zero (a new bias) can move at all.

    Args:
        min_norm: what smaller norms count as, at least 0.
        trust_coefficient: $\eta$, at least 0.
        eps: $\epsilon$, added to the norm of the update.

    Raises:
        ValueError: a value outside its range, or `update` is called without `params`.

    Example:
        >>> tx = scale_by_trust_ratio()
        >>> params = {"w": torch.tensor([3.0, 4.0]), "b": torch.zeros(1)}
        >>> updates = {"w": torch.tensor([0.0, 2.0]), "b": torch.ones(1)}
        >>> tx.update(updates, tx.init(params), params)[0]
        {'w': tensor([0., 5.]), 'b': tensor([1.])}

    References:
        You, Gitman, Ginsburg (2017), "Large batch training of convolutional networks". The names
        and the treatment of zero norms are optax's.
    """
    check(
        min_norm=(min_norm, 0.0, math.inf),
        trust_coefficient=(trust_coefficient, 0.0, math.inf),
        eps=(eps, 0.0, math.inf),
    )

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:

        def length(x: Tensor) -> Tensor:
            return torch.maximum(torch.linalg.vector_norm(x), hyper["min_norm"])

        def scaled(u: Tensor, p: Tensor) -> Tensor:
            of_u, of_p = length(u), length(p)
            is_zero = (of_u == 0) | (of_p == 0)
            # The inner `where` keeps 0 / 0 out of the derivative.
            divisor = torch.where(is_zero, 1.0, of_u + hyper["eps"])
            ratio = torch.where(is_zero, 1.0, hyper["trust_coefficient"] * of_p / divisor)
            return u * ratio

        return tree.map(scaled, updates, params), {}, {}

    hyperparams = {"min_norm": min_norm, "trust_coefficient": trust_coefficient, "eps": eps}
    return chain(
        Part(
            "trust_ratio",
            lambda params: {},
            update,
            hyperparams,
            needs_params="the trust ratio needs them",
        )
    )
