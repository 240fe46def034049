"""Parameters in fewer bits, and modules that compute in one dtype."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fdnn import compress, functionalize, random, train, tree

MODEL = functionalize(
    nn.Sequential(
        nn.Linear(5, 16), nn.BatchNorm1d(16), nn.LayerNorm(16), nn.SiLU(), nn.Linear(16, 3)
    )
)
X = random.normal(random.key(1), (64, 5))
WANTED = MODEL.apply(MODEL.params, MODEL.buffers, X)[0]


def test_cast_takes_matrices_only() -> None:
    found = compress.cast(MODEL.params, torch.bfloat16)
    dtypes = {name: value.dtype for name, value in found.items()}
    narrow = [name for name, dtype in dtypes.items() if dtype == torch.bfloat16]
    assert narrow == ["0.weight", "4.weight"]
    whole = compress.cast(MODEL.params, torch.float64, where="*")
    assert {x.dtype for x in tree.leaves(whole)} == {torch.float64}
    assert compress.cast(MODEL.params, torch.bfloat16, where="0.bias")["0.bias"].dtype != (
        torch.float32
    )


def test_mixed_precision_gives_the_same_on_narrow_weights() -> None:
    """Its products convert the weights anyway."""
    mixed = train.mixed_precision(MODEL)
    wide = mixed.apply(MODEL.params, MODEL.buffers, X)[0]
    narrow = mixed.apply(compress.cast(MODEL.params, torch.bfloat16), MODEL.buffers, X)[0]
    assert torch.equal(wide, narrow)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01), (torch.float64, 1e-5)]
)
def test_module_in_one_dtype(dtype: torch.dtype, tolerance: float) -> None:
    module = compress.cast_module(MODEL, MODEL.params, MODEL.buffers, dtype)
    found = module(X)
    assert found.dtype == torch.float32 and not found.requires_grad and not module.training
    torch.testing.assert_close(found, WANTED, rtol=tolerance, atol=tolerance)
    floats = [x for x in module.state_dict().values() if x.is_floating_point()]
    assert {x.dtype for x in floats} == {dtype}
    assert MODEL.params["0.weight"].dtype == torch.float32


def test_errors() -> None:
    with pytest.raises(TypeError, match=r"`dtype` must be a floating-point dtype, got torch\.int8"):
        compress.cast(MODEL.params, torch.int8)
    with pytest.raises(TypeError, match="`dtype` must be"):
        compress.cast_module(MODEL, MODEL.params, MODEL.buffers, torch.int8)
