"""Fit the chapter's regression MLP, 8-50-40-1, by full-batch gradient descent, many seeds at once.

    python examples/regression_mlp.py
    python examples/regression_mlp.py --fast

On California housing where scikit-learn finds or downloads it, otherwise on its bundled diabetes
data (ten features, targets divided by the largest). The first seed is trained again by torch.nn
and torch.optim, from the same weights, and has to arrive at the same place.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn, vmap

import fdnn
from fdnn import data, functionalize, metrics, optim, random, train, tree


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    splits, name = load(args.data_dir)
    module = network(splits.train.inputs.shape[1])
    model, tx = functionalize(module), optim.sgd(lr=0.1)
    step = train.make_step(train.supervised(model, F.mse_loss), tx)
    many = fdnn.jit(vmap(step, in_dims=(0, None))) if args.compile else vmap(step, (0, None))

    runs = begun = vmap(lambda key: train.init(model, tx, key))(
        random.split(random.key(0), args.seeds)
    )
    losses = []
    for _ in range(args.epochs):
        runs, info = many(runs, splits.train)
        losses.append(info["loss"])
    loss = torch.stack(losses)  # (epochs, seeds)

    measured = train.evaluate(model, runs, splits.test, {"mse": metrics.mean_squared_error()})
    difference = gap(module, begun, loss[:, 0], splits.train)
    rows = len(splits.train.targets)
    print(f"{name}: {rows} rows, {args.seeds} seeds, {args.epochs} steps of gradient descent")
    print(f"training loss   {show(loss[0])}  before the first step")
    print(f"                {show(loss[-1])}  before the last")
    print(f"test RMSE       {show(measured['mse'].sqrt())}")
    print(f"furthest from torch.nn and torch.optim: {difference:.1e}")
    plot(loss, name, args.out / "regression_mlp.png")
    print(f"Wrote {args.out}/regression_mlp.png.")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=32, help="runs made at once")
    parser.add_argument("--epochs", type=int, default=20, help="steps, each on all of the data")
    parser.add_argument("--fast", action="store_true", help="4 seeds, eagerly")
    parser.add_argument("--data-dir", type=Path, help="scikit-learn's data folder")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the plot is written")
    args = parser.parse_args()
    if args.seeds < 1 or args.epochs < 1:
        parser.error(f"--seeds and --epochs must be at least 1, got {args.seeds}, {args.epochs}")
    args.compile = not args.fast
    args.seeds = min(args.seeds, 4) if args.fast else args.seeds
    return args


def load(folder: Path | None) -> tuple[data.Splits, str]:
    try:
        return data.california_housing(folder), "California housing"
    except data.DataNotFound as missing:
        if folder is not None:
            raise SystemExit(str(missing)) from None
        print(f"{missing}\nUsing scikit-learn's bundled diabetes data instead.")
    splits = data.diabetes()
    largest = splits.train.targets.max()
    return data.Splits(*(b._replace(targets=b.targets / largest) for b in splits)), "diabetes"


def network(features: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 1)
    )


def show(values: Tensor) -> str:
    return f"{values.mean():.4f} (from {values.min():.4f} to {values.max():.4f} over seeds)"


def gap(module: nn.Module, begun: train.TrainState, ours: Tensor, batch: data.Batch) -> float:
    """Train the first seed by torch alone; return the largest difference in loss on the way."""
    module.load_state_dict(tree.unstack(begun.params)[0])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in ours:
        loss = F.mse_loss(module(batch.inputs), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return (torch.stack(losses) - ours).abs().max().item()


def plot(loss: Tensor, name: str, path: Path) -> None:
    """Draw the training loss by step: the median over seeds, and their range."""
    figure, axis = plt.subplots(layout="constrained")
    low, high = loss.aminmax(dim=1)
    axis.fill_between(range(len(loss)), low, high, alpha=0.3, lw=0, label="range over seeds")
    axis.plot(loss.median(dim=1).values, label="median")
    axis.set(xlabel="step", ylabel="training loss (mean squared error)", yscale="log", title=name)
    axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
