"""Files from elsewhere: where they are kept, and how they get there whole or not at all."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["DataNotFound", "cache_folder", "data_folders", "find", "scikit_learn", "write_whole"]


class DataNotFound(FileNotFoundError):
    """A data set is neither on this machine nor to be had from the network.

    Example:
        >>> from fdnn import data
        >>> try:
        ...     splits = data.fashion_mnist("/no/such/folder")
        ... except data.DataNotFound:
        ...     splits = data.digits()
        >>> splits.train.inputs.shape
        torch.Size([1077, 8, 8])
    """


def cache_folder(name: str) -> Path:
    """Return fdnn's own folder for a data set: `$XDG_CACHE_HOME/fdnn/name`, or under `~/.cache`.

    Args:
        name: the data set, as a folder name.

    Returns:
        The path; the folder need not exist yet. A relative `$XDG_CACHE_HOME` is ignored, as the
        XDG specification asks.

    Example:
        >>> cache_folder("fashion-mnist").parts[-2:]
        ('fdnn', 'fashion-mnist')
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (root if root.is_absolute() else Path.home() / ".cache") / "fdnn" / name


def data_folders(name: str) -> list[Path]:
    """Return the folders that `$FDNN_DATA` stands for: itself, then its subfolder `name`.

    Args:
        name: the data set, as a folder name.

    Returns:
        Two paths, or none where the variable is unset or empty.

    Example:
        >>> [folder.name for folder in data_folders("fashion-mnist")][1:] in ([], ["fashion-mnist"])
        True
    """
    value = os.environ.get("FDNN_DATA")
    return [Path(value).expanduser(), Path(value).expanduser() / name] if value else []


def find(
    title: str,
    places: Sequence[Path],
    lacks: Callable[[Path], str],
    cure: str,
    fetch: Callable[[Path], None] | None = None,
) -> Path:
    """Return the first folder that lacks nothing, fetching into the last one if need be.

    Args:
        title: the data set, for the error.
        places: folders to look in, in this order.
        lacks: tells which files an existing folder lacks; `""` when it has them all.
        cure: what a user can do about it, for the error.
        fetch: fills a folder from the network; none to look on this machine only.

    Returns:
        A folder that has the files.

    Raises:
        DataNotFound: no place has them, and fetching failed in whatever way; lists every place.

    Example:
        >>> find("Nothing", [Path("/")], lambda folder: "", "none needed").parts
        ('/',)
    """
    report = [f"{title} was not found. Looked in"]
    for place in places:
        missing = lacks(place) if place.is_dir() else "no such folder"
        if not missing:
            return place
        report.append(f"  {place}: {missing}")
    cause = None
    if fetch is not None:
        try:
            fetch(places[-1])
            return places[-1]
        except Exception as err:  # whatever the network does, the answer is the same
            report.append(f"  download into {places[-1]}: {type(err).__name__}: {err}")
            cause = err
    raise DataNotFound("\n".join([*report, f"Cure: {cure}."])) from cause


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half written, whatever interrupts.

    Args:
        path: where to; its folder is made if need be, and a file already there is replaced.
        content: all of the bytes.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder, "new", "file"), b"all of it")
        ...     [file.name for file in Path(folder, "new").iterdir()]
        ['file']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def scikit_learn(module: str) -> Any:
    """Import a module of scikit-learn, which fdnn can do without.

    Args:
        module: its name below `sklearn`.

    Returns:
        The module.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed; says how to install it.

    Example:
        >>> scikit_learn("datasets").__name__
        'sklearn.datasets'
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as err:
        if err.name is None or err.name.partition(".")[0] != "sklearn":
            raise
        raise ModuleNotFoundError(
            "this data set needs scikit-learn: pip install 'fdnn-torch[examples]'", name=err.name
        ) from err
