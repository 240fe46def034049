"""Pruning whole neurons and channels, and n weights of every m."""

from __future__ import annotations

import torch
from torch import Tensor

from fdnn import random
from fdnn.compress.masks import Masks, check_amount, chosen, keep_highest
from fdnn.compress.unstructured import judged, leaf_key
from fdnn.types import Key, Params, Scalar, Where

__all__ = ["ln_structured", "n_of_m", "random_structured"]


def ln_structured(
    params: Params,
    amount: Scalar,
    n: float = 2,
    dim: int = 0,
    *,
    where: Where | None = None,
    masks: Masks | None = None,
    importance_scores: Params | None = None,
) -> Masks:
    r"""Prune whole units, those whose weights have the smallest norm $\lVert w \rVert_n$.

    With `dim=0` a unit is a neuron of a linear layer or an output channel of a convolution, with
    `dim=1` what one input feeds. Say by `where` that the last layer keeps its outputs. `shrink`
    makes the network smaller by what is pruned.

    Args:
        params: parameters, a tree.
        amount: how many units of each tensor, otherwise as in `l1_unstructured`.
        n: the norm, a number; `math.inf` for the largest weight.
        dim: the dimension that counts the units.
        where: which leaves, as in `l1_unstructured`.
        masks: what was pruned before, and stays so. Units of which nothing is left do not count.
        importance_scores: by name, what to take the norm of instead.

    Returns:
        `masks`, with those of the chosen leaves new, of the shapes of the weights.

    Raises:
        TypeError: `amount` is no number.
        ValueError: `dim` is no dimension of a chosen leaf, one has fewer than two; or as
            `l1_unstructured`.

    Example:
        >>> params = {"weight": torch.tensor([[3.0, -1.0], [0.5, -2.0], [0.1, 0.1]])}
        >>> ln_structured(params, 0.5)
        {'weight': tensor([[ True,  True],
                [False, False],
                [False, False]])}

    References:
        Li, Kadav, Durdanovic, Samet, Graf (2017), "Pruning filters for efficient ConvNets".
        `torch.nn.utils.prune.ln_structured`.
    """
    weights = judged(params, where, masks, importance_scores)

    def norms(path: str, weight: Tensor, others: tuple[int, ...]) -> Tensor:
        kept = (masks or {}).get(path)
        weight = weight if kept is None else torch.where(kept.bool(), weight, 0)
        norm: Tensor = torch.linalg.vector_norm(weight, n, dim=others)
        return norm

    scores = {path: norms(path, w, _others(path, w, dim)) for path, w in weights.items()}
    return _units(weights, scores, amount, dim, masks)


def random_structured(
    key: Key,
    params: Params,
    amount: Scalar,
    dim: int = 0,
    *,
    where: Where | None = None,
    masks: Masks | None = None,
) -> Masks:
    """Prune whole units at random: the comparison for `ln_structured`.

    Args:
        key: the source of randomness.
        params: parameters, a tree.
        amount: how many units of each tensor, otherwise as in `l1_unstructured`.
        dim: the dimension that counts the units.
        where: which leaves, as in `l1_unstructured`.
        masks: what was pruned before, and stays so.

    Returns:
        `masks`, with those of the chosen leaves new.

    Raises:
        TypeError: `amount` is no number.
        ValueError: as `ln_structured`.

    Example:
        >>> masks = random_structured(random.key(0), {"weight": torch.ones(4, 2)}, 1)
        >>> masks["weight"].sum(1).sort().values
        tensor([0, 2, 2, 2])
    """
    weights = chosen(params, where, masks)
    for path, weight in weights.items():
        _others(path, weight, dim)
    scores = {
        path: random.permutation(leaf_key(key, path), weight.shape[dim])
        for path, weight in weights.items()
    }
    return _units(weights, scores, amount, dim, masks)


def n_of_m(
    params: Params, n: int = 2, m: int = 4, dim: int = 1, *, where: Where | None = None
) -> Masks:
    """Keep the `n` largest of every `m` weights in a row: n:m sparsity, which hardware knows.

    Among weights of equal size the last ones are kept.

    Args:
        params: parameters, a tree.
        n: how many to keep.
        m: the length of a group, a divisor of the size of every chosen leaf along `dim`.
        dim: the dimension along which groups run: 1 are the inputs.
        where: which leaves: a glob on paths, several globs, or a predicate `(path, leaf)`; those
            of two dimensions or more if left out.

    Returns:
        Masks of the chosen leaves.

    Raises:
        ValueError: `n` is not in [0, m], `m` does not divide a size, `dim` is no dimension of a
            chosen leaf; or as `l1_unstructured`.

    Example:
        >>> n_of_m({"weight": torch.tensor([[1.0, -3.0, 2.0, 0.5]])})
        {'weight': tensor([[False,  True,  True, False]])}

    References:
        Mishra et al. (2021), "Accelerating sparse deep neural networks".
    """
    if not 0 <= n <= m or m < 1:
        raise ValueError(f"`n` must be in [0, m], got {n} of {m}")
    masks = {}
    for path, weight in chosen(params, where, None).items():
        _others(path, weight, dim)
        if weight.shape[dim] % m:
            raise ValueError(
                f"`m` must divide the size along `dim`, got {m} for shape {tuple(weight.shape)} at "
                f"path {path!r}; choose other leaves with `where`"
            )
        groups = torch.unflatten(weight.abs().movedim(dim, -1), -1, (-1, m))
        rank = groups.argsort(stable=True, dim=-1).argsort(-1)
        masks[path] = (rank >= m - n).flatten(-2).movedim(-1, dim)
    return masks


def _others(path: str, weight: Tensor, dim: int) -> tuple[int, ...]:
    """The dimensions of a unit."""
    if weight.ndim < 2 or not -weight.ndim <= dim < weight.ndim:
        raise ValueError(
            f"`dim` must be a dimension of a leaf of two or more, got {dim} for shape "
            f"{tuple(weight.shape)} at path {path!r}; choose other leaves with `where`"
        )
    return tuple(d for d in range(weight.ndim) if d != dim % weight.ndim)


def _units(
    weights: dict[str, Tensor],
    scores: dict[str, Tensor],
    amount: Scalar,
    dim: int,
    masks: Masks | None,
) -> Masks:
    """Prune the units of the lowest scores."""
    check_amount(amount)
    before = masks or {}
    new = {}
    for path, weight in weights.items():
        others = _others(path, weight, dim)
        kept = before[path].bool() if path in before else None
        left = None if kept is None else kept.sum(others) > 0
        units = keep_highest(scores[path], amount, left)
        shape = [1] * weight.ndim
        shape[dim] = -1
        whole = units.reshape(shape).expand(weight.shape)
        new[path] = whole.clone() if kept is None else whole & kept
    return {**before, **new}
