"""Images: Fashion-MNIST, looked for on this machine before it is fetched, and sklearn's digits."""

from __future__ import annotations

import gzip
import importlib.util
import os
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fdnn.data.cache import cache_folder, data_folders, find, scikit_learn, write_whole
from fdnn.data.idx import read_idx
from fdnn.data.splits import Batch, Splits

__all__ = ["FASHION_MNIST_CLASSES", "digits", "fashion_mnist"]

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""What the labels 0 to 9 of Fashion-MNIST mean."""

_NAME = "fashion-mnist"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_SIZES = {"train": 60_000, "t10k": 10_000}
_VALID = 5_000
_IMAGES, _LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
_CURE = (
    "`apt install dataset-fashion-mnist`; or set FDNN_DATA to a folder that holds the four files; "
    "or call again with a network and scikit-learn (pip install 'fdnn-torch[examples]')"
)
_CURE_FOLDER = "pass the folder that holds all four files, or none to look in the usual places"
_FILES = [kind.format(part) for part in _SIZES for kind in (_IMAGES, _LABELS)]


def fashion_mnist(folder: str | os.PathLike[str] | None = None, *, download: bool = True) -> Splits:
    """Load Fashion-MNIST: 70 000 grey images of clothes in ten classes.

    Without `folder`, the four files (gzipped or not) are looked for in `$FDNN_DATA` and its
    subfolder `fashion-mnist`, where Debian's package `dataset-fashion-mnist` puts them, and in
    fdnn's cache (`$XDG_CACHE_HOME` or `~/.cache`, then `fdnn/fashion-mnist`). Failing that,
    scikit-learn downloads them from OpenML into that cache.

    Args:
        folder: where the four files are; then nowhere else is looked.
        download: whether the network may be asked.

    Returns:
        Splits by position: the first 55 000 of the training file, its last 5 000, and the
        10 000 of the test file. Inputs are float32 of shape `(n, 28, 28)`, grey levels divided
        by 255 and so in [0, 1]; targets are int64 of shape `(n,)`, indices into
        `FASHION_MNIST_CLASSES`.

    Raises:
        DataNotFound: no place has all four files; tells what each place lacks and the cures.
        ValueError: a file is damaged, or does not hold Fashion-MNIST.

    Example:
        >>> from fdnn import data
        >>> splits = data.fashion_mnist()  # doctest: +SKIP
        >>> splits.train.inputs.shape  # doctest: +SKIP
        torch.Size([55000, 28, 28])
        >>> data.FASHION_MNIST_CLASSES[splits.train.targets[0]]  # doctest: +SKIP
        'Ankle boot'

    References:
        Xiao, Rasul, Vollgraf (2017). Fashion-MNIST: a novel image dataset for benchmarking
        machine learning algorithms. The paper leaves validation open; here it is the end of the
        training file.
    """
    if folder is not None:
        home = find("Fashion-MNIST", [Path(folder)], _lacks, _CURE_FOLDER)
    else:
        places = [*data_folders(_NAME), _DEBIAN, cache_folder(_NAME)]
        home = find("Fashion-MNIST", places, _lacks, _CURE, _download if download else None)
    images, labels = _read(home, "train")
    test = _read(home, "t10k")
    cut = len(labels) - _VALID
    return Splits(
        Batch(_scaled(images[:cut], 255), labels[:cut].clone()),
        Batch(_scaled(images[cut:], 255), labels[cut:].clone()),
        Batch(_scaled(test[0], 255), test[1]),
    )


def digits() -> Splits:
    """Load scikit-learn's digits: 1797 handwritten digits of 8 x 8 pixels, no network needed.

    Returns:
        Splits of 1077, 360 and 360 images, the classes in equal proportions in each: scikit-learn's
        `train_test_split`, stratified, with `random_state=42`, takes 360 for the test and then
        360 of the rest for validation. Inputs are float32 of shape `(n, 8, 8)`, grey levels
        divided by 16 and so in [0, 1]; targets are int64 of shape `(n,)`, the digits themselves.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> from fdnn import data
        >>> [len(split.targets) for split in data.digits()]
        [1077, 360, 360]

    References:
        Alpaydin, Kaynak (1998). Optical recognition of handwritten digits. UCI Machine Learning
        Repository (its test set, which is what scikit-learn ships).
    """
    cut = scikit_learn("model_selection").train_test_split
    bunch = scikit_learn("datasets").load_digits()
    x, y = bunch.images, bunch.target
    x, x_test, y, y_test = cut(x, y, test_size=360, random_state=42, stratify=y)
    x, x_valid, y, y_valid = cut(x, y, test_size=360, random_state=42, stratify=y)
    return Splits(
        *(
            Batch(_scaled(torch.from_numpy(inputs), 16), torch.from_numpy(targets).long())
            for inputs, targets in ((x, y), (x_valid, y_valid), (x_test, y_test))
        )
    )


def _scaled(images: Tensor, white: int) -> Tensor:
    return images.to(torch.float32).div_(white)


def _path(folder: Path, name: str) -> Path | None:
    """Where in `folder` the file is, plain or gzipped."""
    both = (folder / name, folder / f"{name}.gz")
    return next((path for path in both if path.is_file()), None)


def _lacks(folder: Path) -> str:
    missing = [name for name in _FILES if _path(folder, name) is None]
    return "lacks " + ", ".join(f"{name}[.gz]" for name in missing) if missing else ""


def _read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images and labels of one half, seen to be what they should."""
    count = _SIZES[part]
    found = []
    for kind, shape in ((_IMAGES, (count, 28, 28)), (_LABELS, (count,))):
        path = _path(folder, kind.format(part)) or folder / f"{kind.format(part)}.gz"
        values = read_idx(path)
        if values.dtype != torch.uint8 or values.shape != shape:
            raise ValueError(
                f"{path} is not of Fashion-MNIST: expected uint8 of shape {shape}, found "
                f"{values.dtype} of shape {tuple(values.shape)}. Delete it, or pass another folder."
            )
        found.append(values)
    images, labels = found
    if labels.max() >= len(FASHION_MNIST_CLASSES):
        raise ValueError(
            f"{path} is not of Fashion-MNIST: labels must be 0 to 9, found {labels.max().item()}"
        )
    return images, labels.long()


def _download(folder: Path) -> None:
    """Fetch both halves from OpenML; write nothing before all of it has been checked."""
    parser = "liac-arff" if importlib.util.find_spec("pandas") is None else "pandas"
    pixels, classes = scikit_learn("datasets").fetch_openml(
        "Fashion-MNIST", version=1, as_frame=False, return_X_y=True, cache=False, parser=parser
    )
    images = np.asarray(pixels).astype(np.uint8)
    labels = np.asarray(classes).astype(np.uint8)
    rows = sum(_SIZES.values())
    if images.shape != (rows, 784) or labels.shape != (rows,) or not (images == pixels).all():
        raise ValueError(f"expected {rows} rows of 784 grey levels, found shape {images.shape}")
    start = 0
    for part, count in _SIZES.items():
        half = slice(start, start + count)
        if (np.bincount(labels[half], minlength=10) != count // 10).any():
            raise ValueError(f"expected {count // 10} images of each class in rows {half}")
        for kind, values in (
            (_IMAGES, images[half].reshape(count, 28, 28)),
            (_LABELS, labels[half]),
        ):
            header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            packed = gzip.compress(header + values.tobytes(), mtime=0)
            write_whole(folder / f"{kind.format(part)}.gz", packed)
        start += count
