"""The file of a checkpoint: safetensors, with a manifest in its metadata; written aside, renamed.

The manifest is JSON: the version of the format, and dtype, shape and sha256 of each tensor by its
path in the tree. A tensor is stored under its path; a complex one as pairs of real numbers.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import secrets
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fdnn import tree
from fdnn.optim.core.branch import can_see
from fdnn.types import Tree

__all__ = ["Entry", "Manifest", "by_path", "manifest_of", "opened", "snapshot", "verified", "write"]

FORMAT = 1
_CODES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
}
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class Entry(NamedTuple):
    """What the manifest says of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.shape}"


class Manifest(NamedTuple):
    """What a checkpoint says of itself."""

    entries: dict[str, Entry]
    metric: float | None


def by_path(state: Tree) -> dict[str, Any]:
    """The leaves of a tree by path."""
    paths = tree.paths(state)
    for path, count in Counter(paths).items():
        if count > 1 or path == "__metadata__":
            why = (
                f"{count} leaves have this path" if count > 1 else "safetensors reserves this name"
            )
            raise ValueError(f"at path {path!r}: {why}; rename a key")
    return dict(zip(paths, tree.leaves(state), strict=True))


def snapshot(state: Tree) -> dict[str, Tensor]:
    """Copy the leaves of a tree to the CPU, each contiguous and in memory of its own."""
    if not can_see():
        raise RuntimeError(
            "a checkpoint cannot be saved inside vmap, grad or a compiled function, where tensors "
            "have no values; save what the function returns"
        )
    return {path: _copied(path, leaf) for path, leaf in by_path(state).items()}


def _copied(path: str, leaf: Any) -> Tensor:
    if not isinstance(leaf, Tensor):
        found = f"a {type(leaf).__name__}, {leaf!r}"
        raise TypeError(f"at path {path!r}: expected a tensor, found {found}; use torch.tensor")
    dense = leaf.layout == torch.strided and not leaf.is_meta
    if not dense or _REAL.get(leaf.dtype, leaf.dtype) not in _CODES:
        found = f"{_name(leaf.dtype)} of layout {leaf.layout} on device {leaf.device}"
        raise TypeError(
            f"at path {path!r}: expected a dense tensor of a dtype of safetensors, found {found}"
        )
    copy = torch.empty(leaf.shape, dtype=leaf.dtype, device="cpu")
    return copy.copy_(leaf.detach())


def write(path: Path, tensors: dict[str, Tensor], metric: float | None = None) -> None:
    """Write tensors, as `snapshot` returns them, so that `path` holds the old file or the new."""
    real = {name: _as_real(tensor) for name, tensor in tensors.items()}
    data = {name: _bytes(tensor) for name, tensor in real.items()}
    entries = {
        name: Entry(_name(tensor.dtype), tuple(tensor.shape), _sha256(data[name]))._asdict()
        for name, tensor in tensors.items()
    }
    manifest = json.dumps({"format": FORMAT, "metric": metric, "tensors": entries})
    header: dict[str, Any] = {
        "__metadata__": {"fdnn": manifest, "sha256": _sha256(manifest.encode())}
    }
    end, order = 0, sorted(real, key=lambda name: -real[name].itemsize)  # each aligned
    for name in order:
        begin, end = end, end + len(data[name])
        code, shape = _CODES[real[name].dtype], list(real[name].shape)
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    _replace(path, [len(text).to_bytes(8, "little"), text, *(data[name] for name in order)])


def _replace(path: Path, parts: list[bytes | memoryview]) -> None:
    """Put a file in the place of another by one rename, after it is on the disk."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(aside, "xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        said = f"{error.strerror}; nothing was written, what was there before is as it was"
        raise OSError(error.errno, said, str(path)) from error
    finally:
        aside.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # of killed processes
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file for reading; errors of the library name the file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(
            "reading checkpoints needs safetensors: pip install 'fdnn-torch[checkpoints]'"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path))
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            yield file
    except SafetensorError as error:
        zipped = "it looks like one of torch.save: torch.load(path, weights_only=True) reads it"
        why = zipped if zipfile.is_zipfile(path) else f"safetensors said: {error}"
        raise ValueError(f"{str(path)!r} is no safetensors file, or damaged; {why}") from error


def manifest_of(path: Path, file: Any) -> Manifest:
    """Read the manifest of an opened file, and check that it is whole and its tensors are there."""
    metadata = file.metadata() or {}
    if "fdnn" not in metadata:
        raise ValueError(
            f"{str(path)!r} is a safetensors file, but no checkpoint of fdnn: expected 'fdnn' in "
            f"its metadata, found {sorted(metadata)}; `load_params` reads parameters from it"
        )
    text = metadata["fdnn"]
    _check_sum(f"{str(path)!r} is damaged in its manifest", metadata.get("sha256"), text.encode())
    manifest = json.loads(text)
    if manifest["format"] != FORMAT:
        raise ValueError(
            f"{str(path)!r} has another version of the format: expected {FORMAT}, found "
            f"{manifest['format']}; load it with the fdnn that saved it"
        )
    entries = {
        name: Entry(entry["dtype"], tuple(entry["shape"]), entry["sha256"])
        for name, entry in manifest["tensors"].items()
    }
    stored = set(file.keys())
    for name in [*entries, *stored]:
        if name not in entries or name not in stored:
            found = "nothing" if name in entries else "a tensor"
            wanted = entries.get(name, "nothing")
            raise ValueError(f"{_damaged(path, name)}: expected {wanted}, found {found}")
    return Manifest(entries, manifest["metric"])


def verified(path: Path, file: Any, name: str, entry: Entry) -> Tensor:
    """Read a tensor, which lies in the mapped file, and check it against the manifest."""
    tensor: Tensor = file.get_tensor(name)
    dtype = getattr(torch, entry.dtype)
    pair = (2,) if dtype in _REAL else ()
    if (tensor.dtype, tuple(tensor.shape)) != (_REAL.get(dtype, dtype), entry.shape + pair):
        found = f"{_name(tensor.dtype)} of shape {tuple(tensor.shape)}"
        raise ValueError(f"{_damaged(path, name)}: expected {entry}, found {found}")
    _check_sum(_damaged(path, name), entry.sha256, _bytes(tensor))
    return torch.view_as_complex(tensor) if pair else tensor


def _damaged(path: Path, name: str) -> str:
    return f"{str(path)!r} is damaged at path {name!r}"


def _check_sum(place: str, expected: str | None, data: bytes | memoryview) -> None:
    found = _sha256(data)
    if found != expected:
        raise ValueError(f"{place}: expected sha256 {expected}, found {found}")


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
