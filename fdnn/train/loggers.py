"""Callbacks of `fit` that write down the numbers of each epoch."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from fdnn.train.state import TrainState

__all__ = ["csv_logger", "tensorboard_logger"]

Info = dict[str, Tensor]


def csv_logger(path: str | os.PathLike[str]) -> Callable[[TrainState, Info], None]:
    """Write the history to a CSV file, epoch by epoch.

    One line for each epoch, or for each epoch and lane of a stacked state, with the columns
    `epoch`, `lane` (if stacked) and those of the history. A file that is there is continued: its
    lines from the first new epoch on are replaced, so that a resumed run leaves each epoch once.

    Args:
        path: the file; its folder is made if need be.

    Returns:
        A callback for `fit`.

    Raises:
        ValueError: at the first epoch, the file has other columns.

    Example:
        >>> import tempfile
        >>> import torch
        >>> path = Path(tempfile.mkdtemp()) / "history.csv"
        >>> log = csv_logger(path)
        >>> log(None, {"epoch": torch.tensor(1), "loss": torch.tensor([0.5, 0.25])})
        >>> path.read_text().splitlines()
        ['epoch,lane,loss', '1,0,0.5', '1,1,0.25']
    """
    path = Path(path)
    started = False

    def log(state: TrainState, info: Info) -> None:
        nonlocal started
        lines = _lines(info)
        columns = list(lines[0])
        if not started:
            _keep_before(path, columns, int(info["epoch"]))
            started = True
        with path.open("a", newline="") as file:
            csv.DictWriter(file, columns, lineterminator="\n").writerows(lines)

    return log


def tensorboard_logger(log_dir: str | os.PathLike[str]) -> Callable[[TrainState, Info], None]:
    """Write the history for TensorBoard, epoch by epoch; needs the extra `tensorboard`.

    One curve for each number; of a stacked state three, the mean, minimum and maximum over the
    lanes. A resumed run continues the curves of its folder.

    Args:
        log_dir: the folder that `tensorboard --logdir` is told.

    Returns:
        A callback for `fit`.

    Raises:
        ImportError: tensorboard is not installed.

    Example:
        >>> import tempfile
        >>> import torch
        >>> log = tensorboard_logger(tempfile.mkdtemp())
        >>> log(None, {"epoch": torch.tensor(1), "loss": torch.tensor(0.5)})
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "`tensorboard_logger` needs tensorboard: pip install 'fdnn-torch[tensorboard]'"
        ) from error
    writer: Any = None

    def log(state: TrainState, info: Info) -> None:
        nonlocal writer
        epoch = int(info["epoch"])
        if writer is None:
            writer = SummaryWriter(str(log_dir), purge_step=epoch)
        for name, value in info.items():
            if name == "epoch":
                continue
            value = value.double().flatten()
            if value.numel() == 1:
                writer.add_scalar(name, value.item(), epoch)
                continue
            running = value[~value.isnan()]
            if running.numel():
                writer.add_scalar(f"{name}/mean", running.mean().item(), epoch)
                writer.add_scalar(f"{name}/min", running.min().item(), epoch)
                writer.add_scalar(f"{name}/max", running.max().item(), epoch)
        writer.flush()

    return log


def _lines(info: Info) -> list[dict[str, Any]]:
    """Turn an epoch's numbers into lines, one for each lane."""
    lanes = {len(value) for value in info.values() if value.ndim == 1}
    if not lanes:
        return [{"epoch": info["epoch"].item()} | {name: v.item() for name, v in info.items()}]
    if len(lanes) > 1 or any(value.ndim > 1 for value in info.values()):
        shapes = {name: tuple(value.shape) for name, value in info.items()}
        raise ValueError(f"`info` must hold one number for each lane, got shapes {shapes}")
    (count,) = lanes
    whole = {name: value.expand(count).tolist() for name, value in info.items()}
    return [
        {"epoch": whole["epoch"][lane], "lane": lane}
        | {name: values[lane] for name, values in whole.items() if name != "epoch"}
        for lane in range(count)
    ]


def _keep_before(path: Path, columns: list[str], epoch: int) -> None:
    """Begin the file, or cut it where the run begins."""
    kept: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != columns:
                raise ValueError(f"{path} must have the columns {columns}, got {reader.fieldnames}")
            kept = [line for line in reader if int(line["epoch"]) < epoch]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    aside.replace(path)
