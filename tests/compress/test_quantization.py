"""int8 modules of torchao: close to the model, and equal to its fake-quantized twin."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from torch import nn

from fdnn import compress, functionalize, random

pytest.importorskip("torchao")

MODEL = functionalize(
    nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
)
PARAMS, BUFFERS = MODEL.init(random.key(0))
X = random.normal(random.key(1), (64, 20))
WANTED = MODEL.apply(PARAMS, BUFFERS, X)[0]
SCHEMES = ["int8_dynamic", "int8_weight_only", "int8_static", "int8_static asymmetric"]


def options(name: str) -> dict[str, Any]:
    scheme, _, kind = name.partition(" ")
    if scheme != "int8_static":
        return {"scheme": scheme}
    observer = compress.min_max_observer(symmetric=kind != "asymmetric")
    found = compress.calibrate(MODEL, PARAMS, BUFFERS, [X[:32], X[32:]], observer)
    return {"scheme": scheme, "calibration": found}


@pytest.mark.parametrize("name", SCHEMES)
def test_is_what_was_trained_for(name: str) -> None:
    given = options(name)
    module = compress.quantize(MODEL, PARAMS, BUFFERS, **given)
    twin = compress.quantization_aware(MODEL, **given)
    found, expected = module(X), twin.apply(PARAMS, BUFFERS, X)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    difference = (found - WANTED).abs().max()
    assert 0 < difference < 0.02 * WANTED.abs().max()
    torch.testing.assert_close(module(X[:1]), found[:1], rtol=1e-5, atol=1e-5)


def test_rows_in_three_dimensions() -> None:
    model, x = functionalize(nn.Linear(6, 5)), random.normal(random.key(2), (2, 3, 6))
    found = compress.calibrate(model, model.params, {}, [x])
    module = compress.quantize(model, model.params, {}, "int8_static", calibration=found)
    expected = compress.quantization_aware(model, "int8_static", calibration=found).apply(
        model.params, {}, x
    )[0]
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-6)


def test_size_and_the_chosen_layers() -> None:
    dense = compress.size_in_bytes(MODEL.to_module(PARAMS, BUFFERS))
    whole = compress.size_in_bytes(compress.quantize(MODEL, PARAMS, BUFFERS))
    first = compress.size_in_bytes(compress.quantize(MODEL, PARAMS, BUFFERS, where="0"))
    # an int8 weight instead of a float32 one, a float32 scale and an int8 zero for each output
    assert dense - whole == 3 * (20 * 32 + 32 * 4) - 5 * (32 + 4)
    assert dense - first == 3 * 20 * 32 - 5 * 32
    assert PARAMS["0.weight"].dtype == torch.float32


def test_global_settings_of_the_compiler_stay() -> None:
    from torch._inductor import config

    before = config.save_config_portable()
    compress.quantize(MODEL, PARAMS, BUFFERS)
    assert config.save_config_portable() == before


def test_missing_layer_is_named() -> None:
    found = options("int8_static")["calibration"]
    del found["3"]
    with pytest.raises(ValueError, match=r"`calibration` must name the layers \['3'\]"):
        compress.quantize(MODEL, PARAMS, BUFFERS, "int8_static", calibration=found)


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("torchao"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"fdnn-torch\[quantize\]"):
        compress.quantize(MODEL, PARAMS, BUFFERS)
