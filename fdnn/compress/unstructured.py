"""Pruning single weights: the smallest of each tensor or of all, or some at random."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from fdnn import random
from fdnn.compress.masks import Masks, check_amount, chosen, keep_highest
from fdnn.types import Key, Params, Scalar, Where

__all__ = [
    "global_unstructured",
    "judged",
    "l1_unstructured",
    "leaf_key",
    "random_unstructured",
]


def l1_unstructured(
    params: Params,
    amount: Scalar,
    *,
    where: Where | None = None,
    masks: Masks | None = None,
    importance_scores: Params | None = None,
) -> Masks:
    r"""Prune the weights of smallest absolute value, layer by layer.

    Of the n weights of a tensor that are left, round(`amount` * n) are pruned (half to even, as
    torch rounds). Among equal ones the first in memory are pruned first, where torch's `topk` does
    not say.

    Args:
        params: parameters, a tree.
        amount: how much to prune of each tensor: a share in [0, 1] (float) or a number (int) of
            the weights that are left; or a 0-d tensor of either kind. A float32 tensor counts as
            what it holds: 0.7 is 0.699999988 there.
        where: which leaves: a glob on paths, several globs, or a predicate `(path, leaf)`. If left
            out, those that have a mask in `masks`, without which those of two dimensions or more.
        masks: what was pruned before, and stays so.
        importance_scores: by name, what to judge a weight by instead of its value; the absolute
            value counts.

    Returns:
        `masks`, with those of the chosen leaves new. It vmaps, over `params` and over `amount`.

    Raises:
        TypeError: `amount` is no number.
        ValueError: `amount` is outside its range, a glob matches no path, nothing is chosen, or
            `masks` or `importance_scores` do not fit the parameters.

    Example:
        >>> params = {"weight": torch.tensor([[3.0, -1.0], [0.5, -2.0]]), "bias": torch.ones(2)}
        >>> l1_unstructured(params, 0.5)
        {'weight': tensor([[ True, False],
                [False,  True]])}
        >>> amounts = torch.tensor([0.25, 0.75], dtype=torch.float64)
        >>> sweep = torch.vmap(lambda amount: l1_unstructured(params, amount))(amounts)
        >>> sweep["weight"].sum((1, 2))
        tensor([3, 1])

    References:
        Han, Pool, Tran, Dally (2015), "Learning both weights and connections for efficient neural
        networks". `torch.nn.utils.prune.l1_unstructured`.
    """
    scores = _magnitudes(params, where, masks, importance_scores)
    return _each(scores, amount, masks)


def global_unstructured(
    params: Params,
    amount: Scalar,
    *,
    where: Where | None = None,
    masks: Masks | None = None,
    importance_scores: Params | None = None,
) -> Masks:
    """Prune the weights of smallest absolute value, of all chosen tensors taken as one.

    Tensors with small weights lose more than others. It is torch's `global_unstructured` with
    `L1Unstructured`; equal weights as in `l1_unstructured`, tensors in the order of their names.

    Args:
        params: parameters, a tree.
        amount: how much to prune of all together, otherwise as in `l1_unstructured`.
        where: which leaves, as in `l1_unstructured`.
        masks: what was pruned before, and stays so.
        importance_scores: as in `l1_unstructured`.

    Returns:
        `masks`, with those of the chosen leaves new.

    Raises:
        TypeError: `amount` is no number.
        ValueError: as `l1_unstructured`.

    Example:
        >>> params = {"0.weight": torch.tensor([[3.0, 4.0]]), "1.weight": torch.tensor([[1.0, 2]])}
        >>> global_unstructured(params, 0.5)
        {'0.weight': tensor([[True, True]]), '1.weight': tensor([[False, False]])}

    References:
        Frankle, Carbin (2019), "The lottery ticket hypothesis: finding sparse, trainable neural
        networks".
    """
    scores = _magnitudes(params, where, masks, importance_scores)
    whole = torch.cat([score.reshape(-1) for score in scores.values()])
    before = None
    if masks is not None:
        kept = (_left(masks, path, score) for path, score in scores.items())
        before = torch.cat([each.reshape(-1) for each in kept])
    check_amount(amount)
    flat = keep_highest(whole, amount, before)
    pieces = torch.split(flat, [score.numel() for score in scores.values()])
    new = {
        path: piece.reshape(score.shape)
        for (path, score), piece in zip(scores.items(), pieces, strict=True)
    }
    return {**(masks or {}), **new}


def random_unstructured(
    key: Key,
    params: Params,
    amount: Scalar,
    *,
    where: Where | None = None,
    masks: Masks | None = None,
) -> Masks:
    """Prune weights at random, layer by layer: the comparison that every other method must win.

    Every set of the wanted size is equally likely. A tensor has a key of its own, derived from
    `key` and its name. The law is that of `torch.nn.utils.prune.random_unstructured`.

    Args:
        key: the source of randomness.
        params: parameters, a tree.
        amount: how much to prune of each tensor, as in `l1_unstructured`.
        where: which leaves, as in `l1_unstructured`.
        masks: what was pruned before, and stays so.

    Returns:
        `masks`, with those of the chosen leaves new.

    Raises:
        TypeError: `amount` is no number.
        ValueError: as `l1_unstructured`.

    Example:
        >>> masks = random_unstructured(random.key(0), {"weight": torch.ones(4, 5)}, 0.3)
        >>> masks["weight"].sum()
        tensor(14)
    """
    leaves = chosen(params, where, masks)
    scores = {
        path: random.permutation(leaf_key(key, path), leaf.numel()).reshape(leaf.shape)
        for path, leaf in leaves.items()
    }
    return _each(scores, amount, masks)


def leaf_key(key: Key, path: str) -> Key:
    """Derive the key of a leaf."""
    return random.fold_in(key, _number(path))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _number(path: str) -> int:
    return zlib.crc32(path.encode())


def _magnitudes(
    params: Params, where: Where | None, masks: Masks | None, importance: Params | None
) -> dict[str, Tensor]:
    return {path: x.abs() for path, x in judged(params, where, masks, importance).items()}


def judged(
    params: Params, where: Where | None, masks: Masks | None, importance: Params | None
) -> dict[str, Tensor]:
    """Return what the chosen leaves are judged by: themselves, or their scores."""
    leaves = chosen(params, where, masks)
    for path, score in (importance or {}).items():
        if path in leaves and score.shape != leaves[path].shape:
            raise ValueError(
                f"`importance_scores` at path {path!r}: expected shape "
                f"{tuple(leaves[path].shape)}, found {tuple(score.shape)}"
            )
    return {path: (importance or {}).get(path, leaf) for path, leaf in leaves.items()}


def _left(masks: Masks, path: str, like: Tensor) -> Tensor:
    return masks[path].bool() if path in masks else torch.ones_like(like, dtype=torch.bool)


def _each(scores: dict[str, Tensor], amount: Scalar, masks: Masks | None) -> Masks:
    check_amount(amount)
    before = masks or {}
    new = {}
    for path, score in scores.items():
        left = before[path].bool().reshape(-1) if path in before else None
        new[path] = keep_highest(score.reshape(-1), amount, left).reshape(score.shape)
    return {**before, **new}
