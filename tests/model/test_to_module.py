"""`Model.to_module`: the way back to an ordinary module."""

from __future__ import annotations

from typing import Any

import asserts
import pytest
import torch
from torch import nn

from fdnn import functionalize, random

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def test_is_the_module_of_before(case: Any) -> None:
    """Types, state and, in eval mode, values; nothing shared with what it was made from."""
    module = case.make(0.5)
    model = functionalize(module)
    made = model.to_module(model.params, model.buffers)
    assert [type(layer) for layer in made.modules()] == [type(layer) for layer in module.modules()]
    assert not any(layer.training for layer in made.modules())
    state, wanted = made.state_dict(), module.state_dict()
    assert list(state) == list(wanted)
    asserts.assert_equal(dict(state), dict(wanted))
    pointers = {p.data_ptr() for p in module.parameters() if p.numel()}
    pointers |= {p.data_ptr() for p in model.params.values() if p.numel()}
    assert not pointers & {p.data_ptr() for p in made.parameters() if p.numel()}
    if not case.noisy_eval:
        module.eval()
        found, expected = (m(*case.inputs, **case.kwargs) for m in (made, module))
        asserts.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_new_values_are_used() -> None:
    model = functionalize(nn.Sequential(nn.LSTM(3, 4, batch_first=True)))
    params, buffers = model.init(random.key(3))
    x = random.normal(random.key(4), (2, 5, 3))
    made = model.to_module(params, buffers)
    found, _ = made(x)
    expected = model.apply(params, buffers, x)[0][0]
    torch.testing.assert_close(found, expected)
    assert isinstance(made[0], nn.LSTM)  # type: ignore[index]
    with torch.no_grad():
        made[0].weight_ih_l0.zero_()  # type: ignore[index]
    assert not torch.equal(made(x)[0], found), "the fused kernel sees its parameters"
    assert params["0.weight_ih_l0"].any()


def test_ties_flags_and_dtypes_stay() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    net[0].bias.requires_grad_(False)
    model = functionalize(net)
    made: Any = model.to_module({n: p.bfloat16() for n, p in model.params.items()}, {})
    assert made[0].weight is made[2].weight
    assert made[0].weight.dtype == torch.bfloat16
    assert {n: p.requires_grad for n, p in made.named_parameters()} == {
        "0.weight": True,
        "0.bias": False,
        "2.bias": True,
    }
    assert made[1].inplace
    assert model.aliases == {"2.weight": "0.weight"}
    made(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
    assert made[0].weight.grad is not None


def test_what_does_not_fit() -> None:
    model = functionalize(nn.Linear(3, 2))
    stacked = {name: p.expand(5, *p.shape) for name, p in model.params.items()}
    said = (
        r"`params` must be those of one run: at path 'weight': expected shape \(2, 3\), found "
        r"\(5, 2, 3\)"
    )
    with pytest.raises(ValueError, match=said):
        model.to_module(stacked, {})
    with pytest.raises(ValueError, match=r"`params` must have the module's names: missing \['bias"):
        model.to_module({"weight": torch.ones(2, 3)}, {})
