"""How large gradients are, and how far a step moves each parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.types import Tree, Where

__all__ = ["GradientNorms", "gradient_norms", "norm", "weight_update_ratio"]


class GradientNorms(NamedTuple):
    """Euclidean norms of a tree's leaves.

    Attributes:
        leaves: the norm of each leaf, by its path.
        total: the norm of all of them as one vector.
    """

    leaves: dict[str, Tensor]
    total: Tensor


def gradient_norms(grads: Tree, where: Where | None = None) -> GradientNorms:
    """Measure the gradient of each parameter, and of all together.

    With g_i the leaves of `grads`: ||g_i||, and sqrt(sum_i ||g_i||^2). Gradients that have almost
    vanished are measured as they are: their squares, which float32 cannot hold, are not formed.

    Args:
        grads: a tree of gradients, such as `torch.func.grad` returns.
        where: which leaves: a glob on paths, several globs, or a predicate `(path, leaf)`; all
            of them if left out.

    Returns:
        The norms, 0-d tensors.

    Raises:
        ValueError: a glob of `where` matches no path.

    Example:
        >>> grads = {"0.weight": torch.tensor([[3e-30, 0.0]]), "0.bias": torch.tensor([4e-30])}
        >>> gradient_norms(grads)
        GradientNorms(leaves={'0.weight': tensor(3.0000e-30), '0.bias': tensor(4.0000e-30)}, \
total=tensor(5.0000e-30))
        >>> list(gradient_norms(grads, "*.weight").leaves)
        ['0.weight']
    """
    chosen = _select(grads, where)
    return GradientNorms({path: norm([g]) for path, g in chosen.items()}, norm(chosen.values()))


def weight_update_ratio(
    params: Tree, new_params: Tree, where: Where | None = None
) -> dict[str, Tensor]:
    """Compare how far a step has moved each parameter with how large it was.

    ||w' - w|| / ||w|| for each leaf w of `params` and w' of `new_params`. By a rule of thumb about
    1e-3 is right for weights: far less learns slowly, far more is unstable. What is measured is
    what came out of the step, weight decay and projections included.

    Args:
        params: parameters before the step.
        new_params: parameters after it, a tree of the same structure.
        where: which leaves: a glob on paths, several globs, or a predicate `(path, leaf)` of
            `params`; all of them if left out.

    Returns:
        The ratio of each leaf, by its path. Where w is 0 (a new bias) it is infinite, unless
        w' is 0 too: then it is 0.

    Raises:
        ValueError: the trees differ, or a glob of `where` matches no path.

    Example:
        >>> params = {"weight": torch.tensor([3.0, 4.0]), "bias": torch.tensor([0.0])}
        >>> new_params = {"weight": torch.tensor([3.0, 4.5]), "bias": torch.tensor([0.0])}
        >>> weight_update_ratio(params, new_params)
        {'weight': tensor(0.1000), 'bias': tensor(0.)}
    """
    updates = _select(tree.map(lambda new, old: new - old, new_params, params), None)
    ratios = {}
    for path, value in _select(params, where).items():
        moved = norm([updates[path]])
        ratios[path] = torch.where(moved == 0, moved, moved / norm([value]))
    return ratios


def norm(parts: Iterable[Tensor], like: Tensor | None = None) -> Tensor:
    """Return the Euclidean norm of tensors taken as one vector, however small or large they are.

    Of no tensors it is 0, with the dtype and device of `like`.
    """
    norms = [_norm(part) for part in parts]
    if not norms:
        return torch.zeros(()) if like is None else like.new_zeros(())
    return norms[0] if len(norms) == 1 else _norm(torch.stack(norms))


def _norm(x: Tensor) -> Tensor:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if x.numel() == 0:
        return x.new_zeros(())
    size = x.detach().abs().amax()
    scale = torch.where((size > 0) & size.isfinite(), size, 1.0)  # the largest entry becomes 1
    unit: Tensor = torch.linalg.vector_norm(x / scale)
    return unit * scale


def _select(leaves: Tree, where: Where | None) -> dict[str, Tensor]:
    """The chosen leaves by path, those of a dict in its own order."""
    chosen = tree.select(leaves, where)
    first = leaves if isinstance(leaves, dict) else ()
    return {path: chosen[path] for path in first if path in chosen} | chosen
