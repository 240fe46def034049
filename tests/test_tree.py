"""`fdnn.tree` over trees of every form: drawn at random, empty, deep, and with `None` in them."""

from __future__ import annotations

import functools
import math
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, vmap

from fdnn import tree


class Pair(NamedTuple):
    first: Any
    second: Any


# Trees at random, and what they are, told without `fdnn.tree` or optree.


def trees(leaf: st.SearchStrategy[Any], *, none: bool = True) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["b", "a", "w2", "w10", 10, 2, 0])

    def nest(child: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return (
            st.dictionaries(names, child, max_size=3)
            | st.lists(child, max_size=3)
            | st.lists(child, max_size=3).map(tuple)
            | st.builds(Pair, child, child)
        )

    return st.recursive(leaf | st.none() if none else leaf, nest, max_leaves=8)


SIZES = [(), (1,), (3,), (2, 3), (0, 2)]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
DTYPES = [*FLOATS, torch.complex64, torch.int64, torch.int32, torch.bool]


def tensors(*dtypes: torch.dtype) -> st.SearchStrategy[Tensor]:
    def make(shape: tuple[int, ...], dtype: torch.dtype, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers[: math.prod(shape)]).reshape(shape).to(dtype)

    numbers = st.lists(st.integers(-9, 9), min_size=6, max_size=6)
    return st.builds(make, st.sampled_from(SIZES), st.sampled_from(dtypes), numbers)


numbers = trees(st.integers())
tensor_trees = trees(tensors(*DTYPES))
float_trees = trees(tensors(torch.float64, torch.float32))

Path = tuple[Any, ...]


def children(node: Any) -> list[tuple[Any, Any]]:
    if isinstance(node, dict):
        # Numbers come before names, and "w10" before "w2".
        return sorted(node.items(), key=lambda item: (isinstance(item[0], str), item[0]))
    return list(zip(getattr(node, "_fields", range(len(node))), node, strict=True))


def is_container(node: Any) -> bool:
    return isinstance(node, dict | list | tuple)


def walk(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every leaf with its path."""
    if is_container(node):
        for step, child in children(node):
            yield from walk(child, (*path, step))
    elif node is not None:
        yield path, node


def put(node: Any, path: Path, new: Any) -> Any:
    """Return the tree with another leaf or subtree at `path`."""
    if not path:
        return new
    entries = {step: child for step, child in children(node)}
    entries[path[0]] = put(entries[path[0]], path[1:], new)
    if isinstance(node, dict):
        return entries
    return type(node)(*entries.values()) if isinstance(node, Pair) else type(node)(entries.values())


def dotted(path: Path) -> str:
    return ".".join(map(str, path))


def place(path: Path) -> str:
    return f"at path {dotted(path)!r}" if path else "at the root"


def describe(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        return f"{str(leaf.dtype)[6:]} of shape {tuple(leaf.shape)}"
    return f"a {type(leaf).__name__}"


def assert_same(found: Any, expected: Any) -> None:
    """The same containers, and equal leaves of the same dtype."""
    assert type(found) is type(expected)
    if is_container(expected):
        assert [step for step, _ in children(found)] == [step for step, _ in children(expected)]
        for (_, a), (_, b) in zip(children(found), children(expected), strict=True):
            assert_same(a, b)
    elif isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    else:
        assert found == expected


def says(message: str) -> str:
    return f"^{re.escape(message)}$"


# Leaves, paths, map


@given(tensor_trees)
def test_leaves_and_paths_go_together(x: Any) -> None:
    expected = list(walk(x))
    assert tree.paths(x) == [dotted(path) for path, _ in expected]
    found = tree.leaves(x)
    assert len(found) == len(expected)
    assert all(a is b for a, (_, b) in zip(found, expected, strict=True))


@given(numbers)
def test_map_keeps_structure_and_composes(x: Any) -> None:
    assert_same(tree.map(lambda leaf: leaf, x), x)
    twice = tree.map(lambda leaf: str(leaf + 1), x)
    assert_same(tree.map(str, tree.map(lambda leaf: leaf + 1, x)), twice)
    assert tree.leaves(twice) == [str(leaf + 1) for _, leaf in walk(x)]
    assert tree.paths(twice) == tree.paths(x)


@given(numbers)
def test_map_of_several_trees(x: Any) -> None:
    y = tree.map(lambda leaf: 10 * leaf, x)
    found = tree.map(lambda a, b, c: (a, b, c), x, y, x)
    for path, leaf in walk(x):
        x = put(x, path, (leaf, 10 * leaf, leaf))
    assert_same(found, x)


@given(numbers)
def test_map_with_path_tells_the_path(x: Any) -> None:
    y = tree.map(lambda leaf: -leaf, x)
    seen: list[tuple[str, int, int]] = []
    tree.map_with_path(lambda *args: seen.append(args), x, y)
    assert seen == [(dotted(path), leaf, -leaf) for path, leaf in walk(x)]
    assert tree.leaves(tree.map_with_path(lambda path, leaf: path, x)) == tree.paths(x)


def test_dicts_keep_the_order_of_insertion() -> None:
    x = {"w": 1, "b": {"z": 2, "a": 3}}
    assert tree.paths(x) == ["b.a", "b.z", "w"]
    chosen, rest = tree.partition(x, ["w", "b.z"])
    for found in (tree.map(str, x), tree.map_with_path(lambda path, leaf: leaf, x), chosen):
        assert list(found) == ["w", "b"]
    assert list(tree.map_with_path(lambda path, leaf: leaf, x)["b"]) == ["z", "a"]
    assert list(tree.combine(rest, chosen)) == ["b", "w"]
    vector, unravel = tree.ravel({"w": torch.ones(1), "b": torch.zeros(1)})
    assert list(unravel(vector)) == ["w", "b"]


def test_map_gives_what_lies_under_a_leaf() -> None:
    pairs = tree.map(lambda a, b: (a, b), {"a": 1, "b": 2}, {"a": {"x": 3}, "b": None})
    assert pairs == {"a": (1, {"x": 3}), "b": (2, None)}


@pytest.mark.parametrize(
    ("x", "other", "message"),
    [
        ({"a": 1}, {"b": 1}, "at path 'a': expected a leaf, found nothing"),
        ({"a": {}}, {"a": {}, "b": 1}, "at path 'b': expected nothing, found a leaf"),
        ({"a": None}, {"a": 1}, "at path 'a': expected None, found a leaf"),
        (
            {"a": [1, 2]},
            {"a": [1]},
            "at path 'a': expected a list of length 2, found a list of length 1",
        ),
        (
            {"a": [1]},
            {"a": (1,)},
            "at path 'a': expected a list of length 1, found a tuple of length 1",
        ),
        (
            Pair(1, [2]),
            (1, [2]),
            "at the root: expected a Pair of length 2, found a tuple of length 2",
        ),
        ([{"a": ()}], [{"a": {}}], "at path '0.a': expected a tuple of length 0, found a dict"),
    ],
)
def test_map_names_where_trees_differ(x: Any, other: Any, message: str) -> None:
    with pytest.raises(ValueError, match=says(message)):
        tree.map(lambda *leaves: leaves, x, other)
    with pytest.raises(ValueError, match=says(message)):
        tree.map_with_path(lambda *leaves: leaves, x, x, other)


def test_an_error_of_the_function_comes_through() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        tree.map(lambda a, b: int("x"), {"a": 1}, {"a": 1})


# Select, partition, combine


@given(numbers, st.data())
def test_select_by_predicate(x: Any, data: st.DataObject) -> None:
    known = tree.paths(x)
    wanted = data.draw(st.sets(st.sampled_from(known)) if known else st.just(set()))
    expected = {dotted(path): leaf for path, leaf in walk(x) if dotted(path) in wanted}
    assert tree.select(x, lambda path, leaf: path in wanted) == expected
    assert tree.select(x, sorted(wanted)) == expected
    odd = {dotted(path): leaf for path, leaf in walk(x) if leaf % 2}
    assert tree.select(x, lambda path, leaf: leaf % 2 == 1) == odd


@given(numbers, st.lists(st.sampled_from(["*", "a*", "*.0", "*0*", "[ab]", "w*", "?"]), max_size=3))
def test_select_by_globs(x: Any, globs: list[str]) -> None:
    known = tree.paths(x)
    unknown = [glob for glob in globs if not any(fnmatchcase(path, glob) for path in known)]
    if unknown:
        message = f"`where` matches no path with {unknown[0]!r}; the paths are {known}"
        for refuses in (tree.select, tree.partition):
            with pytest.raises(ValueError, match=says(message)):
                refuses(x, globs)
        return
    expected = [path for path in known if any(fnmatchcase(path, glob) for glob in globs)]
    assert list(tree.select(x, globs)) == expected
    if len(globs) == 1:
        assert tree.select(x, globs[0]) == tree.select(x, globs)


def test_globs_see_flat_names_and_case() -> None:
    flat = {"0.weight": 1, "0.bias": 2, "Norm.weight": 3}
    assert tree.select(flat, "*.weight") == {"0.weight": 1, "Norm.weight": 3}
    assert tree.select(flat, ["N*", "0.bias"]) == {"0.bias": 2, "Norm.weight": 3}
    with pytest.raises(ValueError, match="matches no path with 'n\\*'"):
        tree.select(flat, "n*")


def assert_pruned(half: Any, whole: Any) -> None:
    """No dict of a half keeps an entry that lost all its leaves; tuples and lists keep places."""
    if not is_container(half):
        return
    assert type(half) is type(whole)
    original = dict(children(whole))
    if not isinstance(half, dict):
        assert len(half) == len(whole)
    for step, child in children(half):
        if isinstance(half, dict):
            assert list(walk(child)) or not list(walk(original[step]))
        assert_pruned(child, original[step])


@given(numbers, st.data())
def test_partition_and_combine(x: Any, data: st.DataObject) -> None:
    known = tree.paths(x)
    wanted = data.draw(st.sets(st.sampled_from(known)) if known else st.just(set()))
    chosen, rest = tree.partition(x, lambda path, _: path in wanted)
    everything = dict(zip(known, tree.leaves(x), strict=True))
    # Leaves keep their paths, and each is in one half.
    halves = [
        dict(zip(tree.paths(half), tree.leaves(half), strict=True)) for half in (chosen, rest)
    ]
    assert halves[0] == {path: everything[path] for path in wanted}
    assert halves[1] == {path: everything[path] for path in known if path not in wanted}
    assert_pruned(chosen, x)
    assert_pruned(rest, x)
    assert_same(tree.combine(chosen, rest), x)
    assert_same(tree.combine(rest, chosen), x)
    assert_same(tree.combine(x, rest), x)


def test_partition_in_dicts_tuples_and_none() -> None:
    x = {"a": (1, 2), "b": Pair(3, None), "c": {}, "d": [{"x": 4}, {}]}
    chosen, rest = tree.partition(x, ["a.0", "d*"])
    assert_same(chosen, {"a": (1, None), "c": {}, "d": [{"x": 4}, {}]})
    assert_same(rest, {"a": (None, 2), "b": Pair(3, None), "c": {}})


def test_combine_takes_the_first_leaf_there_is() -> None:
    assert tree.combine({"a": 1, "b": None}, {"a": 2, "b": 3}, {"c": 4}) == {"a": 1, "b": 3, "c": 4}
    assert tree.combine(None, None) is None
    assert tree.combine() is None


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            {"a": [1]},
            {"a": (1,)},
            "at path 'a': expected a list of length 1, found a tuple of length 1",
        ),
        ({"a": {"b": 1}}, {"a": 2}, "at path 'a': expected a dict, found a leaf"),
        (
            [None, (1,)],
            [2, (1, 2)],
            "at path '1': expected a tuple of length 1, found a tuple of length 2",
        ),
    ],
)
def test_combine_refuses_different_containers(x: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=says(message)):
        tree.combine(x, y)


# Stack, unstack, ravel


@given(tensor_trees, st.integers(1, 4), st.sampled_from([0, -1]))
def test_stack_and_unstack(x: Any, lanes: int, dim: int) -> None:
    runs = [
        tree.map(lambda leaf, i=i: leaf + i if leaf.dtype != torch.bool else leaf, x)
        for i in range(lanes)
    ]
    stacked = tree.stack(runs, dim)
    for found, *wanted in zip(tree.leaves(stacked), *map(tree.leaves, runs), strict=True):
        assert found.equal(torch.stack(wanted, dim))
    if tree.leaves(x):
        for found, expected in zip(tree.unstack(stacked, dim), runs, strict=True):
            assert_same(found, expected)
    else:
        message = f"`tree` must have one size along dimension {dim}, got no leaves"
        with pytest.raises(ValueError, match=says(message)):
            tree.unstack(stacked, dim)


def test_what_cannot_be_stacked() -> None:
    with pytest.raises(ValueError, match="`trees` must hold at least one tree, got none"):
        tree.stack([])
    message = "at path 'w': expected float32 of shape (2,), found float32 of shape (3,)"
    with pytest.raises(ValueError, match=says(message)):
        tree.stack([{"w": torch.zeros(2)}, {"w": torch.zeros(2)}, {"w": torch.zeros(3)}])


def test_what_cannot_be_unstacked() -> None:
    message = "at path 'b': expected a dimension 0, found float32 of shape ()"
    with pytest.raises(ValueError, match=says(message)):
        tree.unstack({"a": torch.zeros(2), "b": torch.zeros(())})
    message = "at path 'a': expected a dimension -2, found float32 of shape (2,)"
    with pytest.raises(ValueError, match=says(message)):
        tree.unstack({"a": torch.zeros(2)}, -2)
    message = "`tree` must have one size along dimension 0, got 2 at path 'a', 3 at path 'c'"
    with pytest.raises(ValueError, match=says(message)):
        tree.unstack({"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(3)})


def kind(dtype: torch.dtype) -> str:
    return "complex" if dtype.is_complex else "real" if dtype.is_floating_point else "integers"


@given(tensor_trees)
def test_ravel_and_back(x: Any) -> None:
    found = list(walk(x))
    first = kind(found[0][1].dtype) if found else ""
    other = [(path, leaf) for path, leaf in found if kind(leaf.dtype) != first]
    if other:
        path, leaf = other[0]
        message = f"at path {dotted(path)!r}: expected {first}, found {describe(leaf)}"
        with pytest.raises(ValueError, match=says(message)):
            tree.ravel(x)
        return
    vector, unravel = tree.ravel(x)
    if found:
        assert vector.equal(torch.cat([leaf.reshape(-1) for _, leaf in found]))
    assert vector.shape == (sum(leaf.numel() for _, leaf in found),)
    assert_same(unravel(vector), x)
    message = f"`vector` must have shape ({len(vector)},), got ({len(vector) + 1},)"
    with pytest.raises(ValueError, match=says(message)):
        unravel(torch.zeros(len(vector) + 1))


@given(trees(tensors(torch.float64), none=False))  # torch.func takes None for a leaf
def test_ravel_is_linear_and_differentiable(x: Any) -> None:
    vector, unravel = tree.ravel(x)
    doubled = tree.map(lambda leaf: 2 * leaf, x)
    assert_same(unravel(2 * vector.double()), doubled)
    assert_same(grad(lambda x: tree.ravel(x)[0].square().sum() / 2)(x), x)
    slope = grad(
        lambda vector: sum(leaf.sum() for leaf in tree.leaves(unravel(vector))) + vector.sum()
    )
    assert slope(vector).equal(torch.full_like(vector, 2 if tree.leaves(x) else 1))


# Arithmetic


@given(tensor_trees, st.sampled_from([None, torch.float64, torch.int32]))
def test_zeros_like(x: Any, dtype: torch.dtype | None) -> None:
    zeros = tree.zeros_like(x, dtype)
    assert_same(zeros, tree.map(lambda leaf: torch.zeros(leaf.shape, dtype=dtype or leaf.dtype), x))


@given(tensor_trees, st.sampled_from(FLOATS))
def test_cast(x: Any, dtype: torch.dtype) -> None:
    found = tree.cast(x, dtype)
    assert tree.paths(found) == tree.paths(x)
    for leaf, original in zip(tree.leaves(found), tree.leaves(x), strict=True):
        real = kind(original.dtype) == "real"
        assert leaf.dtype == (dtype if real else original.dtype)
        assert leaf.equal(original.to(leaf.dtype))


@given(float_trees)
def test_global_norm(x: Any) -> None:
    parts = [leaf.double().flatten() for _, leaf in walk(x)]
    expected = torch.linalg.vector_norm(torch.cat(parts)) if parts else torch.zeros(())
    found = tree.global_norm(x)
    assert found.shape == ()
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-6, atol=0)


def test_all_finite() -> None:
    whole = {"a": torch.ones(2, 3), "b": (torch.arange(3), torch.tensor(True)), "c": {}}
    assert tree.all_finite(whole)
    assert tree.all_finite({})
    for bad in (torch.nan, torch.inf, -torch.inf):
        found = tree.all_finite({**whole, "d": torch.tensor([0.0, bad])})
        assert found.shape == () and found.dtype == torch.bool and not found
    lanes = {"w": torch.tensor([[1.0, 2.0], [torch.nan, 2.0]]), "n": torch.arange(2)}
    assert vmap(tree.all_finite)(lanes).tolist() == [True, False]


def test_global_norm_of_zeros_has_a_gradient() -> None:
    slope = grad(tree.global_norm)({"a": torch.zeros(2), "b": torch.zeros(())})
    assert_same(slope, {"a": torch.zeros(2), "b": torch.zeros(())})


@given(tensor_trees, st.booleans())
def test_where_of_one_condition(x: Any, condition: bool) -> None:
    y = tree.zeros_like(x)
    assert_same(tree.where(torch.tensor(condition), x, y), x if condition else y)


@given(tensor_trees, st.lists(st.booleans(), min_size=2, max_size=2))
def test_where_chooses_lane_by_lane(x: Any, condition: list[bool]) -> None:
    new, old = tree.stack([x, x]), tree.zeros_like(tree.stack([x, x]))
    expected = [x if flag else tree.zeros_like(x) for flag in condition]
    assert_same(tree.where(torch.tensor(condition), new, old), tree.stack(expected))


ROW = torch.zeros(2)


@pytest.mark.parametrize(
    ("condition", "new", "old", "found"),
    [
        (
            torch.ones(3) > 0,
            ROW,
            ROW,
            "`condition` of shape (3,), `new` float32 of shape (2,), `old` float32 of shape (2,)",
        ),
        (
            torch.ones(2, 1) > 0,
            ROW,
            ROW,
            "`condition` of shape (2, 1), `new` float32 of shape (2,), `old` float32 of shape (2,)",
        ),
        (
            torch.tensor(True),
            ROW,
            ROW[:1],
            "`condition` of shape (), `new` float32 of shape (2,), `old` float32 of shape (1,)",
        ),
        (
            torch.tensor(True),
            ROW,
            {"x": ROW},
            "`condition` of shape (), `new` float32 of shape (2,), `old` a dict",
        ),
        (
            torch.tensor(True),
            ROW,
            None,
            "`condition` of shape (), `new` float32 of shape (2,), `old` a NoneType",
        ),
    ],
)
def test_where_names_what_does_not_fit(condition: Tensor, new: Any, old: Any, found: str) -> None:
    message = f"at path 'a.0': expected shapes that fit, found {found}"
    with pytest.raises(ValueError, match=says(message)):
        tree.where(condition, {"a": [new]}, {"a": [old]})


def test_where_names_another_structure() -> None:
    message = "at path 'a': expected a leaf, found nothing"
    with pytest.raises(ValueError, match=says(message)):
        tree.where(torch.tensor(True), {"a": ROW}, {"b": ROW})


# Structure


@given(tensor_trees)
def test_a_tree_has_its_own_structure(x: Any) -> None:
    tree.assert_same_structure(x, tree.map(torch.clone, x))


@given(tensor_trees, st.data())
def test_a_difference_is_named(x: Any, data: st.DataObject) -> None:
    assume(list(walk(x)))
    path, leaf = data.draw(st.sampled_from(list(walk(x))))
    change, found = data.draw(
        st.sampled_from(
            [
                (leaf[None], describe(leaf[None])),
                (leaf.bool().byte(), describe(leaf.bool().byte())),
                (None, "None"),
                (1.5, "a float"),
                ((leaf,), "a tuple of length 1"),
                ({"x": leaf}, "a dict"),
            ]
        )
    )
    changed = put(x, path, change)
    message = f"{place(path)}: expected {describe(leaf)}, found {found}"
    with pytest.raises(ValueError, match=says(message)):
        tree.assert_same_structure(x, changed)
    message = f"{place(path)}: expected {found}, found {describe(leaf)}"
    with pytest.raises(ValueError, match=says(message)):
        tree.assert_same_structure(changed, x)


@pytest.mark.parametrize(
    ("expected", "found", "message"),
    [
        ({}, {"a": {}}, "at path 'a': expected nothing, found a dict"),
        ({"a": ()}, {}, "at path 'a': expected a tuple of length 0, found nothing"),
        ([], (), "at the root: expected a list of length 0, found a tuple of length 0"),
        ({}, None, "at the root: expected a dict, found None"),
        (Pair(None, {}), Pair({}, None), "at path 'first': expected None, found a dict"),
    ],
)
def test_trees_without_leaves_differ_too(expected: Any, found: Any, message: str) -> None:
    with pytest.raises(ValueError, match=says(message)):
        tree.assert_same_structure(expected, found)


# No function changes what it is given.


PURE: dict[str, Callable[[Any], Any]] = {
    "leaves": tree.leaves,
    "paths": tree.paths,
    "column": lambda x: tree.column(x, x),
    "columns": lambda x: tree.columns(x, x),
    "map": lambda x: tree.map(torch.neg, x),
    "map_with_path": lambda x: tree.map_with_path(lambda path, leaf, other: -leaf, x, x),
    "refill": lambda x: tree.refill(x, tree.columns(x)[0]),
    "select": lambda x: tree.select(x, lambda path, leaf: leaf.ndim > 0),
    "partition": lambda x: tree.partition(x, lambda path, leaf: leaf.ndim > 0),
    "combine": lambda x: tree.combine(x, tree.zeros_like(x)),
    "stack": lambda x: tree.stack([x, x]),
    "unstack": lambda x: tree.unstack({"x": tree.stack([x, x]), "y": torch.zeros(2)}),
    "zeros_like": tree.zeros_like,
    "global_norm": tree.global_norm,
    "ravel": lambda x: tree.ravel(x)[1](tree.ravel(x)[0] + 1),
    "all_finite": tree.all_finite,
    "cast": lambda x: tree.cast(x, torch.float16),
    "where": lambda x: tree.where(torch.tensor(False), x, tree.zeros_like(x)),
    "assert_same_structure": lambda x: tree.assert_same_structure(x, x),
}


def test_every_function_is_here() -> None:
    assert set(PURE) == set(tree.__all__)


@pytest.mark.parametrize("name", PURE)
@given(x=float_trees)
def test_arguments_stay_as_they_are(name: str, x: Any) -> None:
    before = tree.map(torch.clone, x)
    PURE[name](x)
    assert_same(x, before)


@pytest.mark.parametrize("kind", [dict, OrderedDict, functools.partial(defaultdict, list)])
def test_a_kind_of_dict_stays_what_it_is(kind: Any) -> None:
    x = kind({"b": torch.ones(2), "a": {"c": torch.zeros(1)}})
    labelled = tree.map_with_path(lambda path, leaf: path, x)
    assert labelled == kind({"b": "b", "a": {"c": "a.c"}})
    halves = tree.partition(x, "a.*")
    assert [list(half) for half in halves] == [["a"], ["b"]]
    assert list(tree.combine(*halves)) == ["a", "b"]
    for made in (labelled, *halves, tree.combine(*halves)):
        assert type(made) is type(x)
        assert getattr(made, "default_factory", None) is getattr(x, "default_factory", None)


# Transforms


def everything(x: Any, y: Any, flag: Tensor) -> dict[str, Any]:
    """Every function of `fdnn.tree`, in one."""
    tree.assert_same_structure(x, y)
    chosen, rest = tree.partition(x, ["layers.*.w", "pair*"])
    vector, unravel = tree.ravel(x)
    first, _ = tree.unstack(tree.stack([x, y], -1), -1)
    return {
        "map": tree.map(lambda a, b: a * b, x, y),
        "map_with_path": tree.map_with_path(lambda path, a: a * len(path), x),
        "select": tree.select(x, "*.w"),
        "chosen": chosen,
        "rest": rest,
        "combine": tree.combine(tree.map(torch.neg, chosen), rest),
        "unstack": first,
        "zeros_like": tree.zeros_like(x),
        "global_norm": tree.global_norm(x),
        "unravel": unravel(vector.cumsum(0)),
        "cast": tree.cast(x, torch.float64),
        "where": tree.where(flag, x, y),
        "leaves": dict(zip(tree.paths(x), tree.leaves(x), strict=True)),
        "constants": tree.map_with_path(lambda path, n: flag + n + len(path), {"b": 1, "aa": 2}),
    }


def sample(seed: int) -> dict[str, Any]:
    values = torch.arange(12.0) + seed
    return {
        "layers": [{"w": values[:6].reshape(2, 3), "b": values[6:8]}, {}, {"w": values[8:9]}],
        "pair": Pair(values[9:12], values[0]),
        "nothing": ({}, ()),
    }


RUNS = [(sample(0), sample(5), torch.tensor(True)), (sample(2), sample(-3), torch.tensor(False))]


def test_vmap_is_a_loop() -> None:
    assert_same(vmap(everything)(*tree.stack(RUNS)), tree.stack([everything(*run) for run in RUNS]))


def test_compiles_whole() -> None:
    torch._dynamo.reset()
    solo = torch.compile(everything, fullgraph=True, dynamic=False, backend="aot_eager")
    for x, y, flag in RUNS:
        run = *({**run, "pair": Pair(run["pair"].first, None)} for run in (x, y)), flag
        assert_same(solo(*run), everything(*run))
    lanes = torch.compile(vmap(everything), fullgraph=True, dynamic=False, backend="aot_eager")
    assert_same(lanes(*tree.stack(RUNS)), vmap(everything)(*tree.stack(RUNS)))
    torch._dynamo.reset()


def test_select_without_a_choice_is_all() -> None:
    nested = {"b": 1, "a": {"y": (2, 3), "x": 4}}
    assert tree.select(nested) == dict(zip(tree.paths(nested), tree.leaves(nested), strict=True))
