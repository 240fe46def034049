"""Leaves, paths, and functions of every leaf."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optree
import torch

from fdnn.tree.compare import compare
from fdnn.tree.containers import is_flat, named_leaves, relabel
from fdnn.types import Tree

__all__ = [
    "column",
    "columns",
    "leaves",
    "map",
    "map_with_path",
    "paths",
    "refill",
]


def leaves(tree: Tree) -> list[Any]:
    """Return the leaves of `tree`, in the order of `paths`.

    Example:
        >>> leaves({"b": 1, "a": (2, 3)})
        [2, 3, 1]
    """
    if torch.compiler.is_compiling():  # optree's own answer for an empty dict stops torch.compile
        return [leaf for _, leaf in named_leaves(tree)]
    return optree.tree_leaves(tree)


def paths(tree: Tree) -> list[str]:
    """Return the dotted path of every leaf, fields of named tuples by name, dict keys sorted.

    Example:
        >>> paths({"w": {"1": 0, "0": 0}, "b": (0, 0)})
        ['b.0', 'b.1', 'w.0', 'w.1']
    """
    return [path for path, _ in named_leaves(tree)]


def columns(tree: Tree, *rest: Tree) -> list[list[Any]]:
    """Return the leaves of `tree`, and what each of `rest` holds at the same places.

    Their order is one of its own, which `refill` knows.

    Raises:
        ValueError: a tree of `rest` has another structure; the message names the path.

    Example:
        >>> columns({"a": 1, "b": 2}, {"a": 10, "b": 20})
        [[1, 2], [10, 20]]
    """
    if torch.compiler.is_compiling():  # which stumbles over optree's flattening, as in `leaves`
        return [leaves(tree), *(leaves(other) for other in rest)]
    if is_flat(tree):
        if not rest:
            return [list(tree.values())]
        if all(type(other) is dict and other.keys() == tree.keys() for other in rest):
            return [[each[key] for key in tree] for each in (tree, *rest)]
    found, structure = optree.tree_flatten(tree)
    try:
        return [found, *(structure.flatten_up_to(other) for other in rest)]
    except ValueError:
        _explain(tree, rest)
        raise


def column(tree: Tree, like: Tree) -> list[Any]:
    """Return what `tree` holds at the places of the leaves of `like`, in the order of `columns`.

    Raises:
        ValueError: `tree` has another structure; the message names the path.

    Example:
        >>> column({"b": 2, "a": 1}, like={"a": 10, "b": 20})
        [1, 2]
    """
    flat = not torch.compiler.is_compiling() and is_flat(like) and type(tree) is dict
    if flat and tree.keys() == like.keys():
        return [tree[key] for key in like]
    return columns(like, tree)[1]


def refill(tree: Tree, leaves: Sequence[Any]) -> Tree:
    """Put other leaves into a tree, in the order in which `columns` returned its own.

    Raises:
        ValueError: `leaves` are too many or too few.

    Example:
        >>> refill({"a": 1, "b": (2, 3)}, [10, 20, 30])
        {'a': 10, 'b': (20, 30)}
    """
    if torch.compiler.is_compiling():
        return relabel(tree, iter(leaves))
    if is_flat(tree):
        return dict(zip(tree, leaves, strict=True))
    return optree.tree_unflatten(optree.tree_structure(tree), leaves)


def map(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `fn` to each leaf of `tree` (and to what `rest` holds at the same places).

    Raises:
        ValueError: a tree of `rest` has another structure; the message names the path.

    Example:
        >>> map(lambda x, y: x + y, {"a": 1, "b": 2}, {"a": 10, "b": 20})
        {'a': 11, 'b': 22}
    """
    try:
        return optree.tree_map(fn, tree, *rest)
    except ValueError:
        _explain(tree, rest)
        raise  # by `fn` itself


def map_with_path(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `fn(path, leaf, *rest_leaves)` to each leaf, otherwise as `map`.

    Example:
        >>> map_with_path(lambda path, x: f"{path}={x}", {"a": {"b": 1}})
        {'a': {'b': 'a.b=1'}}
    """
    return map(fn, relabel(tree, iter(paths(tree))), tree, *rest)


def _explain(tree: Tree, rest: Sequence[Tree]) -> None:
    """Raise if one of `rest` has another structure, and say where."""
    for other in rest:
        if optree.prefix_errors(tree, other):
            compare(tree, other, lambda _: "a leaf")
