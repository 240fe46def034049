"""`fdnn.products`: the products of a compiled graph, turned where that is faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from fdnn import jit, products

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL")
PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default}


def turned(fn: Callable[..., Tensor], *args: Tensor) -> tuple[Any, int]:
    """Trace a function and turn its products; return it, and how many were turned."""
    traced = make_fx(fn, tracing_mode="fake")(*args)
    before = [node for node in traced.graph.nodes if node.target in PRODUCTS]
    products.TransposedProducts()(traced.graph)
    traced.graph.lint()
    traced.recompile()
    kept = set(traced.graph.nodes)
    return traced, sum(node not in kept for node in before)


def stacks(
    rows: int, inputs: int, outputs: int, lanes: int = 3, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (lanes, rows, inputs), (lanes, outputs, inputs), (lanes, outputs)
    return tuple(torch.randn(shape, dtype=dtype) for shape in shapes)  # type: ignore[return-value]


@needs_mkl
@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 40),
    inputs=st.integers(1, 90),
    outputs=st.integers(1, 90),
    with_bias=st.booleans(),
    batched=st.booleans(),
)
def test_the_result_is_the_same(
    rows: int, inputs: int, outputs: int, with_bias: bool, batched: bool
) -> None:
    args = stacks(rows, inputs, outputs)[: 2 + with_bias]
    linear = vmap(F.linear) if batched else F.linear
    given = args if batched else tuple(x[0] for x in args)
    found, count = turned(linear, *given)
    torch.testing.assert_close(found(*given), linear(*given), rtol=1e-12, atol=1e-12)
    if outputs > 1 and inputs > 1:  # else rows and columns are the same
        assert count == (rows >= 16 and (not batched or inputs * outputs >= 4096))


@needs_mkl
def test_of_a_gradient_only_the_forward_product_is_turned() -> None:
    x, w, b = stacks(32, 100, 80)
    grad = vmap(torch.func.grad(lambda w, b, x: F.linear(x, w, b).square().sum()))
    found, count = turned(grad, w, b, x)
    assert count == 1
    torch.testing.assert_close(found(w, b, x), grad(w, b, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x, w: (x.bfloat16(), w.bfloat16()), "another precision"),
        (lambda x, w: (x, w.mT.contiguous().mT), "weights stored input-major"),
        (lambda x, w: (x.mT.contiguous().mT, w), "rows stored as columns"),
        (lambda x, w: (x.to("meta"), w.to("meta")), "not a CPU"),
    ],
)
def test_what_was_not_seen_to_pay_stays(change: Callable[..., Any], why: str) -> None:
    x, w = change(*stacks(32, 100, 80)[:2])
    assert turned(vmap(F.linear), x, w)[1] == 0, why


def test_without_mkl_nothing_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert turned(vmap(F.linear), *stacks(32, 100, 80))[1] == 0


@needs_mkl
def test_jit_turns_them(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, turn = [], products.TransposedProducts.__call__

    def counting(self: products.TransposedProducts, graph: torch.fx.Graph) -> None:
        before = {node for node in graph.nodes if node.target in PRODUCTS}
        turn(self, graph)
        counts.append(len(before - set(graph.nodes)))

    monkeypatch.setattr(products.TransposedProducts, "__call__", counting)
    monkeypatch.setattr(products.TransposedProducts, "uuid", lambda self: None)  # no cache
    args = stacks(32, 100, 80, dtype=torch.float32)
    torch.testing.assert_close(jit(vmap(F.linear))(*args), vmap(F.linear)(*args))
    assert counts == [1]
