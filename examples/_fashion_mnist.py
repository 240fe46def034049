"""What the examples on Fashion-MNIST share: its arguments, the data, a sample's spread."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from scipy import stats
from torch import Tensor, nn

from fdnn import data

console = Console(soft_wrap=True)


def add_arguments(parser: argparse.ArgumentParser, *, seeds: int, epochs: int) -> None:
    """Declare the arguments that all these examples take."""
    parser.add_argument("--seeds", type=int, default=seeds, help="runs made at once")
    parser.add_argument("--epochs", type=int, default=epochs, help="passes over the training data")
    parser.add_argument("--data-dir", type=Path, help="folder with Fashion-MNIST's four files")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where results are written")
    parser.add_argument("--no-compile", action="store_true", help="run eagerly")


def parse(
    parser: argparse.ArgumentParser, *, fast_seeds: int, fast_epochs: int = 1
) -> argparse.Namespace:
    """Read the arguments, cut down by `--fast`, and make the folder for results."""
    parser.add_argument("--fast", action="store_true", help="a small part, to see that it runs")
    args = parser.parse_args()
    if args.seeds < 1 or args.epochs < 1:
        parser.error(f"--seeds and --epochs must be at least 1, got {args.seeds}, {args.epochs}")
    if args.fast:
        args.seeds, args.epochs = min(args.seeds, fast_seeds), min(args.epochs, fast_epochs)
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def load(
    args: argparse.Namespace, *, standardize: bool = False, fast_images: int = 4000
) -> tuple[data.Splits, str]:
    """Load Fashion-MNIST, or say that it is not to be had and load scikit-learn's digits.

    With `standardize` each pixel has mean 0 and variance 1 over the training images, of which
    `--fast` leaves `fast_images`.
    """
    try:
        splits, name = data.fashion_mnist(args.data_dir), "Fashion-MNIST"
    except data.DataNotFound as missing:
        if args.data_dir is not None:
            raise SystemExit(str(missing)) from None
        console.print(f"{missing}\n[bold]Using scikit-learn's bundled digits instead.[/bold]")
        splits, name = data.digits(), "scikit-learn's digits"
    if args.fast:
        splits = splits._replace(train=data.Batch(*(part[:fast_images] for part in splits.train)))
    if standardize:
        mean = splits.train.inputs.mean(0)
        scale = splits.train.inputs.std(0).clamp(min=1e-3)
        splits = data.Splits(
            *((part._replace(inputs=(part.inputs - mean) / scale)) for part in splits)
        )
    return splits, name


def stack(
    splits: data.Splits, depth: int, activation: type[nn.Module], dropout: float = 0.0
) -> nn.Module:
    """Build a classifier with `depth` layers of 100 units, dropout before each linear layer."""
    classes, pixels = int(splits.train.targets.max()) + 1, splits.train.inputs[0].numel()
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in [pixels] + [100] * (depth - 1):
        layers += [nn.Dropout(dropout), nn.Linear(inputs, 100), activation()]
    layers += [nn.Dropout(dropout), nn.Linear(100, classes)]
    return nn.Sequential(*(x for x in layers if dropout or not isinstance(x, nn.Dropout)))


def spread(values: Tensor) -> dict[str, float]:
    """Mean over seeds with its 95 % interval (Student's t), smallest and largest."""
    sample = values.double()
    mean = sample.mean().item()
    interval = (mean, mean)
    error = stats.sem(sample.numpy()) if len(sample) > 1 else 0.0
    if error > 0:
        interval = stats.t.interval(0.95, len(sample) - 1, loc=mean, scale=error)
    low, high = map(float, interval)
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "min": sample.min().item(),
        "max": sample.max().item(),
    }


def compare(found: dict[str, float], printed: tuple[float, float]) -> str:
    """Say whether a spread over seeds meets the range that the chapter's notes print."""
    low, high = printed
    meets = found["min"] <= high and low <= found["max"]
    shown = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
    return f"{shown}: {'so here' if meets else 'not so here'}"
