"""Parameters that stay in a set: transformations that stand last in a chain."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.blocks.groups import masked
from fdnn.optim.blocks.projections import projection_non_negative, shrink
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.check import check
from fdnn.optim.core.part import Hyper, Notes, Part
from fdnn.optim.core.shapewise import all_but_first
from fdnn.types import ScalarOrSchedule, Tree, Where

__all__ = ["STAYING", "keep_params_nonnegative", "land", "max_norm", "project"]

_EPS = 1e-7  # as torch.renorm adds to the norm

STAYING = "they are to stay in a set"
"""Why the parts that use `land` need the parameters."""


def project(
    projection: Callable[..., Tensor], where: Where | None = None, **hyperparams: ScalarOrSchedule
) -> Chain:
    r"""Make every step end in a set: $u' = P(\theta + u) - \theta$.

    The projection gets each chosen leaf by itself, as it would be after the step: in its own shape,
    half precision widened to float32. It must stand behind the learning rate, last in the chain.

    Elements that the projection leaves alone move by exactly $u$, and those that it sends to 0
    become exactly 0. What else it moves lands within a rounding, half an eps of $|\theta|$ and of
    $|P|$, since $u'$ is rounded and added to $\theta$: a bound of a box may be missed by so much.

    Args:
        projection: a function of a tensor, such as `projection_simplex`.
        where: which leaves to project (all if left out): a glob on paths, several globs, or a
            predicate `(path, leaf)`.
        **hyperparams: arguments of `projection` by name, to be kept in the state: numbers, 0-d
            tensors or schedules. Bind arguments of other kinds with `functools.partial`.

    Raises:
        ValueError: `update` is called without `params`, or a glob of `where` matches no path.
        TypeError: an argument is neither a number, nor a 0-d tensor, nor a schedule.

    Example:
        >>> from fdnn import optim
        >>> tx = optim.chain(optim.sgd(lr=1.0), project(optim.projection_l2_ball, scale=1.0))
        >>> params = {"w": torch.tensor([0.0, 0.8])}
        >>> optim.step(tx, params, {"w": torch.tensor([-3.0, -3.2])}, tx.init(params))[0]
        {'w': tensor([0.6000, 0.8000])}

    References:
        Goldstein (1964), "Convex programming in Hilbert space".
    """
    check(**{name: (value, -math.inf, math.inf) for name, value in hyperparams.items()})
    return _last("project", lambda x, hyper: projection(x, **hyper), where, hyperparams)


def keep_params_nonnegative(where: Where | None = None) -> Chain:
    r"""Let no parameter fall below 0: $u' = \max(\theta + u, 0) - \theta$, exactly.

    Parameters that are negative at the start become 0. It must stand behind the learning rate,
    last in the chain. Of complex numbers it keeps both parts from falling below 0.

    Args:
        where: which leaves (all if left out): a glob on paths, several globs, or a predicate
            `(path, leaf)`.

    Raises:
        ValueError: `update` is called without `params`, or a glob of `where` matches no path.

    Example:
        >>> from fdnn import optim
        >>> tx = optim.chain(optim.sgd(lr=1.0), keep_params_nonnegative())
        >>> params = {"w": torch.tensor([0.3, 0.3])}
        >>> optim.step(tx, params, {"w": torch.tensor([0.1, 0.4])}, tx.init(params))[0]
        {'w': tensor([0.2000, 0.0000])}
    """
    return _last("nonnegative", lambda x, hyper: projection_non_negative(x), where, {})


def max_norm(
    max_norm: ScalarOrSchedule,
    dim: int | Sequence[int] | None = None,
    where: Where | None = None,
) -> Chain:
    r"""Let no unit's weights grow beyond a norm: max-norm regularization.

    After the step, $w_i \leftarrow w_i \, r / (\lVert w_i \rVert_2 + 10^{-7})$ for every unit $i$
    with $\lVert w_i \rVert_2 > r$ (by more than rounding explains), as `torch.renorm` does it.
    It must stand behind the learning rate, last in the chain.

    The diagnostic `max_norm_moved` is the fraction of units that the step would have carried
    outside. Where it stays near 0 the bound does nothing: rows of He-initialized layers have norm
    $\sqrt 2$ whatever their length.

    Args:
        max_norm: the largest norm $r$: a number, a 0-d tensor, or a schedule.
        dim: dimensions over which the norm of a unit runs. All but the first if left out, which
            gives each neuron of a linear layer (`dim=1`) and each kernel of a convolution
            (`dim=(1, 2, 3)`) a norm of its own. The weights of a transposed convolution have the
            unit's dimension second: `dim=(0, 2, 3)`.
        where: which leaves (those of two dimensions or more if left out, which spares biases and
            norms): a glob on paths, several globs, or a predicate `(path, leaf)`.

    Raises:
        ValueError: `max_norm` is negative, a chosen leaf lacks a dimension of `dim` (at `init`),
            `update` is called without `params`, or a glob of `where` matches no path.

    Example:
        >>> from fdnn import optim
        >>> tx = optim.chain(optim.sgd(lr=1.0), max_norm(1.0))
        >>> params = {"w": torch.tensor([[0.6, 0.8], [0.3, 0.4]]), "b": torch.ones(2)}
        >>> grads = {"w": torch.tensor([[-2.4, -3.2], [0.0, 0.0]]), "b": -torch.ones(2)}
        >>> params, state = optim.step(tx, params, grads, tx.init(params))
        >>> params["w"], state.diagnostics["max_norm_moved"]
        (tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]]), tensor(0.5000))

    References:
        Srebro, Rennie, Jaakkola (2005), "Maximum-margin matrix factorization". Srivastava, Hinton,
        Krizhevsky, Sutskever, Salakhutdinov (2014), "Dropout: a simple way to prevent neural
        networks from overfitting".
    """
    check(max_norm=(max_norm, 0.0, math.inf))

    def init(params: Tree) -> dict[str, Tree]:
        tree.map_with_path(functools.partial(_check_dims, dim), params)
        return {}

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
        moved: list[Tensor] = []

        def shrunk(x: Tensor) -> Tensor:
            y, is_longer = shrink(x, hyper["max_norm"], _dims(dim, x), _EPS)
            moved.append(is_longer)
            return y

        updates = land(shrunk, updates, params, stored)
        total = torch.zeros_like(count, dtype=torch.float32)
        for each in moved:
            total = total + each.sum()
        units = sum(each.numel() for each in moved)
        return updates, {}, {"max_norm_moved": total / max(units, 1)}

    part = Part(
        "max_norm",
        init,
        update,
        {"max_norm": max_norm},
        diagnostics=("max_norm_moved",),
        needs_params=STAYING,
    )
    return masked(chain(part), (lambda path, leaf: leaf.ndim > 1) if where is None else where)


def land(end: Callable[[Tensor], Tensor], updates: Tree, params: Tree, stored: Tree) -> Tree:
    """Change steps such that they end where `end` puts what would be their ends.

    Args:
        end: takes a leaf after the step, whole if complex and wide if half precision, and returns
            a leaf like it.
        updates: the steps, widened.
        params: the parameters, widened.
        stored: the parameters.

    Example:
        >>> zero, one = torch.zeros(2), torch.tensor([1.0, -1.0])
        >>> land(torch.relu, one, zero, zero)
        tensor([1., 0.])
    """

    def changed(p: Tensor, u: Tensor) -> Tensor:
        step = torch.view_as_complex(u) if p.is_complex() else u
        after = p + step.to(p.dtype)  # to the bit what the parameter would become
        is_half = p.dtype in (torch.float16, torch.bfloat16)
        x, start = (after.float(), p.float()) if is_half else (after, p)
        y = end(x)
        moved = y - start
        # The step itself where nothing moved, for its bits; the derivative is that of `moved`.
        value = torch.where(y == x, step, moved).detach() + (moved - moved.detach())
        return torch.view_as_real(value) if p.is_complex() else value

    return tree.map(changed, stored, updates)


def _last(
    name: str,
    end: Callable[[Tensor, Hyper], Tensor],
    where: Where | None,
    hyperparams: dict[str, ScalarOrSchedule],
) -> Chain:
    """Make a transformation of where each leaf is to end."""

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
        return land(lambda x: end(x, hyper), updates, params, stored), {}, {}

    tx = chain(Part(name, lambda params: {}, update, hyperparams, needs_params=STAYING))
    return tx if where is None else masked(tx, where)


def _dims(dim: int | Sequence[int] | None, x: Tensor) -> tuple[int, ...]:
    if dim is None:
        return all_but_first(x)
    return (dim,) if isinstance(dim, int) else tuple(dim)


def _check_dims(dim: int | Sequence[int] | None, path: str, leaf: Tensor) -> None:
    dims = _dims(dim, leaf)
    if (
        not dims
        or len({d % max(leaf.ndim, 1) for d in dims}) < len(dims)
        or not all(-leaf.ndim <= d < leaf.ndim for d in dims)
    ):
        raise ValueError(
            f"at path {path!r}: `dim` must name dimensions of the leaf, got {dim} for shape "
            f"{tuple(leaf.shape)}; choose other leaves with `where`"
        )
