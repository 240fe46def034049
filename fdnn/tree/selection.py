"""Some of the leaves: chosen by path, split off, and put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch

from fdnn.tree.containers import children_of, dotted, frame, is_leaf, named_leaves, rebuild
from fdnn.tree.mapping import leaves, paths
from fdnn.types import Tree, Where

__all__ = [
    "combine",
    "partition",
    "select",
]

T = TypeVar("T")
"""A tree of one type; what comes back is of the same."""


def select(tree: Tree, where: Where | None = None) -> dict[str, Any]:
    """Return the chosen leaves as a flat dict from path to leaf.

    Args:
        tree: any tree.
        where: a glob on paths (`"*.weight"`), several globs, or a predicate `(path, leaf)`; all
            leaves if left out.

    Raises:
        ValueError: a glob matches no path; the message lists the paths there are.

    Example:
        >>> select({"0.weight": 1, "0.bias": 2, "1.weight": 3}, "*.weight")
        {'0.weight': 1, '1.weight': 3}
    """
    if where is None:
        return dict(named_leaves(tree))
    chosen = _chooser(tree, where)
    return {path: leaf for path, leaf in named_leaves(tree) if chosen(path, leaf)}


def partition(tree: T, where: Where) -> tuple[T, T]:
    """Split `tree` in two: the chosen leaves, and the rest.

    A dict entry none of whose leaves belong to a half is left out of it, so that each half is a
    tree of its own (frozen parameters take no part in gradients or optimizer state). In tuples
    and lists, where a place cannot be left out, the half holds `None` there.

    Args:
        tree: any tree.
        where: as in `select`.

    Returns:
        `(chosen, rest)`, which `combine` puts together again.

    Raises:
        ValueError: a glob matches no path.

    Example:
        >>> frozen, trained = partition({"0.weight": 1, "1.weight": 2}, "0.*")
        >>> frozen, trained
        ({'0.weight': 1}, {'1.weight': 2})
    """
    chosen = _chooser(tree, where)
    return _prune(tree, chosen, ()), _prune(tree, lambda p, x: not chosen(p, x), ())


def combine(*trees: T) -> T:
    """Put the halves of a `partition` together again; the first tree that has a leaf wins.

    Raises:
        ValueError: at one place the trees hold different containers.

    Example:
        >>> combine({"b": 2}, {"a": 1})
        {'b': 2, 'a': 1}
    """
    whole: T = _combine(trees, ())
    return whole


def _chooser(tree: Tree, where: Where) -> Callable[[str, Any], bool]:
    """Turn globs into a predicate, refusing one that matches nothing (a typo, most likely)."""
    if callable(where):
        return where
    globs = [where] if isinstance(where, str) else list(where)
    known = paths(tree)
    for glob in globs:
        if not any(_matches(path, glob) for path in known):
            raise ValueError(f"`where` matches no path with {glob!r}; the paths are {known}")
    return lambda path, _: any(_matches(path, glob) for glob in globs)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _matches(path: str, glob: str) -> bool:
    return fnmatchcase(path, glob)


def _prune(tree: Tree, keep: Callable[[str, Any], bool], path: tuple[Any, ...]) -> Tree:
    """Drop the leaves that `keep` refuses, and the dict entries that had only such leaves."""
    if is_leaf(tree):
        return tree if keep(dotted(path), tree) else None
    pruned = {step: _prune(child, keep, (*path, step)) for step, child in children_of(tree)}
    if isinstance(tree, dict):
        pruned = {k: pruned[k] for k in tree if leaves(pruned[k]) or not leaves(tree[k])}
    return rebuild(tree, pruned)


def _combine(trees: Sequence[Tree], path: tuple[Any, ...]) -> Tree:
    present = [tree for tree in trees if tree is not None]
    if not present:
        return None
    first = present[0]
    for other in present[1:]:
        if frame(other) != frame(first):
            found = f"expected {frame(first)}, found {frame(other)}"
            raise ValueError(f"at path {dotted(path)!r}: {found}")
    if is_leaf(first):
        return first
    parts: dict[Any, list[Tree]] = {}
    for tree in present:
        for step, child in tree.items() if isinstance(tree, dict) else children_of(tree):
            parts.setdefault(step, []).append(child)
    return rebuild(first, {step: _combine(part, (*path, step)) for step, part in parts.items()})
