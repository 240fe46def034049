"""Updates made regular: centred, of norm 1, without nans."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.optim.core.shapewise import all_but_first, shapewise
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["centralize", "normalize_by_update_norm", "zero_nans"]


def centralize() -> Chain:
    r"""Subtract from each unit's gradient its mean.

    $g_i' = g_i - \text{mean}(g_i)$ for the weights $i$ of a unit, which are those that share the
    first index of a leaf: a neuron's row of a linear layer, a kernel of a convolution. Scalars
    and vectors, such as biases, stay as they are.

    Example:
        >>> tx = centralize()
        >>> grads = {"w": torch.tensor([[1.0, 3.0], [5.0, 5.0]]), "b": torch.ones(1)}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([[-1.,  1.],
                [ 0.,  0.]]), 'b': tensor([1.])}

    References:
        Yong, Huang, Hua, Zhang (2020), "Gradient centralization: a new optimization technique for
        deep neural networks".
    """

    def centred(u: Tensor) -> Tensor:
        return u - u.mean(all_but_first(u), keepdim=True) if u.ndim > 1 else u

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        *,
        stored: Tree,
        **_: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        return shapewise(centred, stored, updates), {}, {}

    return chain(Part("centralize", lambda params: {}, update))


def normalize_by_update_norm(
    scale_factor: ScalarOrSchedule = 1.0, eps: ScalarOrSchedule = 1e-6
) -> Chain:
    r"""Bring all updates together to the norm `scale_factor`.

    $u' = s \, u / (\lVert u \rVert_2 + \epsilon)$, the norm taken over all leaves. It is the
    diagnostic `update_norm`.

    Args:
        scale_factor: $s$, of either sign: a number, a 0-d tensor, or a schedule.
        eps: $\epsilon$, for updates that are all zero.

    Raises:
        ValueError: `eps` is negative.

    Example:
        >>> tx = normalize_by_update_norm()
        >>> grads = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> updates, state.diagnostics["update_norm"]
        ({'a': tensor([0.6000]), 'b': tensor([0.8000])}, tensor(5.))
    """
    check(scale_factor=(scale_factor, -math.inf, math.inf), eps=(eps, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        norm = tree.global_norm(updates)
        factor = hyper["scale_factor"] / (norm + hyper["eps"])
        return leafwise(lambda u: u * factor, updates), {}, {"update_norm": norm}

    hyperparams: dict[str, ScalarOrSchedule] = {"scale_factor": scale_factor, "eps": eps}
    return chain(
        Part("normalize", lambda params: {}, update, hyperparams, diagnostics=("update_norm",))
    )


def zero_nans() -> Chain:
    """Replace nans by 0; how many there were is the diagnostic `nan_count`.

    Infinities stay. Put it first in a chain: a nan that has reached a moment stays there.

    Example:
        >>> tx = zero_nans()
        >>> grads = {"w": torch.tensor([1.0, float("nan")])}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> updates, state.diagnostics["nan_count"]
        ({'w': tensor([1., 0.])}, tensor(1.))
    """

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        *,
        stored: Tree,
        **_: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        # Of a complex number with one nan part, nothing stays.
        clean = shapewise(lambda u: torch.where(torch.isnan(u), 0.0, u), stored, updates)
        found = torch.zeros_like(count, dtype=torch.float32)
        for like, u in zip(*tree.columns(stored, updates), strict=True):
            nan = torch.isnan(u).any(-1) if like.is_complex() else torch.isnan(u)
            found = found + nan.sum()
        return clean, {}, {"nan_count": found}

    return chain(Part("zero_nans", lambda params: {}, update, diagnostics=("nan_count",)))
