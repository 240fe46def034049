"""Muon: momentum made orthogonal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.decay import add_decayed_weights
from fdnn.optim.blocks.learning_rate import scale_by_learning_rate
from fdnn.optim.core.branch import can_see
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.modes import real_leaves
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["muon", "scale_by_muon"]

Coefficients = tuple[float, float, float]
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's, the steepest at 0
_ADJUSTMENTS = (None, "original", "match_rms_adamw")


def scale_by_muon(
    momentum: ScalarOrSchedule = 0.95,
    nesterov: bool = True,
    ns_coefficients: Coefficients = _COEFFICIENTS,
    eps: ScalarOrSchedule = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
    ns_dtype: torch.dtype | None = torch.bfloat16,
) -> Chain:
    r"""Turn the momentum of each matrix into a nearly orthogonal matrix.

    $B_t = \mu B_{t-1} + (1 - \mu) G_t$, and $M = (1 - \mu) G_t + \mu B_t$ with `nesterov`, else
    $B_t$. From $X = M / \max(\lVert M \rVert_F, \epsilon)$, `ns_steps` times $X \leftarrow a X +
    (b X X^\top + c (X X^\top)^2) X$ (of the transpose, if $M$ has more rows than columns) bring
    all singular values near 1. The direction is $X$, times a factor of the matrix's shape.

    Args:
        momentum: $\mu$, at least 0.
        nesterov: look ahead along the momentum.
        ns_coefficients: $(a, b, c)$, three numbers.
        eps: $\epsilon$, the least norm that is divided by.
        ns_steps: the number of iterations, below 100.
        adjust_lr_fn: the factor for a matrix of $n$ rows and $m$ columns: "original" (or None),
            $\sqrt{\max(1, n / m)}$, or "match_rms_adamw", $0.2 \sqrt{\max(n, m)}$.
        ns_dtype: what the iterations are computed in; None for the dtype of the leaf. torch takes
            bfloat16, which has no useful derivative: take None to differentiate through steps.

    Raises:
        ValueError: a value outside its range, or (when used) a parameter is not a matrix.
        TypeError: a parameter is complex (when used).

    Example:
        >>> tx = scale_by_muon(ns_coefficients=(1.5, -0.5, 0.0), ns_steps=20, ns_dtype=None)
        >>> grads = {"w": torch.tensor([[3.0, 0.0], [0.0, 0.1]])}
        >>> tx.update(grads, tx.init(grads))[0]
        {'w': tensor([[1., 0.],
                [0., 1.]])}

    References:
        Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks".
        Liu et al. (2025), "Muon is scalable for LLM training" ("match_rms_adamw").
    """
    check(momentum=(momentum, 0.0, math.inf), eps=(eps, 0.0, math.inf))
    if len(ns_coefficients) != 3:
        raise ValueError(f"`ns_coefficients` must be three numbers, got {ns_coefficients}")
    if not 0 <= ns_steps < 100:
        raise ValueError(f"`ns_steps` must be in [0, 100), got {ns_steps}")
    if adjust_lr_fn not in _ADJUSTMENTS:
        raise ValueError(f"`adjust_lr_fn` must be one of {_ADJUSTMENTS}, got {adjust_lr_fn!r}")

    def init(params: Tree) -> dict[str, Tree]:
        for path, leaf in real_leaves("muon", params).items():
            if leaf.ndim != 2:
                raise ValueError(
                    f"at path {path!r}: `muon` expects a matrix, found shape {tuple(leaf.shape)}; "
                    "give the other parameters another optimizer with `optim.partition`"
                )
        return {"momentum_buffer": tree.zeros_like(params)}

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        mu = hyper["momentum"]

        def mix(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
            return torch.lerp(a, b, weight.to(a.dtype))

        buffer = tree.map(lambda b, g: mix(b, g, 1 - mu), slots["momentum_buffer"], updates)
        mixed = tree.map(lambda g, b: mix(g, b, mu), updates, buffer) if nesterov else buffer

        def orthogonal(m: Tensor) -> Tensor:
            x = m.to(ns_dtype or m.dtype)
            x = _newton_schulz(x, ns_coefficients, ns_steps, hyper["eps"].to(x.dtype))
            return x.to(m.dtype) * _adjustment(adjust_lr_fn, *m.shape)

        return tree.map(orthogonal, mixed), {"momentum_buffer": buffer}, {}

    hyperparams = {"momentum": momentum, "eps": eps}
    return chain(Part("muon", init, update, hyperparams, slots=("momentum_buffer",)))


def muon(
    lr: ScalarOrSchedule = 1e-3,
    weight_decay: ScalarOrSchedule = 0.1,
    momentum: ScalarOrSchedule = 0.95,
    nesterov: bool = True,
    ns_coefficients: Coefficients = _COEFFICIENTS,
    eps: ScalarOrSchedule = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
) -> Chain:
    """Muon: torch.optim.Muon's arguments, defaults and trajectory, for matrices only.

    The orthogonal matrix is computed in bfloat16, by torch's operations. It is rough: its own
    distance from the exact one is 1 to 4 percent, since the iteration enlarges roundings. float64
    runs agree with torch's to 1e-12, and float32 runs mostly to rounding; but where a rounding in
    float32 tips over to the next number of bfloat16, a direction differs by up to a percent. So it
    may under `vmap`, which adds up in another order, and by more in compiled code, which rounds
    less often. Where lanes must equal solo runs to the last places, take `scale_by_muon` with
    `ns_dtype=None`. (Without `nesterov`, torch overwrites the momentum of bfloat16 parameters when
    it normalizes; fdnn does not.)

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        weight_decay: share of a parameter that a step of learning rate 1 would remove.
        momentum: share of the last mean gradient that is kept, at least 0.
        nesterov: look ahead along the momentum.
        ns_coefficients: of the Newton-Schulz iteration, three numbers.
        eps: the least norm that is divided by.
        ns_steps: the number of iterations, below 100.
        adjust_lr_fn: how a matrix's shape changes the learning rate: see `scale_by_muon`.

    Raises:
        ValueError: a value outside its range, or (when used) a parameter is not a matrix.
        TypeError: a parameter is complex (when used).

    Example:
        Hidden layers by Muon; biases, and the first and last layers, by AdamW.

        >>> from fdnn import optim
        >>> params = {"1.weight": torch.eye(2), "1.bias": torch.zeros(2)}
        >>> tx = optim.partition(
        ...     {"hidden": muon(lr=0.02), "rest": optim.adamw()},
        ...     {"hidden": "1.weight", "rest": "*"},
        ... )
        >>> state = tx.init(params)
        >>> list(state.slots["hidden.momentum_buffer"]), list(state.slots["rest.exp_avg"])
        (['1.weight'], ['1.bias'])

    References:
        Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks".
    """
    return chain(
        scale_by_muon(momentum, nesterov, ns_coefficients, eps, ns_steps, adjust_lr_fn),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(lr),
    )


def _newton_schulz(x: Tensor, coefficients: Coefficients, steps: int, eps: Tensor) -> Tensor:
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / torch.maximum(torch.linalg.vector_norm(x), eps)
    for _ in range(steps):
        square = x @ x.mT
        polynomial = _add_product(b, square, c, square, square)
        x = _add_product(a, x, 1.0, polynomial, x)
    return x.mT if tall else x


def _add_product(beta: float, x: Tensor, alpha: float, left: Tensor, right: Tensor) -> Tensor:
    """Return `beta * x + alpha * left @ right`, rounded once."""
    if torch.compiler.is_compiling() or can_see():
        return torch.addmm(x, left, right, beta=beta, alpha=alpha)
    # vmap would take `addmm` apart and round three times.
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.to(wide) * beta + left.to(wide) @ right.to(wide) * alpha).to(x.dtype)


def _adjustment(adjust_lr_fn: str | None, rows: int, columns: int) -> float:
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / max(columns, 1)))
