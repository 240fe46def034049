"""One formula for all leaves: torch's foreach kernels where they can serve, a loop elsewhere.

An optimizer's arithmetic is the same for every leaf, so it is written once, as a function of
tensors. Run eagerly outside of all transforms, that function is handed all leaves at once, as one
`Leaves`, and each of its operations becomes one call into torch's foreach kernels instead of a
Python call for each leaf. Under `vmap`, `grad` and `torch.compile` it is called leaf by leaf.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level

from fdnn import tree
from fdnn.types import Tree

__all__ = ["leafwise"]


def leafwise(fn: Callable[..., Any], first: Tree, *rest: Tree) -> Tree:
    """Apply elementwise arithmetic to every leaf: `tree.map`, but faster where it can be.

    Args:
        fn: a function of one leaf of each tree, made of elementwise operations of torch: operators,
            functions such as `torch.sqrt`, methods. It must not look at shapes or values.
        first: a tree.
        *rest: trees of the same structure.

    Returns:
        A tree of the same structure, of what `fn` returns.

    Raises:
        ValueError: a tree of `rest` has another structure; the message names the path.

    Example:
        >>> leafwise(lambda m, g: 0.9 * m + g, {"w": torch.ones(2)}, {"w": torch.ones(2)})
        {'w': tensor([1.9000, 1.9000])}
    """
    leaves = tree.leaves(first)
    if len(leaves) < 2 or not _alone(leaves):
        return tree.map(fn, first, *rest)
    columns: list[list[Tensor]] = [[] for _ in (first, *rest)]
    tree.map(lambda *row: [column.append(x) for column, x in zip(columns, row, strict=True)], first, *rest)
    result = iter(fn(*map(Leaves, columns)).tensors)
    return tree.map(lambda _: next(result), first)
