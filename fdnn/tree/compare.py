"""Where two trees differ, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fdnn.tree.containers import children_of, dotted, frame, is_leaf, spec
from fdnn.types import Tree

__all__ = [
    "assert_same_structure",
    "compare",
]


def assert_same_structure(expected: Tree, found: Tree) -> None:
    """Check that two trees have the same paths, shapes and dtypes.

    Raises:
        ValueError: they differ; the message names the first path, what was expected there and
            what was found.

    Example:
        >>> import torch
        >>> assert_same_structure({"w": torch.zeros(2)}, {"w": torch.zeros(3)})
        Traceback (most recent call last):
        ValueError: at path 'w': expected float32 of shape (2,), found float32 of shape (3,)
    """
    compare(expected, found, spec)


def compare(expected: Tree, found: Tree, describe: Callable[[Any], str]) -> None:
    """Raise at the first difference in containers or in what `describe` says of leaves."""
    want, have = _nodes(expected, describe), _nodes(found, describe)
    for path in [*want, *have]:
        wanted, got = want.get(path, "nothing"), have.get(path, "nothing")
        if wanted != got:
            place = f"at path {dotted(path)!r}" if path else "at the root"
            raise ValueError(f"{place}: expected {wanted}, found {got}")


def _nodes(
    tree: Tree, describe: Callable[[Any], str], path: tuple[Any, ...] = ()
) -> dict[tuple[Any, ...], str]:
    """Describe every container and leaf, by its path."""
    if is_leaf(tree):
        return {path: describe(tree)}
    nodes = {path: frame(tree)}
    for step, child in children_of(tree):
        nodes.update(_nodes(child, describe, (*path, step)))
    return nodes
