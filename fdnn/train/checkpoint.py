"""`save` and `load`: any tree of tensors as one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from fdnn import tree
from fdnn.train.checkpoint_file import (
    Entry,
    by_path,
    manifest_of,
    opened,
    snapshot,
    verified,
    write,
)
from fdnn.types import Tree

__all__ = ["load", "save"]


def save(path: str | os.PathLike[str], state: Tree) -> None:
    """Save a tree of tensors, such as a `TrainState`, solo or stacked, to a file.

    The file is a safetensors file: tensors under their paths in the tree, and in its metadata a
    manifest with the version of the format, dtypes, shapes and checksums. No pickle. It is written
    aside, forced to the disk and then renamed: whenever the process is killed, `path` holds the
    old checkpoint or the new one, whole. One process at a time may save to a path.

    Args:
        path: the file; one that exists is replaced. Its folder must exist.
        state: any tree of tensors; not changed. Of tensors that share memory each is stored whole.

    Raises:
        TypeError: a leaf is no dense tensor, or of a dtype that safetensors lacks.
        ValueError: two leaves have the same path, or one has the path `__metadata__`.
        RuntimeError: called inside `vmap`, `grad` or a compiled function.
        OSError: the file cannot be written (the disk is full); what was there before is as it was.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "state.safetensors")
        >>> state = {"w": torch.ones(2), "count": torch.tensor(7)}
        >>> save(path, state)
        >>> load(path, like=state)
        {'w': tensor([1., 1.]), 'count': tensor(7)}
    """
    write(Path(path), snapshot(state))


def load(path: str | os.PathLike[str], like: Tree | None = None) -> Tree:
    """Load what `save` saved, and check every tensor against its checksum.

    Only paths, shapes and dtypes must be those of `like`, so a checkpoint can be read after a
    container changed its type, from a list to a tuple or to a named tuple with other methods.

    Args:
        path: the file.
        like: a tree with the structure wanted, for example `train.init(model, tx, key)`. Each
            tensor is put on the device of its counterpart (on the CPU, if that is on the meta
            device). Without it, a flat dict from path to tensor is returned, on the CPU.

    Returns:
        A tree with the containers of `like`, and new tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: safetensors is not installed.
        ValueError: the file is damaged, truncated, none of fdnn's, of another version of the
            format, or its tensors are not those of `like`. The message names the file, the path in
            the tree, what was expected and what was found.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "state.safetensors")
        >>> save(path, {"layers": [torch.ones(2), torch.zeros(())]})
        >>> load(path)
        {'layers.0': tensor([1., 1.]), 'layers.1': tensor(0.)}
        >>> load(path, like={"layers": (torch.empty(2), torch.empty(()))})
        {'layers': (tensor([1., 1.]), tensor(0.))}
    """
    path = Path(path)
    with opened(path) as file:
        entries = manifest_of(path, file).entries
        wanted = dict.fromkeys(entries) if like is None else by_path(like)
        if like is not None:
            _compare(path, wanted, entries)
        loaded = {
            name: verified(path, file, name, entry).to(_device(wanted[name]), copy=True)
            for name, entry in entries.items()
        }
    return loaded if like is None else tree.map_with_path(lambda name, _: loaded[name], like)


def _compare(path: Path, wanted: dict[str, Any], entries: dict[str, Entry]) -> None:
    """Raise at the first difference between a tree and a checkpoint."""
    for name in [*wanted, *entries]:
        expected = _spec(wanted[name]) if name in wanted else "nothing"
        found = str(entries.get(name, "nothing"))
        if expected != found:
            raise ValueError(
                f"{str(path)!r} does not fit `like` at path {name!r}: expected {expected}, "
                f"found {found}"
            )


def _spec(leaf: Any) -> str:
    if not isinstance(leaf, torch.Tensor):
        return f"a {type(leaf).__name__}"
    return f"{str(leaf.dtype).removeprefix('torch.')} of shape {tuple(leaf.shape)}"


def _device(leaf: Any) -> torch.device:
    """Where a loaded tensor goes."""
    return torch.device("cpu") if leaf is None or leaf.is_meta else leaf.device
