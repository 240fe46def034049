"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.adam import Betas
from fdnn.optim.core.branch import either
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.leafwise import leafwise
from fdnn.optim.core.modes import (
    Matrices,
    eigh,
    gram,
    like,
    mode_product,
    real_leaves,
    square_zeros,
)
from fdnn.optim.core.moments import bias_correction, root, where
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["scale_by_soap", "soap"]


def scale_by_soap(
    betas: Betas = (0.95, 0.95),
    shampoo_beta: ScalarOrSchedule = -1,
    eps: ScalarOrSchedule = 1e-8,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10000,
    precondition_1d: bool = False,
    correct_bias: bool = True,
) -> Chain:
    r"""Rotate gradients into the eigenbasis of their second moments, run Adam there, rotate back.

    For each dimension $i$ of a leaf, $L^i_t = \beta_s L^i_{t-1} + (1 - \beta_s) G_t^{(i)}
    G_t^{(i)\top}$ (rows: that dimension, columns: all others), and $Q^i$ are its eigenvectors.
    With $m$ the running mean of $G$ and $v$ that of the squares of $G' = G \times_i Q^{i\top}$,
    the direction is $c \, (m' / (\sqrt v + \epsilon)) \times_i Q^i$, $m' = m \times_i Q^{i\top}$,
    $c = \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)$.

    The first step only computes the bases, by eigendecomposition: its direction is 0, and $t$
    counts from the second. Every `precondition_frequency` steps, after the direction, a basis
    is refreshed: its vectors are ordered by their share $\text{diag}(Q^\top L Q)$, $v$ with them,
    and $Q$ becomes the orthogonal factor of $L Q$. Under a transform or the compiler, where no
    step knows its number, both decompositions are computed at every step.

    The slots `GG` ($L$) and `Q` hold matrices by path and dimension, in float32 at least. Leaves
    without one take part by plain Adam. Derivatives through a step take the bases for constants:
    where eigenvalues coincide, as they do while a matrix has seen few gradients, theirs do not
    exist.

    Args:
        betas: $(\beta_1, \beta_2)$, each in [0, 1).
        shampoo_beta: $\beta_s$, in [0, 1), or -1 to use $\beta_2$.
        eps: $\epsilon$, added to the root.
        precondition_frequency: the number of steps between two refreshments of a basis.
        max_precondition_dim: larger dimensions are not rotated.
        precondition_1d: rotate vectors too.
        correct_bias: multiply by $c$.

    Raises:
        ValueError: a value outside its range.
        TypeError: a parameter is complex (when used).

    Example:
        >>> tx = scale_by_soap()
        >>> grads = {"w": torch.tensor([[0.0, 2.0], [3.0, 0.0]])}
        >>> _, state = tx.update(grads, tx.init(grads))
        >>> tx.update(grads, state)[0]["w"].round(decimals=3)
        tensor([[0., 1.],
                [1., 0.]])

    References:
        Vyas et al. (2024), "SOAP: improving and stabilizing Shampoo using Adam".
    """
    check(
        beta1=(betas[0], 0.0, 1.0),
        beta2=(betas[1], 0.0, 1.0),
        eps=(eps, 0.0, math.inf),
        precondition_frequency=(precondition_frequency, 1, math.inf),
        max_precondition_dim=(max_precondition_dim, 1, math.inf),
    )
    shared = isinstance(shampoo_beta, int | float) and shampoo_beta == -1
    if not shared:
        check(shampoo_beta=(shampoo_beta, 0.0, 1.0))

    def dims(leaf: Tensor) -> list[int]:
        rotated = leaf.ndim > 1 or precondition_1d
        return [i for i, n in enumerate(leaf.shape) if rotated and n <= max_precondition_dim]

    def init(params: Tree) -> dict[str, Tree]:
        zeros = square_zeros(real_leaves("soap", params), dims)
        return {
            "exp_avg": tree.zeros_like(params),
            "exp_avg_sq": tree.zeros_like(params),
            "GG": zeros,
            "Q": tree.map(lambda x: x + torch.eye(len(x), dtype=x.dtype, device=x.device), zeros),
        }

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        beta1, beta2, eps = hyper["beta1"], hyper["beta2"], hyper["eps"]
        beta_shampoo = beta2 if shared else hyper["shampoo_beta"]
        first, done = count == 0, (count - 1).clamp(min=0)  # how many steps have moved
        factor = torch.where(first, 0.0, torch.ones_like(beta2))
        if correct_bias:
            factor = factor * bias_correction(beta2, done).sqrt() / bias_correction(beta1, done)
        keep1, keep2 = torch.where(first, 1.0, beta1), torch.where(first, 1.0, beta2)

        m = leafwise(lambda m, g: m * keep1 + g * (1 - keep1), slots["exp_avg"], updates)
        grads, means, squares = (
            tree.select(updates),
            tree.select(m),
            tree.select(slots["exp_avg_sq"]),
        )
        grams: dict[str, Matrices] = {}
        bases: dict[str, Matrices] = {}
        found: dict[str, Tensor] = {}
        for path, g in grads.items():
            q = slots["Q"].get(path, {})
            rotated = mode_product(g, q, transpose=True)
            v = squares[path] * keep2 + rotated * rotated * (1 - keep2)
            adam = mode_product(means[path], q, transpose=True) / (root(v) + eps)
            found[path], squares[path] = mode_product(adam, q) * factor, v
            if q:
                grams[path] = new = {
                    i: x * beta_shampoo + gram(g, int(i)) * (1 - beta_shampoo)
                    for i, x in slots["GG"][path].items()
                }
                now = {i: x.detach() for i, x in new.items()}
                due = (count % precondition_frequency == 0) & ~first
                kept = {**q, "v": v}
                kept = either(due, partial(_refreshed, now, kept), lambda kept=kept: kept)  # type: ignore[misc]
                squares[path] = kept.pop("v")
                bases[path] = either(first, partial(_bases, now), lambda kept=kept: kept)  # type: ignore[misc]

        left = {
            "exp_avg": m,
            "exp_avg_sq": like(updates, squares),
            "GG": {path: grams[path] for path in slots["GG"]},
            "Q": {path: bases[path] for path in slots["Q"]},
        }
        return like(updates, found), left, {}

    hyperparams = {"beta1": betas[0], "beta2": betas[1], "eps": eps}
    if not shared:
        hyperparams["shampoo_beta"] = shampoo_beta
    return chain(
        Part("soap", init, update, hyperparams, slots=("exp_avg", "exp_avg_sq", "GG", "Q"))
    )


def soap(
    lr: ScalarOrSchedule = 3e-3,
    betas: Betas = (0.95, 0.95),
    shampoo_beta: ScalarOrSchedule = -1,
    eps: ScalarOrSchedule = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-2,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10000,
    precondition_1d: bool = False,
    correct_bias: bool = True,
) -> Chain:
    r"""SOAP: the arguments, defaults and trajectory of its authors' implementation.

    $\theta_t = (1 - \text{lr} \, \lambda)(\theta_{t-1} - \text{lr} \, d_t)$ with the direction
    $d_t$ of `scale_by_soap`, from the second step on: the first only computes the bases.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        betas: forgetting factors of the mean and the mean square, each in [0, 1).
        shampoo_beta: forgetting factor of the matrices, in [0, 1), or -1 for that of the squares.
        eps: added to the root of the mean square.
        weight_decay: $\lambda$, decoupled, and applied after the step.
        precondition_frequency: the number of steps between two refreshments of a basis.
        max_precondition_dim: larger dimensions are not rotated.
        precondition_1d: rotate vectors too.
        correct_bias: correct for the means' start at zero, as Adam does.

    Raises:
        ValueError: a value outside its range, or `update` is called without `params`.
        TypeError: a parameter is complex (when used).

    Example:
        >>> from fdnn import optim
        >>> tx = soap(lr=0.1, weight_decay=0.0)
        >>> params, grads = {"w": torch.eye(2)}, {"w": torch.eye(2) * 5}
        >>> waited, state = optim.step(tx, params, grads, tx.init(params))
        >>> moved, state = optim.step(tx, waited, grads, state)
        >>> waited["w"].diagonal(), moved["w"].diagonal()
        (tensor([1., 1.]), tensor([0.9000, 0.9000]))

    References:
        Vyas et al. (2024), "SOAP: improving and stabilizing Shampoo using Adam". Merging of
        dimensions and normalized gradients, options of that implementation, are left out.
    """
    check(lr=(lr, 0.0, math.inf), weight_decay=(weight_decay, 0.0, math.inf))

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        lr = hyper["lr"]
        decay = where(count == 0, 0.0, lr * hyper["weight_decay"])
        return leafwise(lambda d, p: d * (-lr) * (1 - decay) - p * decay, updates, params), {}, {}

    return chain(
        scale_by_soap(
            betas,
            shampoo_beta,
            eps,
            precondition_frequency,
            max_precondition_dim,
            precondition_1d,
            correct_bias,
        ),
        Part(
            "step_and_decay",
            lambda params: {},
            update,
            {"lr": lr, "weight_decay": weight_decay},
            is_step=True,
            elementwise=True,
            needs_params="weight decay needs them",
        ),
    )


def _bases(grams: Matrices) -> Matrices:
    """Eigenvectors, the largest eigenvalue's first."""
    return {i: eigh(x)[1].flip(1) for i, x in grams.items()}


def _refreshed(grams: Matrices, kept: Matrices) -> Matrices:
    """One step of power iteration; the squares `v` follow the new order of the basis vectors."""
    new, v = {}, kept["v"]
    for i, x in grams.items():
        product = x @ kept[i]
        order = torch.argsort((kept[i] * product).sum(0), descending=True, stable=True)
        v = v.index_select(int(i), order)
        new[i] = torch.linalg.qr(product.index_select(1, order))[0]
    return {**new, "v": v}
