"""Exported programs give the model's outputs, for any number of rows; ONNX too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdnn import compress, functionalize, random, train, transfer

MODEL = functionalize(
    nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.GELU(), nn.Linear(8, 3))
)
PARAMS, BUFFERS = MODEL.init(random.key(0))
X = random.normal(random.key(1), (7, 6))
WANTED = MODEL.apply(PARAMS, BUFFERS, X)[0]


def exported() -> torch.export.ExportedProgram:
    return compress.export(MODEL, PARAMS, BUFFERS, (X[:4],))


def test_program_takes_any_number_of_rows(tmp_path: Path) -> None:
    program = exported()
    torch.export.save(program, tmp_path / "net.pt2")
    for each in (program, torch.export.load(tmp_path / "net.pt2")):
        for rows in (1, 4, 7):
            found = each.module()(X[:rows])
            torch.testing.assert_close(found, WANTED[:rows], rtol=1e-6, atol=1e-6)


def test_adapters_and_several_inputs() -> None:
    adapted = transfer.lora(MODEL, 2, 4.0)
    params, buffers = adapted.init(random.key(2))
    program = compress.export(adapted, params, buffers, (X,))
    expected = adapted.apply(params, buffers, X)[0]
    torch.testing.assert_close(program.module()(X), expected, rtol=1e-6, atol=1e-6)

    two = functionalize(nn.Bilinear(6, 6, 2))
    program = compress.export(two, two.params, {}, (X, X + 1))
    expected = two.apply(two.params, {}, X[:2], X[:2] + 1)[0]
    torch.testing.assert_close(program.module()(X[:2], X[:2] + 1), expected)


class FixedRows(nn.Module):
    """Works for four rows only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(4, -1) * 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: compress.export(MODEL, PARAMS, BUFFERS, X),  # type: ignore[arg-type]
            TypeError,
            "`example_inputs` must be a tuple, got Tensor",
        ),
        (
            lambda: compress.export(MODEL, PARAMS, BUFFERS, (X[:1],)),
            ValueError,
            r"at least 2, with `dynamic_batch`, got \[1\]",
        ),
        (
            lambda: compress.export(functionalize(nn.Bilinear(6, 6, 2)), {}, {}, (X, X[:2])),
            ValueError,
            "`params` must have the module's names",
        ),
        (
            lambda: compress.export(train.mixed_precision(MODEL), PARAMS, BUFFERS, (X,)),
            ValueError,
            "`model` must be the plain one",
        ),
        (
            lambda: compress.save_onnx(MODEL, "x.onnx"),  # type: ignore[arg-type]
            TypeError,
            "`program` must come from `export`, got Model",
        ),
        (lambda: compress.compile_package(exported(), "net.so"), ValueError, "must end in .pt2"),
        (lambda: compress.load_package("no.pt2"), FileNotFoundError, "found no file 'no.pt2'"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_fixed_number_of_rows_is_said() -> None:
    model = functionalize(FixedRows())
    with pytest.raises(ValueError, match="`dynamic_batch` must be False for this model"):
        compress.export(model, {}, {}, (X[:4, :3],))
    program = compress.export(model, {}, {}, (X[:4],), dynamic_batch=False)
    assert torch.equal(program.module()(X[:4]), X[:4] * 2)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_onnx_runs_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    path = compress.save_onnx(exported(), tmp_path / "net.onnx")
    session = runtime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    for rows in (1, 7):
        (found,) = session.run(None, {name: X[:rows].numpy()})
        torch.testing.assert_close(torch.tensor(found), WANTED[:rows], rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.skipif("FDNN_AOT" not in os.environ, reason="compiles for minutes: set FDNN_AOT=1")
def test_package_of_machine_code(tmp_path: Path) -> None:
    run = compress.compile_package(exported(), tmp_path / "net.pt2")
    for rows in (1, 7):
        torch.testing.assert_close(run(X[:rows]), WANTED[:rows], rtol=1e-6, atol=1e-6)
