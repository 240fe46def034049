"""Batch norm in plain operations against torch's own, and where the one takes the other's place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close
from torch import Tensor, nn
from torch.func import grad, vmap

from fdnn import functionalize, random, tree
from fdnn.normalization import BatchNormState, batch_norm, init_batch_norm, plain

DOUBLE = torch.float64
SHAPES = [(6, 3), (1, 3, 2), (6, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 2)]


def draw(seed: int, *shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return (2 * random.normal(random.key(seed), shape, DOUBLE) + 1).to(dtype)


def everything(function: Any, x: Tensor, affine: list[Tensor], training: bool) -> Any:
    """Output, statistics, and first and second derivatives."""
    kept = draw(3, 3), draw(4, 3).square()

    def run(x: Tensor, affine: list[Tensor]) -> Any:
        stats = [tensor.clone() for tensor in kept]
        y = function(x, *stats, *affine, training=training, momentum=0.3, eps=1e-3)
        return y.pow(3).sum(), (y, stats)

    def curvature(x: Tensor, affine: list[Tensor]) -> Tensor:
        grads = grad(lambda *args: run(*args)[0], (0, 1))(x, affine)
        return sum(leaf.square().sum() for leaf in tree.leaves(grads))

    first, (y, stats) = grad(run, (0, 1), has_aux=True)(x, affine)
    return y, stats, first, grad(curvature, (0, 1))(x, affine)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [[], [draw(1, 3)], [draw(1, 3), draw(2, 3)]], ids=len)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_torchs(shape: tuple[int, ...], affine: list[Tensor], training: bool) -> None:
    ours, wanted = (
        everything(function, draw(0, *shape), affine, training)
        for function in (plain.batch_norm, F.batch_norm)
    )
    assert_close(ours[:2], wanted[:2], rtol=1e-13, atol=1e-13)
    assert_close(ours[2:], wanted[2:], rtol=1e-9, atol=1e-8)


def test_without_running_statistics() -> None:
    x = draw(0, 6, 3)
    wanted = F.batch_norm(x, None, None, training=True)
    assert_close(plain.batch_norm(x, None, None, training=True), wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_narrow_dtypes_are_computed_in_float32(
    dtype: torch.dtype, mixed: bool, training: bool
) -> None:
    own = torch.float32 if mixed else dtype
    x = draw(0, 64, 3, dtype=dtype)
    given = [tensor.to(own) for tensor in (draw(3, 3), draw(4, 3).square(), draw(1, 3), draw(2, 3))]
    exact = [tensor.double() for tensor in given]
    y = plain.batch_norm(x, *given, training=training)
    wanted = F.batch_norm(x.double(), *exact, training=training)
    assert y.dtype is dtype
    assert given[0].dtype is own
    eps = torch.finfo(dtype).eps
    assert_close(y.double(), wanted, rtol=eps, atol=1e-5)  # rounded once
    assert_close([t.double() for t in given[:2]], exact[:2], rtol=torch.finfo(own).eps, atol=1e-6)


def test_a_large_mean_costs_no_accuracy() -> None:
    """In float32 a mean of 10 000 standard deviations: half a unit in the last place is 5e-4."""
    x = (draw(0, 128, 3) / 2 + 10_000).float()
    (y, stats, first), (wanted, exact, derivative) = (
        everything_but_the_second(function, x.to(dtype))
        for function, dtype in ((plain.batch_norm, torch.float32), (F.batch_norm, DOUBLE))
    )
    assert_close(y.double(), wanted, rtol=0, atol=1e-3)
    assert_close(stats[1].double(), exact[1], rtol=1e-5, atol=0)
    assert_close(first.double(), derivative, rtol=0, atol=1e-2)


def everything_but_the_second(function: Any, x: Tensor) -> Any:
    def run(x: Tensor) -> Any:
        stats = [torch.zeros(3, dtype=x.dtype), torch.ones(3, dtype=x.dtype)]
        y = function(x, *stats, training=True, momentum=1.0)
        return y.pow(3).sum(), (y, stats)

    first, (y, stats) = grad(run, has_aux=True)(x)
    return y, stats, first


def test_running_statistics_carry_no_gradient_to_the_batch() -> None:
    def total(x: Tensor) -> Tensor:
        stats = [torch.zeros(3, dtype=DOUBLE), torch.ones(3, dtype=DOUBLE)]
        plain.batch_norm(x, *stats, training=True)
        return stats[0].sum() + stats[1].sum() + 0 * x.sum()

    assert (grad(total)(draw(0, 6, 3)) == 0).all()


def test_one_value_has_no_variance() -> None:
    with pytest.raises(ValueError, match=r"at least two values for each channel.*\(1, 3\)"):
        plain.batch_norm(torch.zeros(1, 3), None, None, training=True)


def by_module(train: bool) -> Any:
    model = functionalize(nn.BatchNorm1d(3, dtype=DOUBLE))

    def loss(weight: Tensor, state: BatchNormState, x: Tensor) -> Any:
        params = {**model.params, "weight": weight}
        y, buffers = model.apply(params, state._asdict(), x, train=train)
        return y.pow(3).sum(), (y, list(buffers.values()))

    return loss


def by_function(train: bool) -> Any:
    def loss(weight: Tensor, state: BatchNormState, x: Tensor) -> Any:
        y, state = batch_norm(x, state, weight, train=train)
        return y.pow(3).sum(), (y, list(state))

    return loss


@pytest.mark.parametrize("vmapped", [True, False])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("build", [by_module, by_function])
def test_takes_torchs_place_in_vmapped_code_that_is_compiled(
    build: Any, train: bool, vmapped: bool
) -> None:
    """In eval mode too, where torch's would warn of a performance drop."""
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    lanes = [2] if vmapped else []
    state = tree.map(lambda leaf: leaf.expand((*lanes, *leaf.shape)), init_batch_norm(3, DOUBLE))
    given = draw(1, *lanes, 3), state, draw(0, *lanes, 6, 3)
    step = grad(build(train), (0, 2), has_aux=True)
    step = vmap(step) if vmapped else step
    found = torch.compile(step, fullgraph=True, dynamic=False, backend=backend)(*given)
    assert any("batch_norm" in target for target in seen) is not vmapped
    assert_close(found, step(*given), rtol=1e-12, atol=1e-12)
