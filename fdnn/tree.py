"""Trees of tensors: mapping, selecting by path, splitting, stacking, measuring.

The only module that imports optree. A path is the way from the root to a leaf, its steps joined
by dots: dict keys, fields of named tuples, places in tuples and lists. The leaf
`params["0.weight"]` of a flat dict has the path `"0.weight"`, and `state.slots["w"]` has
`"slots.w"`. `None` is an empty tree: it has no leaf and stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    if torch.compiler.is_compiling():  # optree's own answer for an empty dict stops torch.compile
        return [leaf for _, leaf in _named_leaves(tree)]
    return optree.tree_leaves(tree)


def paths(tree: Tree) -> list[str]:
    """Return the dotted path of every leaf, fields of named tuples by name, dict keys sorted.

    Example:
        >>> paths({"w": {"1": 0, "0": 0}, "b": (0, 0)})
        ['b.0', 'b.1', 'w.0', 'w.1']
    """
    return [path for path, _ in _named_leaves(tree)]


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
        for other in rest:
            if optree.prefix_errors(tree, other):
                _compare(tree, other, lambda _: "a leaf")
        raise  # by `fn` itself


def map_with_path(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `fn(path, leaf, *rest_leaves)` to each leaf, otherwise as `map`.

    Example:
        >>> map_with_path(lambda path, x: f"{path}={x}", {"a": {"b": 1}})
        {'a': {'b': 'a.b=1'}}
    """
    return map(fn, _relabel(tree, iter(paths(tree))), tree, *rest)


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
    return {path: leaf for path, leaf in _named_leaves(tree) if chosen(path, leaf)}


def partition(tree: Tree, where: Where) -> tuple[Tree, Tree]:
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


def combine(*trees: Tree) -> Tree:
    """Put the halves of a `partition` together again; the first tree that has a leaf wins.

    Raises:
        ValueError: at one place the trees hold different containers.

    Example:
        >>> combine({"b": 2}, {"a": 1})
        {'b': 2, 'a': 1}
    """
    return _combine(trees, ())


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
        ValueError: a leaf has no dimension `dim`, the leaves disagree about its size, or there
            are no leaves.

    Example:
        >>> [t["w"].item() for t in unstack({"w": torch.tensor([1, 2])})]
        [1, 2]
    """
    sizes: dict[int, str] = {}
    for path, leaf in _named_leaves(tree):
        if not -leaf.ndim <= dim < leaf.ndim:
            raise ValueError(f"at path {path!r}: expected a dimension {dim}, found {_spec(leaf)}")
        sizes.setdefault(leaf.shape[dim], f"{leaf.shape[dim]} at path {path!r}")
    if len(sizes) != 1:
        found = ", ".join(sizes.values()) or "no leaves"
        raise ValueError(f"`tree` must have one size along dimension {dim}, got {found}")
    return [map(lambda x, i=i: x.select(dim, i), tree) for i in range(*sizes)]


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
    """Lay all leaves end to end in one vector, in the widest of their dtypes.

    Returns:
        The vector, and the function that cuts such a vector into the tree again, each leaf in
        its own shape and dtype.

    Raises:
        ValueError: integers, real and complex numbers are mixed: no dtype holds them all exactly.

    Example:
        >>> vector, unravel = ravel({"a": torch.ones(2), "b": torch.zeros(())})
        >>> vector, unravel(vector)["b"]
        (tensor([1., 1., 0.]), tensor(0.))
    """
    parts, places = leaves(tree), _relabel(tree, iter(range(len(paths(tree)))))
    for path, part in _named_leaves(tree):
        if _kind(part) != _kind(parts[0]):
            raise ValueError(f"at path {path!r}: expected {_kind(parts[0])}, found {_spec(part)}")
    specs = [(part.shape, part.dtype) for part in parts]
    sizes = [part.numel() for part in parts]
    vector = torch.cat([part.reshape(-1) for part in parts]) if parts else torch.zeros(0)

    def unravel(vector: Tensor) -> Tree:
        if vector.shape != (sum(sizes),):
            raise ValueError(f"`vector` must have shape ({sum(sizes)},), got {tuple(vector.shape)}")
        pieces = zip(torch.split(vector, sizes), specs, strict=True)
        cut = [p.reshape(s).to(d) for p, (s, d) in pieces]
        return map(lambda place: cut[place], places)

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
        old: the tree taken elsewhere, of the same structure and shapes.

    Raises:
        ValueError: `new` and `old` differ, or `condition` does not fit a leaf.

    Example:
        >>> where(torch.tensor([True, False]), {"w": torch.ones(2, 1)}, {"w": torch.zeros(2, 1)})
        {'w': tensor([[1.],
                [0.]])}
    """
    shape = tuple(condition.shape)

    def choose(path: str, a: Tensor, b: Tensor) -> Tensor:
        aligned = shape + (1,) * (a.ndim - len(shape))
        fits = [c in (1, n) for c, n in zip(aligned, a.shape, strict=False)]
        if getattr(b, "shape", None) != a.shape or len(aligned) > a.ndim or not all(fits):
            found = f"`condition` of shape {shape}, `new` {_spec(a)}, `old` {_spec(b)}"
            raise ValueError(f"at path {path!r}: expected shapes that fit, found {found}")
        return torch.where(condition.reshape(aligned), a, b)

    return map_with_path(choose, new, old)


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
    _compare(expected, found, _spec)


def _compare(expected: Tree, found: Tree, describe: Callable[[Any], str]) -> None:
    want, have = _nodes(expected, describe), _nodes(found, describe)
    for path in [*want, *have]:
        wanted, got = want.get(path, "nothing"), have.get(path, "nothing")
        if wanted != got:
            place = f"at path {_dotted(path)!r}" if path else "at the root"
            raise ValueError(f"{place}: expected {wanted}, found {got}")


def _nodes(
    tree: Tree, describe: Callable[[Any], str], path: tuple[Any, ...] = ()
) -> dict[tuple[Any, ...], str]:
    """Describe every container and leaf, by its path."""
    if optree.tree_is_leaf(tree):
        return {path: describe(tree)}
    nodes = {path: _frame(tree)}
    for step, child in _steps(tree):
        nodes.update(_nodes(child, describe, (*path, step)))
    return nodes


def _named_leaves(tree: Tree, path: tuple[Any, ...] = ()) -> list[tuple[str, Any]]:
    if optree.tree_is_leaf(tree):
        return [(_dotted(path), tree)]
    steps = _steps(tree)
    return [pair for step, x in steps for pair in _named_leaves(x, (*path, step))]


def _steps(tree: Tree) -> list[tuple[Any, Any]]:
    """The key, field or place of each child of a container, and the child."""
    if type(tree) is dict:  # optree's own answer stops torch.compile
        return [(key, tree[key]) for key in optree.utils.total_order_sorted(tree)]
    level = optree.tree_flatten_one_level(tree)
    return list(zip(getattr(tree, "_fields", level.entries), level.children, strict=True))


def _relabel(tree: Tree, labels: Iterator[Any]) -> Tree:
    """Replace the leaves, in the order of `paths` (to which `map` does not keep when compiled)."""
    if optree.tree_is_leaf(tree):
        return next(labels)
    return _rebuild(tree, {step: _relabel(child, labels) for step, child in _steps(tree)})


def _dotted(path: Sequence[Any]) -> str:
    return ".".join([str(step) for step in path])


def _spec(leaf: Any) -> str:
    if not isinstance(leaf, Tensor):
        return f"a {type(leaf).__name__}"
    return f"{str(leaf.dtype).removeprefix('torch.')} of shape {tuple(leaf.shape)}"


def _kind(leaf: Tensor) -> str:
    return "complex" if leaf.is_complex() else "real" if leaf.is_floating_point() else "integers"


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
    if optree.tree_is_leaf(tree):
        return tree if keep(_dotted(path), tree) else None
    pruned = {step: _prune(child, keep, (*path, step)) for step, child in _steps(tree)}
    if isinstance(tree, dict):
        pruned = {k: pruned[k] for k in tree if leaves(pruned[k]) or not leaves(tree[k])}
    return _rebuild(tree, pruned)


def _combine(trees: Sequence[Tree], path: tuple[Any, ...]) -> Tree:
    present = [tree for tree in trees if tree is not None]
    if not present:
        return None
    first = present[0]
    for other in present[1:]:
        if _frame(other) != _frame(first):
            found = f"expected {_frame(first)}, found {_frame(other)}"
            raise ValueError(f"at path {_dotted(path)!r}: {found}")
    if optree.tree_is_leaf(first):
        return first
    parts: dict[Any, list[Tree]] = {}
    for tree in present:
        for step, child in tree.items() if isinstance(tree, dict) else _steps(tree):
            parts.setdefault(step, []).append(child)
    return _rebuild(first, {step: _combine(part, (*path, step)) for step, part in parts.items()})


def _frame(tree: Tree) -> str:
    if optree.tree_is_leaf(tree):
        return "a leaf"
    if tree is None:
        return "None"
    length = "" if isinstance(tree, dict) else f" of length {len(tree)}"
    return f"a {type(tree).__name__}{length}"


def _rebuild(like: Tree, children: dict[Any, Any]) -> Tree:
    if isinstance(like, dict):  # in the order of `like`, and what is new behind it
        return type(like)({k: children[k] for k in like if k in children} | children)
    level = optree.tree_flatten_one_level(like)
    return level.unflatten_func(level.metadata, list(children.values()))
