"""What a container is: its children and the way to them. Nearly all that fdnn asks of optree."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import optree
from torch import Tensor

from fdnn.types import Tree

__all__ = [
    "children_of",
    "dotted",
    "frame",
    "is_flat",
    "is_leaf",
    "named_leaves",
    "rebuild",
    "relabel",
    "spec",
]


def is_leaf(tree: Tree) -> bool:
    """Tell a leaf from a container; None is an empty container."""
    return optree.tree_is_leaf(tree)


def is_flat(tree: Tree) -> bool:
    """Tell a plain dict of tensors, such as the parameters of a model: by far the most trees."""
    return type(tree) is dict and {*map(type, tree.values())} == {Tensor}


def named_leaves(tree: Tree, path: tuple[Any, ...] = ()) -> list[tuple[str, Any]]:
    """The dotted path of each leaf, and the leaf."""
    if is_leaf(tree):
        return [(dotted(path), tree)]
    children = children_of(tree)
    return [pair for step, x in children for pair in named_leaves(x, (*path, step))]


def children_of(tree: Tree) -> list[tuple[Any, Any]]:
    """The key, field or place of each child of a container, and the child."""
    if type(tree) is dict:  # optree's own answer stops torch.compile
        return [(key, tree[key]) for key in optree.utils.total_order_sorted(tree)]
    level = optree.tree_flatten_one_level(tree)
    return list(zip(getattr(tree, "_fields", level.entries), level.children, strict=True))


def relabel(tree: Tree, labels: Iterator[Any]) -> Tree:
    """Replace the leaves, in the order of `paths` (to which `map` does not keep when compiled)."""
    if is_leaf(tree):
        return next(labels)
    return rebuild(tree, {step: relabel(child, labels) for step, child in children_of(tree)})


def rebuild(like: Tree, children: dict[Any, Any]) -> Tree:
    """Make a container like another, with these children."""
    if isinstance(like, dict):  # in the order of `like`, and what is new behind it
        ordered = {k: children[k] for k in like if k in children} | children
        if type(like) is dict:
            return ordered
        made = copy.copy(like)  # a default dict keeps its factory
        made.clear()
        made.update(ordered)
        return made
    level = optree.tree_flatten_one_level(like)
    return level.unflatten_func(level.metadata, list(children.values()))


def dotted(path: Sequence[Any]) -> str:
    """Write a path down."""
    return ".".join([str(step) for step in path])


def frame(tree: Tree) -> str:
    """Say in words what is there, without what is in it."""
    if is_leaf(tree):
        return "a leaf"
    if tree is None:
        return "None"
    length = "" if isinstance(tree, dict) else f" of length {len(tree)}"
    return f"a {type(tree).__name__}{length}"


def spec(leaf: Any) -> str:
    """Say in words what a leaf is."""
    if not isinstance(leaf, Tensor):
        return f"a {type(leaf).__name__}"
    return f"{str(leaf.dtype).removeprefix('torch.')} of shape {tuple(leaf.shape)}"
