"""Norms of gradients and ratios of updates, against plain sums."""

from __future__ import annotations

import pytest
import torch
from asserts import assert_close
from hypothesis import given
from hypothesis import strategies as st
from torch import vmap

from fdnn import inspect, tree


@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4),
    exponent=st.integers(-140, 140),
    seed=st.integers(0, 9),
)
def test_norms(shapes: list[list[int]], exponent: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    grads = {
        f"w{i}": torch.randn(shape, generator=generator, dtype=torch.float64)
        for i, shape in enumerate(shapes)
    }
    scale = 10.0**exponent
    found = inspect.gradient_norms(tree.map(lambda g: g * scale, grads))
    squares = {name: g.square().sum() for name, g in grads.items()}
    wanted = {name: square.sqrt() * scale for name, square in squares.items()}
    assert_close(found.leaves, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        found.total, sum(squares.values()).sqrt() * scale, rtol=1e-12, atol=0
    )


def test_chosen_leaves_keep_their_order() -> None:
    grads = {"2.weight": torch.ones(4), "10.bias": torch.ones(1), "10.weight": torch.ones(9)}
    assert list(inspect.gradient_norms(grads).leaves) == ["2.weight", "10.bias", "10.weight"]
    chosen = inspect.gradient_norms(grads, "*.weight")
    assert chosen.leaves == {"2.weight": 2, "10.weight": 3}
    assert chosen.total == torch.tensor(13.0).sqrt()
    nested = inspect.gradient_norms({"a": (torch.ones(4), {"b": torch.ones(1)})})
    assert nested.leaves == {"a.0": 2, "a.1.b": 1}
    with pytest.raises(ValueError, match=r"`where` matches no path with '\*\.gain'"):
        inspect.gradient_norms(grads, "*.gain")


def test_norms_of_what_is_not_finite_and_of_nothing() -> None:
    found = inspect.gradient_norms(
        {
            "inf": torch.tensor([torch.inf, 1.0]),
            "nan": torch.tensor([torch.nan]),
            "none": torch.ones(0),
        }
    )
    assert found.leaves["inf"].isinf() and found.leaves["nan"].isnan()
    assert found.leaves["none"] == 0
    assert inspect.gradient_norms({}).total == 0


def test_half_precision_does_not_overflow() -> None:
    found = inspect.gradient_norms({"w": torch.full((100,), 6e4, dtype=torch.float16)})
    torch.testing.assert_close(found.total, torch.tensor(599_680.0), rtol=1e-3, atol=0)


def test_ratio() -> None:
    params = {"w": torch.tensor([[3.0, 4.0]]), "zero": torch.zeros(2), "still": torch.zeros(2)}
    moved = {"w": torch.tensor([[3.0, 4.01]]), "zero": torch.ones(2), "still": torch.zeros(2)}
    found = inspect.weight_update_ratio(params, moved)
    torch.testing.assert_close(found["w"], torch.tensor(0.002), rtol=1e-4, atol=0)
    assert found["zero"].isinf()
    assert found["still"] == 0
    assert list(inspect.weight_update_ratio(params, moved, "w")) == ["w"]
    with pytest.raises(ValueError, match="expected"):
        inspect.weight_update_ratio(params, {"w": params["w"]})


def test_ratio_of_lanes() -> None:
    params = {"w": torch.tensor([[3.0, 4.0], [0.6, 0.8]])}
    moved = {"w": params["w"] + torch.tensor([0.0, 0.5])}
    found = vmap(inspect.weight_update_ratio)(params, moved)
    torch.testing.assert_close(found["w"], torch.tensor([0.1, 0.5]))
