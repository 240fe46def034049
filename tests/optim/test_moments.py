"""`fdnn.optim.core.moments`: values and derivatives, at the edges too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad

from fdnn.optim.core.moments import bias_correction, root


@given(beta=st.floats(0, 1, exclude_max=True), count=st.integers(0, 10_000))
def test_bias_correction(beta: float, count: int) -> None:
    found = bias_correction(torch.tensor(beta, dtype=torch.float64), torch.tensor(count))
    # 1 - beta^t loses what is below the last place of 1.
    assert found.item() == pytest.approx(1 - beta ** (count + 1), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_bias_correction_is_differentiable(beta: float, count: int) -> None:
    slope = grad(bias_correction)(torch.tensor(beta, dtype=torch.float64), torch.tensor(count))
    assert slope.item() == pytest.approx(-(count + 1) * beta**count, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_root(dtype: torch.dtype) -> None:
    moment = torch.tensor([1e-20, 0.5, 3.0], dtype=dtype)
    assert torch.equal(root(moment), moment.sqrt())
    slope = grad(lambda g: root(g * g))(torch.tensor(0.0, dtype=dtype))
    assert slope.item() == 0
    assert root(torch.zeros((), dtype=dtype)) < 1e-18
