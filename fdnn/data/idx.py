"""The idx format of the MNIST family: a header that tells type and shape, then the numbers."""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fdnn.data.cache import DataNotFound

__all__ = ["read_idx"]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_CURE = "delete the file and fetch it again (or reinstall its package), or pass another folder"


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read a file in idx format, gzipped or plain.

    The format is big-endian: two zero bytes, one byte for the type of the numbers, one for the
    number of dimensions, each dimension as 32 bits, then the numbers, last index fastest.

    Args:
        path: the file. Whether it is gzipped is told by its first bytes, not by its name.

    Returns:
        A tensor of the type and shape that the header states.

    Raises:
        DataNotFound: there is no such file.
        ValueError: the file is not idx, is damaged, or holds fewer or more numbers than its
            header says; tells the sizes, and what to do about it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "labels-idx1-ubyte")
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 9, 0, 5]))
        ...     read_idx(file)
        tensor([9, 0, 5], dtype=torch.uint8)

    References:
        LeCun, Cortes, Burges (1998). The MNIST database of handwritten digits (its file format).
    """
    path = Path(path)
    content, problem = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES:
        what = f"does not start as an idx file does: first bytes {content[:4]!r}"
        raise _damaged(path, problem or what)
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise _damaged(path, f"ends in its header: {header} bytes expected, {len(content)} found")
    shape = np.frombuffer(content, ">u4", content[3], offset=4).tolist()
    dtype = np.dtype(_DTYPES[content[2]])
    expected, found = math.prod(shape) * dtype.itemsize, len(content) - header
    if found != expected:
        what = "is truncated" if found < expected else "is too long"
        raise _damaged(
            path,
            f"{what}: shape {tuple(shape)} means {expected} bytes after the header, found {found}",
        )
    if problem:
        raise _damaged(path, problem)
    numbers = np.frombuffer(content, dtype, offset=header).astype(dtype.newbyteorder("="))
    return torch.from_numpy(numbers).reshape(shape)


def _content(path: Path) -> tuple[bytes, str]:
    """All bytes of the file, unpacked as far as they go, and what went wrong on the way."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataNotFound(f"{path}: no such file; pass the path of an idx file") from None
    if not raw.startswith(_GZIP):
        return raw, ""
    try:
        return gzip.decompress(raw), ""
    except EOFError:
        problem = f"is a gzip file cut short after {len(raw)} bytes"
        with contextlib.suppress(zlib.error):
            return zlib.decompressobj(wbits=31).decompress(raw), problem
        return b"", problem
    except (OSError, zlib.error) as err:
        raise _damaged(path, f"is a damaged gzip file of {len(raw)} bytes ({err})") from err


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} {what}. {_CURE.capitalize()}.")
