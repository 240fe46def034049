"""What a mask is, how it is put on, and which elements a pruning takes away."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import TypeAlias

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.branch import can_see
from fdnn.types import Params, Scalar, Where

__all__ = [
    "Masks",
    "Prune",
    "apply_masks",
    "check_amount",
    "check_masks",
    "chosen",
    "keep_highest",
    "nonzero_masks",
    "on_mask",
    "wide",
]

Masks: TypeAlias = dict[str, Tensor]
"""Boolean tensors under the names of the parameters that are pruned: true where one is kept."""

Prune: TypeAlias = Callable[..., Masks]
"""`prune(params, amount, masks=None) -> masks`, as `l1_unstructured`."""


def apply_masks(params: Params, masks: Masks) -> Params:
    """Set what is pruned to 0; parameters without a mask stay as they are.

    Args:
        params: parameters, a tree.
        masks: one tensor for each pruned leaf, by its path: true (or not 0) where it is kept.

    Returns:
        A tree like `params`. The derivative with respect to a pruned element is 0.

    Raises:
        ValueError: a mask has the name of no parameter, or not its shape.

    Example:
        >>> params = {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
        >>> apply_masks(params, {"weight": torch.tensor([[True, False]])})
        {'weight': tensor([[1., 0.]]), 'bias': tensor([1.])}
    """
    check_masks(masks, params)
    return on_mask(lambda p: torch.zeros_like(p), params, masks)


def nonzero_masks(params: Params, where: Where | None = None) -> Masks:
    """Return the masks that keep what is not 0: after training by `optim.proximal_l1`, say.

    Args:
        params: parameters, a tree.
        where: which leaves: a glob on paths, several globs, or a predicate `(path, leaf)`; those
            of two dimensions or more if left out.

    Returns:
        Masks by path.

    Raises:
        ValueError: a glob matches no path, or nothing is chosen.

    Example:
        >>> nonzero_masks({"weight": torch.tensor([[0.0, 3.0]]), "bias": torch.zeros(1)})
        {'weight': tensor([[False,  True]])}
    """
    return {path: leaf != 0 for path, leaf in chosen(params, where, None).items()}


def on_mask(end: Callable[..., Tensor], leaves: Params, masks: Masks, *rest: Params) -> Params:
    """Replace what is pruned of a tree by what `end` makes of its leaf, and of those of `rest`."""

    def replaced(path: str, leaf: Tensor, *others: Tensor) -> Tensor:
        if path not in masks:
            return leaf
        kept = masks[path].bool()
        kept = kept[..., None] if leaf.ndim > kept.ndim else kept  # a complex leaf, as two reals
        return torch.where(kept, leaf, end(leaf, *others))

    masked: Params = tree.map_with_path(replaced, leaves, *rest)
    return masked


def check_masks(masks: Masks, params: Params) -> None:
    """Raise unless every mask has a parameter of its name and shape."""
    leaves = tree.select(params)
    for path, mask in masks.items():
        if path not in leaves:
            raise ValueError(f"`masks` must have names of parameters, got {path!r}")
        if mask.shape != leaves[path].shape:
            raise ValueError(
                f"`masks` at path {path!r}: expected shape {tuple(leaves[path].shape)}, found "
                f"{tuple(mask.shape)}"
            )


def chosen(params: Params, where: Where | None, masks: Masks | None) -> dict[str, Tensor]:
    """Return the leaves to prune: the chosen ones, those that have a mask, or all weights."""
    if where is None:
        known = masks
        where = (lambda p, x: x.ndim >= 2) if known is None else (lambda p, x: p in known)
    check_masks(masks or {}, params)
    leaves = tree.select(params, where)
    if not leaves:
        raise ValueError(f"`where` must choose a parameter, got none of {tree.paths(params)}")
    return leaves


def check_amount(amount: Scalar) -> None:
    """Raise unless `amount` is a share in [0, 1], a whole number, or a 0-d tensor."""
    if isinstance(amount, Tensor):
        if amount.ndim:
            raise ValueError(f"`amount` must be a 0-d tensor, got shape {tuple(amount.shape)}")
        return
    if not isinstance(amount, Real):
        raise TypeError(f"`amount` must be a number or a 0-d tensor, got {amount!r}")
    if amount < 0 or (amount > 1 and not isinstance(amount, Integral)):
        raise ValueError(f"`amount` must be a float in [0, 1] or a whole number, got {amount}")


def keep_highest(scores: Tensor, amount: Scalar, left: Tensor | None = None) -> Tensor:
    """Return the mask that prunes the lowest of scores, the first of equal ones first.

    Args:
        scores: of shape `(n,)`, at least 0.
        amount: how many to prune: a share of those that are left (float), or a number (int).
        left: which are left, of shape `(n,)`; all if None.

    Raises:
        ValueError: `amount` is a number above `n`, or above those left where that can be seen.
    """
    n = scores.numel()
    if isinstance(amount, Integral) and amount > n:
        raise ValueError(f"`amount` must be at most {n}, the number there are, got {amount}")
    number: int | Tensor = n
    if left is not None:
        scores = torch.where(left, scores, -1)
        number = left.sum()
        if isinstance(amount, Integral) and can_see() and amount > number:
            raise ValueError(f"`amount` must be at most {number}, the number left, got {amount}")
    order = scores.argsort(stable=True)
    rank = torch.zeros_like(order).scatter(0, order, torch.arange(n, device=order.device))
    return rank >= n - number + _how_many(amount, number)


def _how_many(amount: Scalar, number: int | Tensor) -> int | Tensor:
    """Torch's rounding: half to even, in float64."""
    if isinstance(amount, Tensor):
        return torch.round(wide(amount) * number) if amount.is_floating_point() else amount
    if isinstance(amount, Integral):
        return int(amount)
    if isinstance(number, Tensor):
        return torch.round(wide(number) * float(amount))
    return round(float(amount) * number)


def wide(x: Tensor) -> Tensor:
    """Bring numbers to the precision in which shares of them are exact."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)
