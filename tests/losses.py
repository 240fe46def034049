"""A loss for optimizers that ask for one, from gradients that come from nowhere."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fdnn import tree
from fdnn.types import GradientTransformation, Tree

__all__ = ["with_loss"]


def with_loss(tx: GradientTransformation) -> GradientTransformation:
    """Give an optimizer `value` and `value_and_grad` of a bowl whose slope at `params` is `grads`.

    Its curvature along an element is 1 plus the size of the gradient there, its value at `params`
    is 3.
    """

    def update(grads: Tree, state: Any, params: Tree) -> Any:
        def value_and_grad(place: Tree) -> tuple[Tensor, Tree]:
            gap = tree.map(lambda q, p: q - p, place, params)
            rise = tree.map(lambda g, d: (1 + g.abs()) * d, grads, gap)
            parts = tree.map(lambda g, r, d: (d.conj() * (g + r / 2)).real, grads, rise, gap)
            value = sum((part.sum() for part in tree.leaves(parts)), state.count * 0.0 + 3.0)
            return value, tree.map(lambda g, r, p: (g + r).to(p.dtype), grads, rise, place)

        value, _ = value_and_grad(params)
        return tx.update(grads, state, params, value=value, value_and_grad=value_and_grad)

    return GradientTransformation(tx.init, update)
