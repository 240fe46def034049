r"""The memory of L-BFGS, and the direction that it gives.

A pair holds a step $s$ and the change $y$ of the gradient along it. With $S$ and $Y$ the rows
$s_i$ and $y_i$ of all pairs, the youngest last, and $R$ the upper triangle of $S Y^\top$, the two
loops of the usual recursion are two triangular systems:

$R a = -S g$, $r = \gamma (-g - Y^\top a)$, $R^\top c = \mathrm{diag}(R)\, a - Y r$; and the
direction is $r + S^\top c$.

That is as many multiplications, in a fixed number of operations, for a compiled graph or many
lanes. Rows that are not in use yet are zeros, with a one on the diagonal of $R$.

References:
    Nocedal, Wright (2006), "Numerical optimization", algorithm 7.4.
    Byrd, Nocedal, Schnabel (1994), "Representations of quasi-Newton matrices and their use in
    limited memory methods".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fdnn.optim.core.branch import can_see, either

__all__ = ["Memory", "direction", "empty", "pad", "products", "remember", "trim"]

_SMALLEST_CURVATURE = 1e-10  # of a pair that is kept, as in torch


class Memory(NamedTuple):
    r"""What lasts from step to step: torch's `state_dict`, the parameters being one vector.

    Attributes:
        d: the last direction.
        t: the last step length.
        old_dirs: $Y$, `history_size` rows.
        old_stps: $S$.
        ro: $1 / (s_i \cdot y_i)$, or 0 where a row is not in use yet.
        H_diag: $\gamma$.
        prev_flat_grad: the gradient where the last direction was made.
        prev_loss: the loss there.
        n_iter: iterations so far.
        func_evals: evaluations so far.
    """

    d: Tensor
    t: Tensor
    old_dirs: Tensor
    old_stps: Tensor
    ro: Tensor
    H_diag: Tensor
    prev_flat_grad: Tensor
    prev_loss: Tensor
    n_iter: Tensor
    func_evals: Tensor


def empty(flat: Tensor, history_size: int) -> Memory:
    """Make a memory of nothing, for a vector like `flat`."""

    def zeros(*shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return flat.new_zeros(shape, dtype=dtype)

    n = len(flat)
    return Memory(
        d=zeros(n),
        t=zeros(),
        old_dirs=zeros(history_size, n),
        old_stps=zeros(history_size, n),
        ro=zeros(history_size),
        H_diag=zeros() + 1,
        prev_flat_grad=zeros(n),
        prev_loss=zeros(),
        n_iter=zeros(dtype=torch.int64),
        func_evals=zeros(dtype=torch.int64),
    )


def products(memory: Memory) -> Tensor:
    """Return $R$."""
    return (memory.old_stps @ memory.old_dirs.mT).triu()


def trim(memory: Memory) -> Memory:
    """Drop the rows that are not in use, where that can be seen: they only cost time."""
    if not can_see():
        return memory
    unused = int((memory.ro == 0).sum())
    return memory._replace(
        old_dirs=memory.old_dirs[unused:],
        old_stps=memory.old_stps[unused:],
        ro=memory.ro[unused:],
    )


def pad(memory: Memory, history_size: int) -> Memory:
    """Bring a trimmed memory to its full size."""
    unused = history_size - len(memory.ro)
    return memory._replace(
        old_dirs=F.pad(memory.old_dirs, (0, 0, unused, 0)),
        old_stps=F.pad(memory.old_stps, (0, 0, unused, 0)),
        ro=F.pad(memory.ro, (unused, 0)),
    )


def remember(memory: Memory, r: Tensor, grad: Tensor, history_size: int) -> tuple[Memory, Tensor]:
    """Take in the last step, `memory.t * memory.d`, if it was along positive curvature.

    Args:
        memory: whose oldest pair is dropped if it is full.
        r: its $R$.
        grad: the gradient at the end of the step.
        history_size: how many pairs it may hold.
    """
    y, s = grad - memory.prev_flat_grad, memory.d * memory.t
    curvature = y @ s
    is_kept = curvature > _SMALLEST_CURVATURE
    oldest = 1 if len(memory.ro) == history_size else 0

    def push() -> tuple[Memory, Tensor]:
        gamma = curvature / torch.where(is_kept, y @ y, 1.0)
        ro = 1 / torch.where(is_kept, curvature, 1.0)
        pushed = memory._replace(
            old_dirs=torch.cat([memory.old_dirs[oldest:], y[None]]),
            old_stps=torch.cat([memory.old_stps[oldest:], s[None]]),
            ro=torch.cat([memory.ro[oldest:], ro[None]]),
            H_diag=gamma,
        )
        column = pushed.old_stps @ y
        return pushed, torch.cat([F.pad(r[oldest:, oldest:], (0, 0, 0, 1)), column[:, None]], 1)

    after: tuple[Memory, Tensor] = either(is_kept, push, lambda: (memory, r))
    return after


def direction(memory: Memory, r: Tensor, grad: Tensor) -> Tensor:
    """Return minus the guessed inverse Hessian times `grad`.

    Args:
        memory: the pairs.
        r: their $R$.
        grad: the gradient.
    """
    r = r + torch.diag((memory.ro == 0).to(r.dtype))

    def solve(matrix: Tensor, vector: Tensor, upper: bool) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(matrix, vector[:, None], upper=upper)
        return solved[:, 0]

    a = solve(r, -(memory.old_stps @ grad), upper=True)
    scaled = memory.H_diag * (-grad - a @ memory.old_dirs)
    c = solve(r.mT, r.diagonal() * a - memory.old_dirs @ scaled, upper=False)
    minus: Tensor = scaled + c @ memory.old_stps
    return minus
