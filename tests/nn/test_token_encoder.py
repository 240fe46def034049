"""`nn.TokenEncoder`: against torch's layers by hand, padding, its draws, its errors, lanes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from asserts import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import grad, vmap

from fdnn import functionalize, random, tree
from fdnn.nn import TokenEncoder

GATE = 5.0  # standard errors


def encoder(**options: Any) -> TokenEncoder:
    given = {"max_length": 9, "padding_idx": 0, "dropout": 0.0, "dtype": torch.float64, **options}
    return TokenEncoder(30, 8, 2, 2, **given)


TOKENS = torch.tensor([[4, 9, 2, 7, 1, 3], [5, 6, 29, 0, 0, 0]])


def test_it_is_torchs_layers() -> None:
    module = encoder()
    stack = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(
            8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
        ),
        2,
        nn.LayerNorm(8, dtype=torch.float64),
        enable_nested_tensor=False,
    )
    named = {name: value for name, value in module.state_dict().items() if "layers" in name}
    stack.load_state_dict(
        {**named, "norm.weight": module.norm.weight, "norm.bias": module.norm.bias}
    )
    inputs = module.token(TOKENS) + module.position(torch.arange(6))
    expected = stack(inputs, src_key_padding_mask=TOKENS == 0)
    kept = TOKENS != 0
    torch.testing.assert_close(module(TOKENS)[kept], expected[kept], rtol=1e-12, atol=1e-12)


@given(padding=st.integers(0, 5))
@settings(max_examples=6)
def test_padding_changes_nothing(padding: int) -> None:
    module = encoder()
    model = functionalize(module)
    params, buffers = model.init(random.key(padding))
    short = TOKENS[:1, :4]
    padded = torch.cat([short, torch.zeros(1, padding, dtype=torch.int64)], 1)
    alone, among = (model.apply(params, buffers, tokens)[0] for tokens in (short, padded))
    torch.testing.assert_close(among[:, :4], alone, rtol=1e-9, atol=1e-12)


def test_nothing_but_padding_is_finite() -> None:
    model = functionalize(encoder())
    nothing = torch.zeros(2, 5, dtype=torch.int64)
    for mode in (False, True):
        output = model.apply(model.params, {}, nothing, train=mode)[0]
        assert output.isfinite().all()
    grads = grad(lambda p: model.apply(p, {}, nothing, train=True)[0].square().sum())(model.params)
    assert all(leaf.isfinite().all() for leaf in tree.leaves(grads))


def test_order_matters() -> None:
    module = encoder()
    swapped = module(TOKENS.flip(1)[:1]).flip(1)
    assert (swapped - module(TOKENS[:1])).abs().max() > 1e-3


def test_embeddings_are_drawn_small() -> None:
    module = TokenEncoder(500, 32, 2, 1, max_length=200)
    params, _ = functionalize(module).init(random.key(0))
    for name in ("token.weight", "position.weight"):
        for weight in (params[name], module.get_parameter(name).detach()):
            error = 0.02 / math.sqrt(2 * weight.numel())
            assert abs(weight.std().item() - 0.02) < GATE * error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "`max_length` must be positive, got 0"),
        ({"dim_feedforward": -1}, "`dim_feedforward` must be positive, got -1"),
        ({"dropout": 1.5}, r"`dropout` must be in \[0, 1\], got 1.5"),
        ({"padding_idx": 30}, r"`padding_idx` must be in \[0, 30\), got 30"),
    ],
    ids=str,
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(**options)


def test_more_errors() -> None:
    with pytest.raises(ValueError, match="`nhead` must divide `d_model`, 8, got 3"):
        TokenEncoder(30, 8, 3, 2, max_length=9)
    with pytest.raises(ValueError, match="`tokens` must be at most 9 long, got 10"):
        encoder()(torch.ones(1, 10, dtype=torch.int64))


@pytest.mark.parametrize(("dropout", "mode"), [(0.0, True), (0.4, False), (0.4, True)])
def test_lanes_are_solo_runs(dropout: float, mode: bool) -> None:
    model = functionalize(encoder(dropout=dropout))
    keys = random.split(random.key(0), 3)
    params, _ = vmap(model.init)(keys)

    def loss(params: Any, key: Tensor) -> Tensor:
        return model.apply(params, {}, TOKENS, key=key, train=mode)[0].square().mean()

    solo = tree.stack([grad(loss)(p, k) for p, k in zip(tree.unstack(params), keys, strict=True)])
    assert_close(vmap(grad(loss))(params, keys), solo, rtol=1e-9, atol=1e-12)
    if dropout:
        return  # compiled by the contract of `pretrain.masked_tokens`
    torch._dynamo.reset()
    traced = torch.compile(vmap(grad(loss)), fullgraph=True, dynamic=False, backend="aot_eager")
    assert_close(traced(params, keys), solo, rtol=1e-9, atol=1e-12)
