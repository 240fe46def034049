"""Shampoo: a preconditioner for every dimension of a tensor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.decay import add_decayed_weights
from fdnn.optim.blocks.learning_rate import scale_by_learning_rate
from fdnn.optim.core.branch import either
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check, is_zero
from fdnn.optim.core.modes import (
    Matrices,
    eigh,
    gram,
    like,
    mode_product,
    real_leaves,
    square_zeros,
)
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.optim.sgd import scale_by_momentum
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["scale_by_shampoo", "shampoo"]


def scale_by_shampoo(epsilon: ScalarOrSchedule = 1e-4, update_freq: int = 1) -> Chain:
    r"""Multiply a gradient by an inverse root of its past along every dimension.

    For a gradient $G_t$ with $k$ dimensions, $H^i_t = H^i_{t-1} + G_t^{(i)} G_t^{(i)\top}$ for
    each dimension $i$, where $G^{(i)}$ has that dimension for rows and all others for columns.
    The direction is $G_t \times_1 (H^1_t + \epsilon I)^{-1/2k} \cdots \times_k (H^k_t +
    \epsilon I)^{-1/2k}$: for a matrix $L^{-1/4} G R^{-1/4}$, for a vector full-matrix AdaGrad.

    The slots hold, by path and dimension, the sums $H^i$ (`precond`) and the inverse roots in use
    (`inv_precond`), in float32 at least. A dimension of size $n$ costs two matrices of size
    $n \times n$, and an eigendecomposition at every `update_freq`-th step; under a transform or
    the compiler, where no step knows its number, at every step.

    First derivatives through a step are exact, also where eigenvalues coincide; second ones are
    not, because the inverse root is then taken to be linear.

    Args:
        epsilon: $\epsilon$, above 0.
        update_freq: every how many steps the roots are computed anew, from the first step on.

    Raises:
        ValueError: a value outside its range.
        TypeError: a parameter is complex (when used).

    Example:
        >>> tx = scale_by_shampoo(epsilon=1e-8)
        >>> grads = {"w": torch.tensor([[9.0, 0.0], [0.0, 0.5]])}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> updates["w"].diagonal()
        tensor([1.0000, 1.0000])
        >>> state.slots["precond"]["w"]["0"].diagonal()
        tensor([81.0000,  0.2500])

    References:
        Gupta, Koren, Singer (2018), "Shampoo: preconditioned stochastic tensor optimization",
        algorithm 2. A scalar is treated as a vector of length 1.
    """
    check(epsilon=(epsilon, 0.0, math.inf), update_freq=(update_freq, 1, math.inf))
    if is_zero(epsilon):
        raise ValueError(f"`epsilon` must be above 0, got {epsilon}")

    def init(params: Tree) -> dict[str, Tree]:
        found = {p: _at_least_1d(x) for p, x in real_leaves("shampoo", params).items()}
        zeros = square_zeros(found, lambda leaf: range(leaf.ndim))
        return {"precond": zeros, "inv_precond": zeros}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        moved = tree.select(updates)
        sums: dict[str, Matrices] = {}
        roots: dict[str, Matrices] = {}
        for path, old in slots["precond"].items():
            g = _at_least_1d(moved[path])
            new = {i: h + gram(g, int(i)) for i, h in old.items()}

            def fresh(new: Matrices = new) -> Matrices:
                power = 1 / (2 * len(new))
                return {i: _inverse_root(h, power, hyper["epsilon"]) for i, h in new.items()}

            sums[path] = new
            kept = slots["inv_precond"][path]
            roots[path] = either(count % update_freq == 0, fresh, lambda kept=kept: kept)  # type: ignore[misc]
            moved[path] = mode_product(g, roots[path]).reshape(moved[path].shape)
        return like(updates, moved), {"precond": sums, "inv_precond": roots}, {}

    return chain(
        Part("shampoo", init, update, {"epsilon": epsilon}, slots=("precond", "inv_precond"))
    )


def shampoo(
    lr: ScalarOrSchedule = 1e-1,
    momentum: ScalarOrSchedule = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    epsilon: ScalarOrSchedule = 1e-4,
    update_freq: int = 1,
) -> Chain:
    r"""Shampoo, with weight decay before the preconditioners and momentum after them.

    $\theta_t = \theta_{t-1} - \text{lr} \, b_t$, $b_t = \mu b_{t-1} + P_t(g_t + \lambda
    \theta_{t-1})$, with the preconditioning $P_t$ of `scale_by_shampoo`.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        momentum: $\mu$, in [0, 1).
        weight_decay: $\lambda$, the factor of an L2 penalty, added to the gradient.
        epsilon: added to the diagonal of the preconditioners, above 0.
        update_freq: every how many steps the inverse roots are computed anew.

    Raises:
        ValueError: a value outside its range.
        TypeError: a parameter is complex (when used).

    Example:
        >>> from fdnn import optim
        >>> tx = shampoo(lr=0.1, epsilon=1e-8)
        >>> params = {"w": torch.eye(2)}
        >>> optim.step(tx, params, {"w": torch.eye(2) * 5}, tx.init(params))[0]
        {'w': tensor([[0.9000, 0.0000],
                [0.0000, 0.9000]])}

    References:
        Gupta, Koren, Singer (2018), "Shampoo: preconditioned stochastic tensor optimization".
        Arguments and defaults are those of the package torch_optimizer, which however takes the
        exponent -1/k, and mixes the last step into the gradient for momentum.
    """
    before = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay)]
    after = [] if is_zero(momentum) else [scale_by_momentum(momentum)]
    return chain(
        *before, scale_by_shampoo(epsilon, update_freq), *after, scale_by_learning_rate(lr)
    )


def _at_least_1d(x: Tensor) -> Tensor:
    return x.reshape(x.shape or (1,))


def _inverse_root(matrix: Tensor, power: float, epsilon: Tensor) -> Tensor:
    r"""Return $(H + \epsilon I)^{-p}$ for a positive semidefinite matrix.

    With $H = V \Lambda V^\top$ it is $V f(\Lambda) V^\top$, and its differential $V (\Gamma \circ
    V^\top dH V) V^\top$, where $\Gamma_{ij} = (f(\lambda_i) - f(\lambda_j)) / (\lambda_i -
    \lambda_j)$, or $f'(\lambda_i)$ if they are equal. That exists also where the derivative of
    the eigenvectors does not; so they are constants here, and the differential is written out.
    """
    values, v = eigh(matrix.detach())
    values = values.clamp(min=0.0) + epsilon.to(matrix.dtype)
    f = values**-power
    fixed, fixed_f = values.detach(), f.detach()
    log = fixed.log()
    gap = log.unsqueeze(1) - log
    equal = gap == 0
    ratio = torch.expm1(-power * gap) / torch.expm1(torch.where(equal, 1.0, gap))
    slopes = torch.where(equal, -power, ratio) * (fixed_f / fixed)
    change = v.mT @ (matrix - matrix.detach()) @ v
    return v @ (torch.diag(f) + slopes * change) @ v.mT
