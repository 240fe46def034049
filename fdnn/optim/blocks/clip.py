"""Gradient clipping."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.optim.core.shapewise import all_but_first, shapewise, unit_norm
from fdnn.types import ScalarOrSchedule, Tree

__all__ = [
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_value",
]

_EPS = 1e-6  # as torch.nn.utils.clip_grad_norm_ adds to the norm
_LEAST = 1e-6  # by which `adaptive_grad_clip` divides at least, as optax's does


def clip(max_delta: ScalarOrSchedule) -> Chain:
    r"""Clip every element to $[-\delta, \delta]$, as `torch.nn.utils.clip_grad_value_` does.

    Unlike clipping by norm it changes the direction. Of complex numbers it clips the two parts.

    Args:
        max_delta: $\delta$: a number, a 0-d tensor, or a schedule.

    Raises:
        ValueError: `max_delta` is negative.

    Example:
        >>> tx = clip(1.0)
        >>> grads = {"w": torch.tensor([0.5, -3.0])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([ 0.5000, -1.0000])}
    """
    check(max_delta=(max_delta, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        return _between(updates, -hyper["max_delta"], hyper["max_delta"]), {}, {}

    return chain(
        Part("clip", lambda params: {}, update, {"max_delta": max_delta}, elementwise=True)
    )


def clip_by_value(min: ScalarOrSchedule, max: ScalarOrSchedule) -> Chain:
    """Clip every element to `[min, max]`, as `torch.clamp` does.

    Of complex numbers it clips the two parts.

    Args:
        min: the lower bound: a number, a 0-d tensor, or a schedule.
        max: the upper bound, likewise; where it is below `min`, it wins.

    Raises:
        ValueError: `min` is a number above the number `max`.

    Example:
        >>> tx = clip_by_value(-0.1, 1.0)
        >>> grads = {"w": torch.tensor([0.5, -3.0])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([ 0.5000, -0.1000])}
    """
    check(min=(min, -math.inf, math.inf), max=(max, -math.inf, math.inf))
    if isinstance(min, Real) and isinstance(max, Real) and min > max:
        raise ValueError(f"`min` must be at most `max`, got {min} and {max}")

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        return _between(updates, hyper["min"], hyper["max"]), {}, {}

    hyperparams: dict[str, ScalarOrSchedule] = {"min": min, "max": max}
    return chain(Part("clip", lambda params: {}, update, hyperparams, elementwise=True))


def clip_by_global_norm(max_norm: ScalarOrSchedule) -> Chain:
    r"""Shrink all gradients together so that their joint norm is at most `max_norm`.

    $g' = g \cdot \min(1, \text{max\_norm} / (\lVert g \rVert_2 + 10^{-6}))$, as
    `torch.nn.utils.clip_grad_norm_` does it. The norm before clipping is the diagnostic
    `grad_norm`.

    Args:
        max_norm: the largest norm: a number, a 0-d tensor, or a schedule.

    Raises:
        ValueError: `max_norm` is negative.

    Example:
        >>> tx = clip_by_global_norm(1.0)
        >>> grads = {"w": torch.tensor([3.0, 4.0])}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> updates["w"], state.diagnostics["grad_norm"]
        (tensor([0.6000, 0.8000]), tensor(5.))

    References:
        Pascanu, Mikolov, Bengio (2013), "On the difficulty of training recurrent neural networks".
    """
    check(max_norm=(max_norm, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        norm = tree.global_norm(updates)
        factor = (hyper["max_norm"] / (norm + _EPS)).clamp(max=1.0)
        return leafwise(lambda u: u * factor, updates), {}, {"grad_norm": norm}

    return chain(
        Part("clip", lambda params: {}, update, {"max_norm": max_norm}, diagnostics=("grad_norm",))
    )


def clip_by_block_rms(threshold: ScalarOrSchedule) -> Chain:
    r"""Shrink each leaf by itself so that its root mean square is at most `threshold`.

    $u' = u \cdot \min(1, \tau / \text{rms}(u))$ with $\text{rms}(u) = \lVert u \rVert_2 / \sqrt n$
    for a leaf of $n$ elements.

    Args:
        threshold: $\tau$: a number, a 0-d tensor, or a schedule.

    Raises:
        ValueError: `threshold` is negative.

    Example:
        >>> tx = clip_by_block_rms(1.0)
        >>> grads = {"w": torch.tensor([6.0, 8.0]), "b": torch.tensor([0.5])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([0.8485, 1.1314]), 'b': tensor([0.5000])}

    References:
        Shazeer, Stern (2018), "Adafactor: adaptive learning rates with sublinear memory cost".
    """
    check(threshold=(threshold, 0.0, math.inf))

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
        def clipped(u: Tensor) -> Tensor:
            rms = unit_norm(u) / math.sqrt(u.numel() or 1)
            positive = rms.clamp(min=torch.finfo(rms.dtype).tiny)
            return u * (hyper["threshold"] / positive).clamp(max=1.0)

        return shapewise(clipped, stored, updates), {}, {}

    return chain(Part("clip", lambda params: {}, update, {"threshold": threshold}))


def adaptive_grad_clip(clipping: ScalarOrSchedule, eps: ScalarOrSchedule = 1e-3) -> Chain:
    r"""Keep the gradient of each unit's weights small beside these weights.

    For the weights $w_i$ of unit $i$, with the largest norm $m_i = \lambda \max(\lVert w_i \rVert,
    \epsilon)$: $g_i' = g_i \, m_i / \lVert g_i \rVert$ where $\lVert g_i \rVert \geq m_i$, else
    $g_i$.

    A unit is what shares the first index of a leaf: a neuron's row of a linear layer, a kernel of
    a convolution. A scalar and a leaf with no more than one dimension above 1, such as a bias,
    are one unit.

    Args:
        clipping: $\lambda$, the largest ratio of the norms: a number, a 0-d tensor, or a schedule.
        eps: $\epsilon$, which lets weights of zero move.

    Raises:
        ValueError: a value is negative, or `update` is called without `params`.

    Example:
        >>> tx = adaptive_grad_clip(0.1)
        >>> params = {"w": torch.tensor([[3.0, 4.0], [0.6, 0.8]])}
        >>> tx.update({"w": torch.tensor([[0.3, 0.0], [0.3, 0.0]])}, tx.init(params), params)[0]
        {'w': tensor([[0.3000, 0.0000],
                [0.1000, 0.0000]])}

    References:
        Brock, De, Smith, Simonyan (2021), "High-performance large-scale image recognition without
        normalization". Units as in optax, but where torch keeps them: the output dimension comes
        first. The paper does not clip the last linear layer: see `masked`.
    """
    check(clipping=(clipping, 0.0, math.inf), eps=(eps, 0.0, math.inf))

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

        def clipped(g: Tensor, p: Tensor) -> Tensor:
            is_one = sum(size != 1 for size in g.shape) < 2
            dim = None if is_one else all_but_first(g)
            norm, own = unit_norm(g, dim), unit_norm(p, dim)
            largest = hyper["clipping"] * torch.maximum(own, hyper["eps"].to(own.dtype))
            shrunk = g * (largest / norm.clamp(min=_LEAST))
            return torch.where(norm < largest, g, shrunk)

        return shapewise(clipped, stored, updates, params), {}, {}

    hyperparams: dict[str, ScalarOrSchedule] = {"clipping": clipping, "eps": eps}
    return chain(
        Part(
            "clip",
            lambda params: {},
            update,
            hyperparams,
            needs_params="clipping compares with them",
        )
    )


def _between(updates: Tree, low: Tensor, high: Tensor) -> Tree:
    return leafwise(lambda u: torch.clamp(u, low, high), updates)
