"""`fdnn.jit`: one graph, donation, and what happens without a compiler."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, vmap
from torch._dynamo import eval_frame
from torch._inductor import cpp_builder, exc

from fdnn import jit, tree

module = sys.modules["fdnn.jit"]  # `fdnn.jit` itself is the function


def advance(state: dict[str, Tensor], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    return {"a": state["a"] + x, "b": state["b"] * 2, "key": state["key"]}, state["a"].sum()


def start() -> dict[str, Tensor]:
    return {"a": torch.arange(3.0), "b": torch.ones(2, 2), "key": torch.tensor([1, 2])}


def test_equals_the_function_and_leaves_arguments_alone() -> None:
    state = start()
    found, total = jit(advance)(state, torch.ones(3))
    wanted, wanted_total = advance(start(), torch.ones(3))
    assert tree.leaves(tree.map(torch.equal, found, wanted)) == [True] * 3
    assert total == wanted_total
    assert tree.leaves(tree.map(torch.equal, state, start())) == [True] * 3


def test_donated_memory_holds_the_result() -> None:
    state, step = start(), jit(advance, donate_argnums=0)
    memory = tree.map(Tensor.data_ptr, state)
    for i in range(1, 4):
        state, total = step(state, torch.ones(3))
        assert tree.map(Tensor.data_ptr, state) == memory
        assert state["a"].tolist() == [i, i + 1, i + 2]
        assert state["b"].tolist() == [[2.0**i] * 2] * 2
        assert state["key"].tolist() == [1, 2]
        assert total == 3 * i
    assert step.__name__ == "advance"


def test_swapped_tensors_are_not_overwritten_before_they_are_read() -> None:
    swap = jit(lambda pair: (pair[1] + 1, pair[0] + 10), donate_argnums=(0,))
    a, b = swap((torch.zeros(4), torch.ones(4)))
    assert (a.tolist(), b.tolist()) == ([2.0] * 4, [10.0] * 4)


def test_output_that_fits_no_donated_tensor_is_new() -> None:
    grow = jit(lambda x: torch.cat([x, x]), donate_argnums=0)
    x = torch.ones(2)
    assert grow(x).shape == (4,)
    assert x.tolist() == [1.0, 1.0]


def test_expanded_tensor_is_not_overwritten() -> None:
    shared = torch.zeros(()).expand(3)
    found = jit(lambda x: x + torch.arange(3), donate_argnums=0)(shared)
    assert found.tolist() == [0, 1, 2]
    assert shared.tolist() == [0, 0, 0]


def test_compiles_vmap_and_new_shapes() -> None:
    twice = jit(vmap(lambda x: {"y": x * 2}), donate_argnums=0)
    for size in (2, 3, 5):
        assert twice(torch.ones(4, size))["y"].tolist() == [[2.0] * size] * 4


def test_functions_of_one_code_do_not_share_a_limit() -> None:
    for i in range(12):
        assert jit(lambda x, i=i: x + i)(torch.zeros(())) == i


def test_the_second_call_goes_past_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(callback: Any) -> Any:
        if callback not in (None, False):  # these only switch torch.compile off
            raise AssertionError("torch.compile was asked")
        return callback

    step = jit(advance, donate_argnums=0)
    state, _ = step(start(), torch.ones(3))
    with monkeypatch.context() as patch:
        patch.setattr(eval_frame, "_callback_from_stance", refuse)
        state, total = step(state, torch.ones(3))
    assert state["a"].tolist() == [2.0, 3.0, 4.0]
    assert total == 6


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.sampled_from([torch.float32, torch.float64]), st.integers(0, 3), st.booleans())
    )
)
def test_every_kind_of_input_gets_code_of_its_own(kinds: list[Any]) -> None:
    double = jit(lambda x, grow: {"y": x * 2, "z": x} if grow else {"y": x + 1})
    for dtype, size, grow in kinds:
        x = torch.arange(size, dtype=dtype)
        found = double(x, grow)
        assert set(found) == ({"y", "z"} if grow else {"y"})
        assert found["y"].dtype == dtype
        assert found["y"].tolist() == (x * 2 if grow else x + 1).tolist()


factor = 2.0


def test_what_a_function_closes_over_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    offset, scale = torch.zeros(2), 1.0
    function = jit(lambda x: (x * scale + offset) * factor)
    for _ in range(2):
        assert function(torch.ones(2)).tolist() == [2.0, 2.0]
    offset = torch.ones(2)
    assert function(torch.ones(2)).tolist() == [4.0, 4.0]
    scale = 3.0
    assert function(torch.ones(2)).tolist() == [8.0, 8.0]
    monkeypatch.setitem(globals(), "factor", 10.0)
    assert function(torch.ones(2)).tolist() == [40.0, 40.0]


def test_gradients_flow_when_they_are_wanted() -> None:
    square = jit(lambda x: (x**2).sum())
    x = torch.arange(3.0, requires_grad=True)
    for _ in range(2):
        with torch.no_grad():
            assert not square(x).requires_grad
        assert torch.autograd.grad(square(x), x)[0].tolist() == [0.0, 2.0, 4.0]


def test_inside_another_it_is_part_of_its_graph() -> None:
    inner = jit(lambda x: x * 2)
    outer = jit(lambda x: inner(x) + inner(x + 1))
    for _ in range(2):
        assert inner(torch.ones(2)).tolist() == [2.0, 2.0]
        assert outer(torch.ones(2)).tolist() == [6.0, 6.0]


def test_it_heeds_torchs_stance_and_reset() -> None:
    def traced(x: Tensor) -> Tensor:
        return x + 1 if torch.compiler.is_compiling() else x

    function = jit(traced)
    for _ in range(2):
        assert function(torch.zeros(())) == 1
        with torch.compiler.set_stance("force_eager"):
            assert function(torch.zeros(())) == 0
        torch.compiler.reset()


def test_a_graph_break_is_an_error() -> None:
    def peek(x: Tensor) -> Tensor:
        return x + 1 if x.sum().item() > 0 else x

    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        jit(peek)(torch.ones(2))


@pytest.mark.parametrize("number", [-1, (0, -2)])
def test_negative_position_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match=r"`donate_argnums` must not be negative, got .*-"):
        jit(advance, donate_argnums=number)


def test_position_that_is_not_passed_is_refused() -> None:
    step = jit(advance, donate_argnums=1)
    with pytest.raises(ValueError, match="names argument 1, but the call passes 1 by position"):
        step(start(), x=torch.ones(3))


def test_view_of_a_donated_tensor_is_refused() -> None:
    step = jit(lambda s: {"w": s["w"] + 1, "last": s["w"][1:]}, donate_argnums=0)
    with pytest.raises(ValueError, match=r"output 'last' is a view of a donated tensor .*clone it"):
        step({"w": torch.zeros(3)})


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    module._can_compile.cache_clear()
    yield
    module._can_compile.cache_clear()


def test_without_a_compiler_it_warns_once_and_runs(no_compiler: None) -> None:
    step, state = jit(advance, donate_argnums=0), start()
    with pytest.warns(RuntimeWarning, match=r"a C\+\+ compiler was not found: install it \(Debian"):
        first, _ = step(state, torch.ones(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second, _ = step(first, torch.ones(3))
    assert state["a"].tolist() == [0.0, 1.0, 2.0]
    assert second["a"].tolist() == [2.0, 3.0, 4.0]


def test_without_pythons_headers_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_python_header", lambda: Path("/no/such/Python.h"))
    module._can_compile.cache_clear()
    with pytest.warns(RuntimeWarning, match="Python's headers were not found: .* python3-dev"):
        assert jit(lambda x: x + 1)(torch.zeros(())) == 1
    module._can_compile.cache_clear()


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="not glibc, or before 2.33",
)
def test_what_a_call_frees_is_kept_for_the_next() -> None:
    """From then on malloc takes a large block from what it keeps, not from the system."""
    code = """
import ctypes, torch, fdnn
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
blocks = []
def from_the_system():
    before = mallinfo().hblks
    blocks.append(torch.empty(7_000_000))
    return mallinfo().hblks - before
torch.compile(torch.sin)
print(from_the_system())
fdnn.jit(torch.sin)
print(from_the_system())
"""
    call = [sys.executable, "-c", code]
    found = subprocess.run(call, check=True, capture_output=True, text=True).stdout
    assert found.split() == ["1", "0"]
