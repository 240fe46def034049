"""Limited-memory BFGS."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check, extra_argument
from fdnn.optim.core.part import Hyper, Notes, Part, narrow, widen
from fdnn.optim.lbfgs_iterations import Rules, iterate
from fdnn.optim.lbfgs_memory import Memory, empty, pad, trim
from fdnn.types import ScalarOrSchedule, Tree

__all__ = ["lbfgs"]


def lbfgs(
    lr: ScalarOrSchedule = 1.0,
    max_iter: int = 20,
    max_eval: int | None = None,
    tolerance_grad: ScalarOrSchedule = 1e-7,
    tolerance_change: ScalarOrSchedule = 1e-9,
    history_size: int = 100,
    line_search_fn: Literal["strong_wolfe"] | None = None,
) -> Chain:
    r"""L-BFGS: torch.optim.LBFGS's arguments, defaults and trajectory.

    One step runs up to `max_iter` iterations $x \leftarrow x - t H g$ on one batch. $H$ is the
    inverse Hessian guessed from the last `history_size` pairs of steps $s$ and changes of the
    gradient $y$; $t$ is `lr` (in the first iteration at most `lr` divided by the sum of $|g|$), or
    what a line search finds that starts from there.

    `update` needs the function `value_and_grad` as an extra argument, which `train.make_step`
    passes. The gradients must be those that it gives at `params`: what would stand before `lbfgs`
    in a chain (clipping, an L2 penalty) belongs into the loss. The slots are torch's, for all
    parameters as one real vector, in float32 at least. The diagnostics are the `iterations` of the
    last step and its `evaluations`. Under `vmap` and `torch.compile` no step ends early: all of
    `max_iter` iterations are computed, or all of `max_eval` evaluations with a line search.

    Args:
        lr: learning rate: a number, a 0-d tensor, or a schedule.
        max_iter: the largest number of iterations in a step.
        max_eval: evaluations after which no iteration is begun; `max_iter * 5 // 4` if None.
        tolerance_grad: stop where no element of the gradient is larger.
        tolerance_change: stop where no parameter, or the loss, changes by more.
        history_size: how many pairs are kept: two vectors as long as all parameters for each.
        line_search_fn: `"strong_wolfe"`, or None for fixed step lengths.

    Raises:
        ValueError: an argument outside its range, or, when used, `params` or `value_and_grad` is
            missing.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> def value_and_grad(params):
        ...     x, y = params["x"]
        ...     grads = torch.stack([x - 1 - 40 * x * (y - x**2), 20 * (y - x**2)])
        ...     return (x - 1) ** 2 / 2 + 10 * (y - x**2) ** 2, {"x": grads}
        >>> tx = lbfgs(line_search_fn="strong_wolfe")
        >>> params = {"x": torch.tensor([-1.0, 2.0])}
        >>> state = tx.init(params)
        >>> for _ in range(2):
        ...     value, grads = value_and_grad(params)
        ...     params, state = optim.step(
        ...         tx, params, grads, state, value=value, value_and_grad=value_and_grad
        ...     )
        >>> params
        {'x': tensor([1.0000, 1.0000])}

    References:
        Liu, Nocedal (1989), "On the limited memory BFGS method for large scale optimization".
        Byrd, Nocedal, Schnabel (1994), "Representations of quasi-Newton matrices and their use in
        limited memory methods" (both loops of the usual recursion as triangular systems).
    """
    most = max_iter * 5 // 4 if max_eval is None else max_eval
    counts = {"max_iter": max_iter, "max_eval": most, "history_size": history_size}
    for name, number in counts.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {number}")
    if line_search_fn not in (None, "strong_wolfe"):
        raise ValueError(f"`line_search_fn` must be None or 'strong_wolfe', got {line_search_fn!r}")
    hyperparams = {
        "lr": lr,
        "tolerance_grad": tolerance_grad,
        "tolerance_change": tolerance_change,
    }
    check(**{name: (value, 0.0, math.inf) for name, value in hyperparams.items()})

    def init(params: Tree) -> dict[str, Tree]:
        return empty(tree.ravel(widen(params))[0], history_size)._asdict()

    def update(
        updates: Tree,
        slots: dict[str, Tree],
        params: Tree,
        hyper: Hyper,
        count: Tensor,
        *,
        stored: Tree,
        **extra: Any,
    ) -> tuple[Tree, dict[str, Tree], Notes]:
        value_and_grad = extra_argument(extra, "value_and_grad", "lbfgs")
        x, unravel = tree.ravel(params)

        def flat(value: Tensor, grads: Tree) -> tuple[Tensor, Tensor]:
            return value.to(x.dtype), tree.ravel(widen(grads))[0].to(x.dtype)

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            return flat(*value_and_grad(narrow(unravel(x), stored)))

        value = extra.get("value")
        start = flat(value_and_grad(stored)[0] if value is None else value, updates)
        found = {name: value.to(x.dtype) for name, value in hyper.items()}
        rules = Rules(
            evaluate,
            max_iter=max_iter,
            max_eval=most,
            history_size=history_size,
            searches=line_search_fn is not None,
            **found,
        )
        run = iterate(rules, x, *start, trim(Memory(**slots)))
        memory = pad(run.memory, history_size)
        memory = memory._replace(func_evals=memory.func_evals + run.evals)
        notes = {"iterations": run.iterations, "evaluations": run.evals}
        return unravel(run.x - x), memory._asdict(), notes

    part = Part(
        "lbfgs",
        init,
        update,
        hyperparams,
        slots=Memory._fields,
        diagnostics=("iterations", "evaluations"),
        is_step=True,
        needs_params="`lbfgs` starts from them",
    )
    return chain(part)
