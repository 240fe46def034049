"""All leaves as one vector."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.optim.core.chain import Chain, chain
from fdnn.optim.core.leafwise import unpack
from fdnn.optim.core.part import Hyper, Notes, narrow, sequence, widen
from fdnn.types import GradientTransformation, Tree

__all__ = ["flatten"]


def flatten(inner: GradientTransformation) -> Chain:
    """Let a transformation work on one vector of all elements instead of many leaves.

    Compiled, that is one kernel instead of one for each leaf, at the price of copying every leaf
    twice; measure before you use it. Each slot is one vector, in the order of `tree.paths` and in
    the widest of the dtypes.

    What acts on every element alike, or on all together (`adam`, `clip_by_global_norm`), gives
    the same steps. What looks at leaves one by one sees a single one (`clip_by_block_rms`), what
    looks at their shape a vector (`centralize`), and paths do not reach inside: put `masked` and
    `partition` around it.

    Args:
        inner: a transformation of fdnn.

    Raises:
        ValueError: real and complex leaves are mixed; give each kind its own by `partition`.

    Example:
        >>> import torch
        >>> from fdnn import optim
        >>> tx = flatten(optim.sgd(lr=0.1, momentum=0.9))
        >>> params = {"w": torch.ones(2, 2), "b": torch.ones(2)}
        >>> params, state = optim.step(tx, params, params, tx.init(params))
        >>> params["b"], state.slots["momentum_buffer"].shape
        (tensor([0.9000, 0.9000]), torch.Size([6]))
    """
    part = sequence("flatten", chain(inner).parts)

    def init(params: Tree) -> dict[str, Tree]:
        return part.init(tree.ravel(params)[0])

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
        like, unravel = tree.ravel(stored)
        vector = widen(tree.ravel(updates)[0])
        own = None if params is None else widen(like)
        moved, left, said = part.update(vector, slots, own, hyper, count, stored=like, **extra)
        return unravel(narrow(unpack(moved, like), like)), left, said

    return chain(part._replace(init=init, update=update, as_is=True))
