"""Adafactor: second moments as row and column sums."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.learning_rate import maximize as turn_around
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.modes import like, real_leaves
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["adafactor", "scale_by_adafactor"]


def scale_by_adafactor(
    beta2_decay: ScalarOrSchedule = -0.8,
    eps: ScalarOrSchedule | None = None,
    d: ScalarOrSchedule = 1.0,
) -> Chain:
    r"""Divide gradients by the root of a factored running mean square, and clip what comes out.

    With $w_t = t^\tau$, a matrix $G$ keeps the running means $R_t = (1 - w_t) R_{t-1} + w_t
    \,\text{mean}_j G_{ij}^2$ and $C_t$, likewise over $i$, and $V = R C / \max(\text{mean}_i R_i,
    \epsilon)$; in a tensor of more dimensions the last two count. A vector or scalar keeps the
    whole running mean $V$. The direction is $U / \max(1, \text{RMS}(U) / d)$ with
    $U = G / \max(\sqrt V, \epsilon)$.

    The slots `row_var` and `col_var` have entries for leaves of two and more dimensions,
    `variance` for the others, by path.

    Args:
        beta2_decay: $\tau$, at most 0: how fast the means come to remember longer.
        eps: $\epsilon$; None for the machine epsilon of the leaf's dtype.
        d: the largest root mean square of a direction, at least 1.

    Raises:
        ValueError: a value outside its range.
        TypeError: a parameter is complex (when used).

    Example:
        >>> tx = scale_by_adafactor()
        >>> grads = {"w": torch.tensor([[1.0, 2.0], [2.0, 4.0]]), "b": torch.tensor([-3.0])}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> updates["w"]
        tensor([[1., 1.],
                [1., 1.]])
        >>> {name: list(slot) for name, slot in state.slots.items()}
        {'row_var': ['w'], 'col_var': ['w'], 'variance': ['b']}

    References:
        Shazeer, Stern (2018), "Adafactor: adaptive learning rates with sublinear memory cost" (as
        in torch, $\epsilon$ bounds the denominators and is not added to the squares).
    """
    check(beta2_decay=(beta2_decay, -math.inf, math.inf), d=(d, 1.0, math.inf))
    if isinstance(beta2_decay, int | float) and beta2_decay > 0:
        raise ValueError(f"`beta2_decay` must be at most 0, got {beta2_decay}")
    if eps is not None:
        check(eps=(eps, 0.0, math.inf))

    def init(params: Tree) -> dict[str, Tree]:
        found = real_leaves("adafactor", params)
        wide = {path: p for path, p in found.items() if p.ndim > 1}
        return {
            "row_var": {path: p.new_zeros((*p.shape[:-1], 1)) for path, p in wide.items()},
            "col_var": {
                path: p.new_zeros((*p.shape[:-2], 1, p.shape[-1])) for path, p in wide.items()
            },
            "variance": {
                path: torch.zeros_like(p) for path, p in found.items() if path not in wide
            },
        }

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
        grads, dtypes = tree.select(updates), {p: x.dtype for p, x in tree.select(stored).items()}
        fresh = (count + 1).to(hyper["beta2_decay"].dtype) ** hyper["beta2_decay"]

        def mean(old: Tensor, squares: Tensor, dim: int | None = None) -> Tensor:
            if dim is not None:  # the mean of nothing is 0
                squares = squares.sum(dim, keepdim=True) / max(squares.shape[dim], 1)
            return old + (squares - old) * fresh

        rows = {p: mean(row, grads[p] ** 2, -1) for p, row in slots["row_var"].items()}
        cols = {p: mean(col, grads[p] ** 2, -2) for p, col in slots["col_var"].items()}
        wholes = {p: mean(v, grads[p] ** 2) for p, v in slots["variance"].items()}

        def direction(path: str, g: Tensor) -> Tensor:
            # No less than `tiny`, so that eps = 0 makes 0, and not NaN, of a zero gradient.
            tiny = torch.finfo(g.dtype).tiny
            floor = hyper["eps"] if eps is not None else torch.finfo(dtypes[path]).eps
            if path in rows:
                total = rows[path].sum(-2, keepdim=True) / max(g.shape[-2], 1)
                v = rows[path] * cols[path] / _at_least(floor, total, tiny)
            else:
                v = wholes[path]
            u = g * torch.rsqrt(_at_least(floor * floor, v, tiny))
            return u / (_rms(u) / hyper["d"]).clamp(min=1.0)

        found = {path: direction(path, g) for path, g in grads.items()}
        return like(updates, found), {"row_var": rows, "col_var": cols, "variance": wholes}, {}

    hyperparams = {"beta2_decay": beta2_decay, "d": d}
    return chain(
        Part(
            "adafactor",
            init,
            update,
            hyperparams if eps is None else {**hyperparams, "eps": eps},
            slots=("row_var", "col_var", "variance"),
        )
    )


def adafactor(
    lr: ScalarOrSchedule = 1e-2,
    beta2_decay: ScalarOrSchedule = -0.8,
    eps: tuple[ScalarOrSchedule | None, ScalarOrSchedule] = (None, 1e-3),
    d: ScalarOrSchedule = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    *,
    maximize: bool = False,
) -> Chain:
    r"""Adafactor: torch.optim.Adafactor's arguments, defaults and trajectory.

    The step is $-\max(\epsilon_2, \text{RMS}(\theta)) \min(\text{lr}, 1 / \sqrt t) \, U -
    \text{lr} \, \lambda \theta$, with the direction $U$ of `scale_by_adafactor`: it is relative to
    the size of each parameter tensor, and `lr` is only its upper bound.

    Args:
        lr: the largest relative step, and the factor of the weight decay.
        beta2_decay: exponent of the forgetting, at most 0.
        eps: $(\epsilon_1, \epsilon_2)$: lower bounds of the denominators (None for the machine
            epsilon of each leaf's dtype; torch takes that of a group's first leaf for all), and
            of the size of a parameter.
        d: the largest root mean square of a direction, at least 1.
        weight_decay: $\lambda$, decoupled as in `adamw`.
        maximize: climb instead of descend.

    Raises:
        ValueError: a value outside its range, or `update` is called without `params`.
        TypeError: a parameter is complex (when used).

    Example:
        >>> from fdnn import optim
        >>> tx = adafactor()
        >>> params = {"w": torch.full((2, 2), 3.0)}
        >>> optim.step(tx, params, params, tx.init(params))[0]
        {'w': tensor([[2.9700, 2.9700],
                [2.9700, 2.9700]])}

    References:
        Shazeer, Stern (2018), "Adafactor: adaptive learning rates with sublinear memory cost" (as
        in torch, `lr` takes the place of the paper's constant 0.01).
    """
    check(
        lr=(lr, 0.0, math.inf),
        eps2=(eps[1], 0.0, math.inf),
        weight_decay=(weight_decay, 0, math.inf),
    )

    def update(
        updates: Tree, slots: dict[str, Tree], params: Tree, hyper: Hyper, count: Tensor, **_: Any
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        lr, decay = hyper["lr"], hyper["lr"] * hyper["weight_decay"]
        relative = torch.minimum(lr, torch.rsqrt((count + 1).to(lr.dtype)))

        def move(u: Tensor, p: Tensor) -> Tensor:
            return -u * (torch.maximum(hyper["eps2"], _rms(p)) * relative) - p * decay

        return tree.map(move, updates, params), {}, {}

    hyperparams = {"lr": lr, "eps2": eps[1], "weight_decay": weight_decay}
    return chain(
        *([turn_around()] if maximize else []),
        scale_by_adafactor(beta2_decay, eps[0], d),
        Part(
            "relative_step",
            lambda params: {},
            update,
            hyperparams,
            is_step=True,
            needs_params="steps are relative to their size",
        ),
    )


def _rms(x: Tensor) -> Tensor:
    """The root mean square; of an empty tensor 0."""
    norm: Tensor = torch.linalg.vector_norm(x)
    return norm / math.sqrt(max(x.numel(), 1))


def _at_least(floor: float | Tensor, x: Tensor, tiny: float) -> Tensor:
    return torch.maximum(x, torch.as_tensor(floor, device=x.device)).clamp(min=tiny)
