"""Trees of tensors: mapping, selecting by path, splitting, stacking, measuring.

The only module that imports optree. A path is the keys from the root to a leaf joined by dots,
so the leaf `params["0.weight"]` of a flat dict has the path `"0.weight"`, and
`{"layer": {"weight": w}}` has the path `"layer.weight"`. `None` is an empty tree, as in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import optree
import torch
from torch import Tensor

from fdnn.types import Tree

__all__ = [
    "assert_same_structure",
    "cast",
    "combine",
    "global_norm",
    "leaves",
    "map",
    "map_with_path",
    "partition",
    "paths",
    "ravel",
    "select",
    "stack",
    "unstack",
    "where",
    "zeros_like",
]

Where: TypeAlias = str | Sequence[str] | Callable[[str, Any], bool]
"""Which leaves: a glob on the path, several globs, or a predicate of path and leaf."""


def leaves(tree: Tree) -> list[Any]:
    """Return the leaves of `tree`, in the order of `paths`.

    Example:
        >>> leaves({"b": 1, "a": (2, 3)})
        [2, 3, 1]
    """
    return optree.tree_leaves(tree)


def paths(tree: Tree) -> list[str]:
    """Return the dotted path of every leaf; dict keys come in sorted order.

    Example:
        >>> paths({"w": {"1": 0, "0": 0}, "b": (0, 0)})
        ['b.0', 'b.1', 'w.0', 'w.1']
    """
    return [_dotted(path) for path in optree.tree_paths(tree)]


def map(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `fn` to each leaf of `tree` (and the leaves of `rest` at the same places).

    Raises:
        ValueError: a tree of `rest` has another structure.

    Example:
        >>> map(lambda x, y: x + y, {"a": 1, "b": 2}, {"a": 10, "b": 20})
        {'a': 11, 'b': 22}
    """
    return optree.tree_map(fn, tree, *rest)


def map_with_path(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `fn(path, leaf, *rest_leaves)` to each leaf.

    Example:
        >>> map_with_path(lambda path, x: f"{path}={x}", {"a": {"b": 1}})
        {'a': {'b': 'a.b=1'}}
    """
    return optree.tree_map_with_path(
        lambda path, *args: fn(_dotted(path), *args), tree, *rest
    )


def select(tree: Tree, where: Where) -> dict[str, Any]:
    """Return the chosen leaves as a flat dict from path to leaf.

    Args:
        tree: any tree.
        where: a glob on paths (`"*.weight"`), several globs, or a predicate `(path, leaf)`.

    Raises:
        ValueError: a glob matches no path; the message lists the paths there are.

    Example:
        >>> select({"0.weight": 1, "0.bias": 2, "1.weight": 3}, "*.weight")
        {'0.weight': 1, '1.weight': 3}
    """
    chosen = _chooser(tree, where)
    return {
        path: leaf
        for path, leaf in zip(paths(tree), leaves(tree), strict=True)
        if chosen(path, leaf)
    }


def partition(tree: Tree, where: Where) -> tuple[Tree, Tree]:
    """Split `tree` in two: the chosen leaves, and the rest.

    In a flat or nested dict the other half's keys are left out, so that each half is a tree of
    its own (frozen parameters take no part in gradients or optimizer state). In tuples and
    lists, where a place cannot be left out, the other half holds `None` there.

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


def combine(*trees: Tree) -> Tree:
    """Put the halves of a `partition` together again; the first tree that has a leaf wins.

    Example:
        >>> combine({"b": 2}, {"a": 1})
        {'b': 2, 'a': 1}
    """
    present = [tree for tree in trees if tree is not None]
    if not present:
        return None
    first = present[0]
    if isinstance(first, dict):
        keys = dict.fromkeys(key for tree in present for key in tree)
        return {key: combine(*(t[key] for t in present if key in t)) for key in keys}
    if isinstance(first, tuple | list):
        return _rebuild(first, [combine(*parts) for parts in zip(*present, strict=True)])
    return first


def stack(trees: Sequence[Tree], dim: int = 0) -> Tree:
    """Stack trees of equal structure leaf by leaf: many runs become one batched run.

    Args:
        trees: at least one tree.
        dim: the new dimension.

    Raises:
        ValueError: `trees` is empty, or the structures differ (the message names the path).

    Example:
        >>> stack([{"w": torch.zeros(3)}, {"w": torch.ones(3)}])["w"].shape
        torch.Size([2, 3])
    """
    if not trees:
        raise ValueError("`trees` must hold at least one tree, got none")
    for other in trees[1:]:
        assert_same_structure(trees[0], other)
    return map(lambda *xs: torch.stack(xs, dim), *trees)


def unstack(tree: Tree, dim: int = 0) -> list[Tree]:
    """Undo `stack`: one tree for each index along `dim`.

    Raises:
        ValueError: the leaves disagree about the size along `dim`, or there are none.

    Example:
        >>> [t["w"].item() for t in unstack({"w": torch.tensor([1, 2])})]
        [1, 2]
    """
    sizes = {leaf.shape[dim] for leaf in leaves(tree)}
    if len(sizes) != 1:
        raise ValueError(f"leaves must agree on the size of dimension {dim}, got {sorted(sizes)}")
    return [map(lambda x, i=i: x.select(dim, i), tree) for i in range(sizes.pop())]


def zeros_like(tree: Tree, dtype: torch.dtype | None = None) -> Tree:
    """Return zeros of the same structure, shapes and devices.

    Example:
        >>> zeros_like({"w": torch.ones(2)})
        {'w': tensor([0., 0.])}
    """
    return map(lambda x: torch.zeros_like(x, dtype=dtype), tree)


def global_norm(tree: Tree) -> Tensor:
    """Return the Euclidean norm of all leaves taken as one vector, a 0-d tensor.

    An empty tree has norm 0.

    Example:
        >>> global_norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])})
        tensor(5.)
    """
    norms = [torch.linalg.vector_norm(leaf) for leaf in leaves(tree)]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def ravel(tree: Tree) -> tuple[Tensor, Callable[[Tensor], Tree]]:
    """Lay all leaves end to end in one vector.

    Returns:
        The vector, and the function that cuts such a vector into the tree again, each leaf in
        its own shape and dtype.

    Example:
        >>> vector, unravel = ravel({"a": torch.ones(2), "b": torch.zeros(())})
        >>> vector, unravel(vector)["b"]
        (tensor([1., 1., 0.]), tensor(0.))
    """
    parts, treedef = optree.tree_flatten(tree)
    shapes = [part.shape for part in parts]
    dtypes = [part.dtype for part in parts]
    sizes = [part.numel() for part in parts]
    vector = torch.cat([part.reshape(-1) for part in parts]) if parts else torch.zeros(0)

    def unravel(vector: Tensor) -> Tree:
        if vector.shape != (sum(sizes),):
            raise ValueError(f"`vector` must have shape ({sum(sizes)},), got {tuple(vector.shape)}")
        pieces = torch.split(vector, sizes)
        cut = [p.reshape(s).to(d) for p, s, d in zip(pieces, shapes, dtypes, strict=True)]
        return optree.tree_unflatten(treedef, cut)

    return vector, unravel


def cast(tree: Tree, dtype: torch.dtype) -> Tree:
    """Convert the floating-point leaves to `dtype`; integers, booleans and keys stay.

    Example:
        >>> cast({"w": torch.ones(1), "n": torch.tensor(3)}, torch.float64)
        {'w': tensor([1.], dtype=torch.float64), 'n': tensor(3)}
    """
    return map(lambda x: x.to(dtype) if x.is_floating_point() else x, tree)


def where(condition: Tensor, new: Tree, old: Tree) -> Tree:
    """Choose leaf by leaf: `new` where `condition`, else `old`. The `if` that vmaps.

    Args:
        condition: a boolean tensor, 0-d or broadcasting from the left against every leaf, so
            that shape `(lanes,)` chooses lane by lane in a stacked tree.
        new: the tree taken where `condition` holds.
        old: the tree taken elsewhere.

    Example:
        >>> where(torch.tensor([True, False]), {"w": torch.ones(2, 1)}, {"w": torch.zeros(2, 1)})
        {'w': tensor([[1.],
                [0.]])}
    """

    def choose(a: Tensor, b: Tensor) -> Tensor:
        aligned = condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim))
        return torch.where(aligned, a, b)

    return map(choose, new, old)


def assert_same_structure(expected: Tree, found: Tree) -> None:
    """Check that two trees have the same paths, shapes and dtypes.

    Raises:
        ValueError: they differ; the message names the first path, what was expected there and
            what was found.

    Example:
        >>> assert_same_structure({"w": torch.zeros(2)}, {"w": torch.zeros(3)})
        Traceback (most recent call last):
        ValueError: at path 'w': expected float32 of shape (2,), found float32 of shape (3,)
    """
    want = dict(zip(paths(expected), leaves(expected), strict=True))
    have = dict(zip(paths(found), leaves(found), strict=True))
    for path in [*want, *have]:
        wanted = _describe(want[path]) if path in want else "nothing"
        got = _describe(have[path]) if path in have else "nothing"
        if wanted != got:
            raise ValueError(f"at path {path!r}: expected {wanted}, found {got}")
    structures = optree.tree_structure(expected), optree.tree_structure(found)
    if structures[0] != structures[1]:
        raise ValueError(f"at the root: expected {structures[0]}, found {structures[1]}")


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry) for entry in path)


def _describe(leaf: Any) -> str:
    if not isinstance(leaf, Tensor):
        return f"a {type(leaf).__name__}"
    return f"{str(leaf.dtype).removeprefix('torch.')} of shape {tuple(leaf.shape)}"


def _chooser(tree: Tree, where: Where) -> Callable[[str, Any], bool]:
    """Turn globs into a predicate, refusing one that matches nothing (a typo, most likely)."""
    if callable(where):
        return where
    globs = [where] if isinstance(where, str) else list(where)
    known = paths(tree)
    for glob in globs:
        if not any(fnmatchcase(path, glob) for path in known):
            raise ValueError(f"pattern {glob!r} matches no path; the paths are {known}")
    return lambda path, _: any(fnmatchcase(path, glob) for glob in globs)


def _prune(tree: Tree, keep: Callable[[str, Any], bool], path: tuple[Any, ...]) -> Tree:
    """Drop the leaves that `keep` refuses, and the dict entries this leaves empty."""
    if isinstance(tree, dict):
        kept = {key: _prune(child, keep, (*path, key)) for key, child in tree.items()}
        return {key: child for key, child in kept.items() if child is not None}
    if isinstance(tree, tuple | list):
        return _rebuild(tree, [_prune(c, keep, (*path, i)) for i, c in enumerate(tree)])
    return tree if tree is not None and keep(_dotted(path), tree) else None


def _rebuild(like: Any, items: list[Any]) -> Any:
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)
