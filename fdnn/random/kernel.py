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
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["available", "fill_words"]

_FUNCTIONS = {torch.int32: "words32", torch.int64: "words64", torch.float32: "fractions"}


def available() -> bool:
    """Tell whether the compiled cipher can be used in this process."""
    return _library() is not None


def fill_words(keys: Tensor, start: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Return `count` words of each key from counter `start` on; see `threefry.words`.

    Args:
        keys: int64 on the CPU, shape `(..., 2)`.
        start: int64 on the CPU, shape `(...)`.
        count: words for each key.
        dtype: int32, int64 or float32.

    Raises:
        RuntimeError: there is no compiled cipher (ask `available` first).
    """
    library = _library()
    if library is None:
        raise RuntimeError("the compiled cipher is not available: no working C compiler")
    keys, start = keys.contiguous(), start.contiguous()
    words = torch.empty((*start.shape, count), dtype=dtype)
    function = getattr(library, _FUNCTIONS[dtype])
    function(keys.data_ptr(), start.data_ptr(), start.numel(), count, words.data_ptr())
    return words


@functools.cache
def _library() -> ctypes.CDLL | None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        return None
    with tempfile.TemporaryDirectory() as folder, resources.as_file(_source()) as source:
        target = Path(folder) / "threefry.so"
        command = [*compiler.split(), "-O3", "-shared", "-fPIC", "-o", str(target), str(source)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            library = ctypes.CDLL(str(target))
        except (OSError, subprocess.SubprocessError):
            return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for name in _FUNCTIONS.values():
        function = getattr(library, name)
        function.argtypes = [pointer, pointer, number, number, pointer]
        function.restype = None
    return library


def _source() -> resources.abc.Traversable:
    return resources.files("fdnn.random") / "threefry.c"
