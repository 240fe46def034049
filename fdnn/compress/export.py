"""Networks that leave Python: torch.export, a compiled package, ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fdnn.model import Model
from fdnn.types import Buffers, Params

__all__ = ["compile_package", "export", "load_package", "save_onnx"]


def export(
    model: Model,
    params: Params,
    buffers: Buffers,
    example_inputs: tuple[Any, ...],
    *,
    dynamic_batch: bool = True,
) -> torch.export.ExportedProgram:
    """Export the model in eval mode with its values frozen into it, by `torch.export`.

    `torch.export.save` writes the program to a file, which torch runs without fdnn and without the
    module's code; `compile_package` and `save_onnx` take it further.

    Args:
        model: from `functionalize`.
        params: parameters of one run.
        buffers: buffers of one run.
        example_inputs: what the model takes, as a tuple.
        dynamic_batch: whether the first dimension of the inputs may change, all together. The
            example must then have at least two rows; a single one is taken for a constant.

    Returns:
        A program; `program.module()` is callable.

    Raises:
        TypeError: `example_inputs` is no tuple.
        ValueError: with `dynamic_batch`, inputs have no rows in common or fewer than two, or the
            model works for this number only; the model is one of `train.mixed_precision`.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(4, 2))
        >>> program = export(model, model.params, {}, (torch.ones(3, 4),))
        >>> program.module()(torch.ones(1, 4)).shape
        torch.Size([1, 2])
    """
    if not isinstance(example_inputs, tuple):
        raise TypeError(f"`example_inputs` must be a tuple, got {type(example_inputs).__name__}")
    if type(model).apply is not Model.apply:
        raise ValueError(
            "`model` must be the plain one, got a model that computes in mixed precision: export "
            "the module of `cast_module`, by `torch.export.export`"
        )
    net = model.to_module(params, buffers).requires_grad_(False)
    shapes = _shapes(example_inputs) if dynamic_batch else None
    try:
        return torch.export.export(net, example_inputs, dynamic_shapes=shapes)
    except torch._dynamo.exc.UserError as error:
        if not dynamic_batch:
            raise
        raise ValueError(
            "`dynamic_batch` must be False for this model, which fixes the number of rows: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error


def compile_package(program: torch.export.ExportedProgram, path: str | Path) -> Callable[..., Any]:
    """Compile an exported program to machine code, a file that runs without Python as well.

    Args:
        program: from `export`.
        path: of the package, ending in `.pt2`. Its folder must exist.

    Returns:
        The loaded package, as `load_package` gives it.

    Raises:
        ValueError: `path` does not end in `.pt2`.
        TypeError: `program` is no exported program.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(4, 2))
        >>> program = export(model, model.params, {}, (torch.ones(3, 4),))
        >>> run = compile_package(program, "linear.pt2")  # doctest: +SKIP

    References:
        PyTorch, "AOTInductor: ahead-of-time compilation for torch.export-ed models".
    """
    _check_program(program)
    if Path(path).suffix != ".pt2":
        raise ValueError(f"`path` must end in .pt2, got {str(path)!r}")
    made = torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return load_package(made)


def load_package(path: str | Path) -> Callable[..., Any]:
    """Load what `compile_package` wrote.

    Args:
        path: of the package.

    Returns:
        A function of the model's inputs.

    Raises:
        FileNotFoundError: there is no such file.

    Example:
        >>> load_package("missing.pt2")
        Traceback (most recent call last):
        FileNotFoundError: `path` must be a package, found no file 'missing.pt2'
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"`path` must be a package, found no file {str(path)!r}")
    loaded: Callable[..., Any] = torch._inductor.aoti_load_package(str(path))
    return loaded


def save_onnx(program: torch.export.ExportedProgram, path: str | Path) -> Path:
    """Write an exported program as ONNX, for other runtimes.

    Args:
        program: from `export`. Its inputs keep their order; a dynamic batch stays one.
        path: of the file.

    Returns:
        The path.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        TypeError: `program` is no exported program.

    Example:
        >>> from torch import nn
        >>> from fdnn import functionalize
        >>> model = functionalize(nn.Linear(4, 2))
        >>> program = export(model, model.params, {}, (torch.ones(3, 4),))
        >>> save_onnx(program, "linear.onnx")  # doctest: +SKIP
        PosixPath('linear.onnx')

    References:
        PyTorch, `torch.onnx.export` with `dynamo=True`.
    """
    _check_program(program)
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise ImportError("`save_onnx` needs onnx: pip install 'fdnn-torch[onnx]'") from error
    del onnx, onnxscript
    made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None
    made.save(str(path))
    return Path(path)


def _check_program(program: Any) -> None:
    if not isinstance(program, torch.export.ExportedProgram):
        raise TypeError(f"`program` must come from `export`, got {type(program).__name__}")


def _shapes(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Say which dimension of each input is the batch."""
    rows = {len(x) for x in inputs if isinstance(x, Tensor) and x.ndim}
    if len(rows) != 1 or rows == {1} or rows == {0}:
        raise ValueError(
            "`example_inputs` must have one number of rows, at least 2, with `dynamic_batch`, got "
            f"{sorted(rows)}"
        )
    batch = torch.export.Dim("batch")
    return tuple({0: batch} if isinstance(x, Tensor) and x.ndim else None for x in inputs)
