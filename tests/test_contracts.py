"""The contract that every public function keeps, as a registry crossed with the transforms.

A row gives a function of tensors and the arguments of lane i. A new public function needs a row in
`contracts/`, in the file of its package, or a reason in `EXEMPT` there; the tests then come for
free: it is pure, vmap is a loop, chunks change nothing, it stays on its device, and it compiles as
one graph, vmapped too.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from contracts.shared import Row
from torch import vmap

import fdnn
from fdnn import tree

LANES = 3
PACKAGES = [
    path.stem
    for path in sorted(Path(__file__).with_name("contracts").glob("*.py"))
    if path.stem != "shared"
]
ROWS: dict[str, Row] = {}
EXEMPT: dict[str, str] = {}
for _package in PACKAGES:
    _registry = importlib.import_module(f"contracts.{_package}")
    ROWS.update(getattr(_registry, "ROWS", {}))
    EXEMPT.update(getattr(_registry, "EXEMPT", {}))

every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def assert_same(found: Any, expected: Any, exact: bool) -> None:
    if exact:
        assert_equal(found, expected)
    else:
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def looped(row: Row) -> Any:
    return tree.stack([row.fn(*row.args(lane)) for lane in range(LANES)])


def stacked(row: Row) -> Any:
    return tree.stack([row.args(lane) for lane in range(LANES)])


def test_registry_is_complete() -> None:
    packages = {name: importlib.import_module(f"fdnn.{name}") for name in PACKAGES}
    public = {
        f"{package}.{name}"
        for package, module in packages.items()
        for name in module.__all__
        if not isinstance(getattr(module, name), type | tuple)
    } | {"jit", "functionalize"}
    assert set(ROWS) | set(EXEMPT) == public
    assert not set(ROWS) & set(EXEMPT)


def test_every_package_is_in_the_registry() -> None:
    folders = {path.parent.name for path in Path(fdnn.__file__).parent.glob("*/__init__.py")}
    without = {"estimators", "nn"}  # classes only: scikit-learn's checks and torch's modules
    assert folders - without == set(PACKAGES)


@every_row
def test_pure(row: Row) -> None:
    args, before, generator = row.args(0), row.args(0), torch.get_rng_state()
    first, second = row.fn(*args), row.fn(*args)
    assert torch.equal(torch.get_rng_state(), generator)
    assert_same(args, before, exact=True)
    assert_same(second, first, exact=True)


@every_row
def test_vmap_is_a_loop(row: Row) -> None:
    assert_same(vmap(row.fn)(*stacked(row)), looped(row), row.exact)


@every_row
def test_chunk_size_changes_nothing(row: Row) -> None:
    assert_same(vmap(row.fn, chunk_size=2)(*stacked(row)), looped(row), row.exact)


@every_row
def test_stays_on_its_device(row: Row) -> None:
    """Tensors of another device meet none of the CPU: meta, which has no values, is at hand."""
    args = tree.map(lambda leaf: torch.empty_like(leaf, device="meta"), stacked(row))
    assert {leaf.device.type for leaf in tree.leaves(vmap(row.fn)(*args))} == {"meta"}


@every_row
def test_compiles(row: Row) -> None:
    """As one graph, by dynamo and autograd; what inductor makes of it is tested by package."""
    torch._dynamo.reset()  # rows share code, and dynamo counts compilations of code
    for fn, args, wanted in (
        (row.fn, row.args(1), row.fn(*row.args(1))),
        (vmap(row.fn), stacked(row), looped(row)),
    ):
        traced = torch.compile(fn, fullgraph=True, dynamic=False, backend="aot_eager")
        assert_same(traced(*args), wanted, row.exact)


@pytest.mark.parametrize("empty", [{}, (), {"a": {}, "b": []}], ids=str)
@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("optim.")])
def test_optimizers_take_empty_trees(name: str, empty: Any) -> None:
    if name.split(".")[1] in ("apply_updates", "diagnostics", "set_hyperparams", "step"):
        return
    if name.startswith("optim.projection_"):  # of one tensor
        return
    moved, state = ROWS[name].fn(empty, empty)
    assert moved == empty
    assert state.count == 3
