"""Tables for regression, standardised: California housing (fetched once) and diabetes (bundled)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fdnn.data.cache import cache_folder, data_folders, find, scikit_learn
from fdnn.data.splits import Batch, Splits

__all__ = ["california_housing", "diabetes"]

_NAME = "california-housing"
_SHAPE = (20_640, 8)
_PATTERN = "cal_housing*.pkz"  # what scikit-learn calls its file, whatever the Python version
_CURE = (
    "call again with a network; or set FDNN_DATA to a folder that holds the file as scikit-learn's "
    "fetch_california_housing wrote it elsewhere; or use fdnn.data.diabetes, which is bundled"
)
_CURE_FOLDER = "pass a `data_home` of scikit-learn that holds it, or none for the usual places"


def california_housing(
    folder: str | os.PathLike[str] | None = None,
    *,
    standardize: bool = True,
    download: bool = True,
) -> Splits:
    """Load California housing: the median house value of 20 640 districts from eight features.

    Without `folder`, the file that scikit-learn makes is looked for in `$FDNN_DATA` and its
    subfolder `california-housing`, in scikit-learn's own data folder, and in fdnn's cache
    (`$XDG_CACHE_HOME` or `~/.cache`, then `fdnn/california-housing`). Failing that,
    scikit-learn downloads it into that cache.

    Args:
        folder: a `data_home` of scikit-learn that has the file; then nowhere else is looked.
        standardize: whether to shift and scale each feature to mean 0 and standard deviation 1
            over the training split. Targets stay in their unit.
        download: whether the network may be asked.

    Returns:
        Splits of 11 610, 3870 and 5160 rows: scikit-learn's `train_test_split` with
        `random_state=42`, a quarter for the test and then a quarter of the rest for validation.
        Inputs are float32 of shape `(n, 8)`: median income, house age, rooms, bedrooms,
        population, occupancy, latitude, longitude. Targets are float32 of shape `(n, 1)`, in
        100 000 dollars.

    Raises:
        DataNotFound: no place has the file and it could not be downloaded.
        ModuleNotFoundError: scikit-learn is not installed.
        ValueError: the file is damaged.

    Example:
        >>> from fdnn import data
        >>> data.california_housing().train.inputs.shape  # doctest: +SKIP
        torch.Size([11610, 8])

    References:
        Pace, Barry (1997). Sparse spatial autoregressions. Statistics and Probability Letters 33.
    """
    fetch = scikit_learn("datasets").fetch_california_housing
    if folder is not None:
        home = find("California housing", [Path(folder)], _lacks, _CURE_FOLDER)
    else:
        own = Path(os.environ.get("SCIKIT_LEARN_DATA") or "~/scikit_learn_data").expanduser()
        places = [*data_folders(_NAME), own, cache_folder(_NAME)]
        home = find("California housing", places, _lacks, _CURE, _download if download else None)
    file = next(home.glob(_PATTERN))
    try:
        inputs, targets = fetch(data_home=home, download_if_missing=False, return_X_y=True)
    except Exception as err:  # a damaged archive can fail in any part of the unpickling
        raise _damaged(file, f"{type(err).__name__}: {err}") from err
    if inputs.shape != _SHAPE:
        raise _damaged(file, f"expected rows and features {_SHAPE}, found {inputs.shape}")
    return _splits(inputs, targets, standardize)


def diabetes(*, standardize: bool = True) -> Splits:
    """Load scikit-learn's diabetes study: 442 patients, ten features, no network needed.

    Args:
        standardize: whether to shift and scale each feature to mean 0 and standard deviation 1
            over the training split; otherwise they are in the units of the study.

    Returns:
        Splits of 248, 83 and 111 rows, cut as those of `california_housing`. Inputs are float32
        of shape `(n, 10)`: age, sex, body mass index, blood pressure and six measures of blood
        serum. Targets are float32 of shape `(n, 1)`: progression of the disease after a year, in
        hundreds of the study's points.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> from fdnn import data
        >>> [tuple(split.inputs.shape) for split in data.diabetes()]
        [(248, 10), (83, 10), (111, 10)]

    References:
        Efron, Hastie, Johnstone, Tibshirani (2004). Least angle regression. Annals of
        Statistics 32. Its points run from 25 to 346; a hundredth of them suits the learning rates
        that suit California housing.
    """
    inputs, targets = scikit_learn("datasets").load_diabetes(return_X_y=True, scaled=False)
    return _splits(inputs, targets / 100, standardize)


def _splits(x: Any, y: Any, standardize: bool) -> Splits:
    """Cut twice by the same seed, then standardise by the training split."""
    cut = scikit_learn("model_selection").train_test_split
    x, x_test, y, y_test = cut(x, y, random_state=42)
    x, x_valid, y, y_valid = cut(x, y, random_state=42)
    scaler = scikit_learn("preprocessing").StandardScaler(
        with_mean=standardize, with_std=standardize
    )
    scaler.fit(x)
    return Splits(
        *(
            Batch(_float32(scaler.transform(inputs)), _float32(targets[:, None]))
            for inputs, targets in ((x, y), (x_valid, y_valid), (x_test, y_test))
        )
    )


def _float32(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _lacks(folder: Path) -> str:
    return "" if any(folder.glob(_PATTERN)) else f"no {_PATTERN}"


def _download(folder: Path) -> None:
    """Let scikit-learn work in a folder of its own, and move what it finished."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download.") as work:
        scikit_learn("datasets").fetch_california_housing(data_home=work)
        for file in Path(work).glob(_PATTERN):
            os.replace(file, folder / file.name)


def _damaged(file: Path, what: str) -> ValueError:
    return ValueError(
        f"{file} is damaged: {what}. Delete it and load again, or pass another folder."
    )
