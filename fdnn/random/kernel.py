"""Build `threefry.c` with the system's C compiler, on the first draw of a process.

Without a compiler (or on another device than the CPU) the cipher runs in torch operations
instead: the same bits, about ten times slower.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["available", "fill_words"]

_NAMES = {torch.int32: "words32", torch.int64: "words64", torch.float32: "fractions"}


def available() -> bool:
    """Tell whether the compiled cipher can be used in this process."""
    return bool(_functions())


def fill_words(keys: Tensor, start: Tensor | None, count: int, dtype: torch.dtype) -> Tensor:
    """Return `count` words of each key from counter `start` on; see `threefry.words`.

    Args:
        keys: int64 on the CPU, shape `(..., 2)`.
        start: int64 on the CPU, shape `(...)`, or None for 0.
        count: words for each key.
        dtype: int32, int64 or float32.

    Raises:
        RuntimeError: there is no compiled cipher (ask `available` first).
    """
    if not available():
        raise RuntimeError("the compiled cipher is not available: no working C compiler")
    keys = keys.contiguous()
    start = None if start is None else start.contiguous()
    words = torch.empty((*keys.shape[:-1], count), dtype=dtype)
    _functions()[dtype](
        keys.data_ptr(),
        None if start is None else start.data_ptr(),
        keys.numel() // 2,
        count,
        words.data_ptr(),
        torch.get_num_threads(),
    )
    return words


@functools.cache
def _functions() -> dict[torch.dtype, Callable[..., None]]:
    """The compiled functions by the dtype that they write; none without a working compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        return {}
    library = _build([*compiler.split(), "-fopenmp"]) or _build(compiler.split())
    if library is None:
        return {}
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    functions = {dtype: getattr(library, name) for dtype, name in _NAMES.items()}
    for function in functions.values():
        function.argtypes = [pointer, pointer, number, number, pointer, ctypes.c_int]
        function.restype = None
    return functions


def _build(compiler: list[str]) -> ctypes.CDLL | None:
    with tempfile.TemporaryDirectory() as folder, resources.as_file(_source()) as source:
        target = Path(folder) / "threefry.so"
        command = [*compiler, "-O3", "-shared", "-fPIC", "-o", str(target), str(source)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            return ctypes.CDLL(str(target))
        except (OSError, subprocess.SubprocessError):
            return None


def _source() -> resources.abc.Traversable:
    return resources.files("fdnn.random") / "threefry.c"
