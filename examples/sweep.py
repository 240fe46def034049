"""Train a grid of learning rates and weight decays at once: one vmapped call, one run a cell.

    python examples/sweep.py            # 8 x 6 cells, 3 seeds each, on scikit-learn's digits
    python examples/sweep.py --fast

Hyperparameters are tensors in the optimizer's state, so a stack of them is a sweep: the same
compiled step trains every cell. Prints the best cells with their spread over seeds and writes
`sweep.json` and the map `sweep.png` into `--out`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn, vmap

from fdnn import data, functionalize, metrics, optim, random, train


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    digits = data.digits()
    rates = torch.logspace(-4, -0.5, args.rates, dtype=torch.float64)
    decays = torch.logspace(-4, 1, args.decays, dtype=torch.float64)

    model = functionalize(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    )
    tx = optim.adamw()
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)

    def begin(lr: Tensor, weight_decay: Tensor, key: Tensor) -> train.TrainState:
        state = train.init(model, tx, key)
        opt_state = optim.set_hyperparams(state.opt_state, lr=lr, weight_decay=weight_decay)
        return state._replace(opt_state=opt_state)

    cells = torch.cartesian_prod(rates, decays, torch.arange(args.seeds).double())
    keys = vmap(random.key)(cells[:, 2].long())  # the same seeds in every cell: paired
    runs = vmap(begin)(cells[:, 0], cells[:, 1], keys)
    runs, _ = train.fit(
        step,
        runs,
        digits.train,
        epochs=args.epochs,
        batch_size=64,
        nonfinite="report",  # a run that diverges is a result
        compile=not args.fast,
    )
    measured = train.evaluate(model, runs, digits.valid, {"accuracy": metrics.accuracy()})
    accuracy = measured["accuracy"].reshape(len(rates), len(decays), args.seeds)

    report(rates, decays, accuracy)
    plot(rates, decays, accuracy.mean(-1), args.out / "sweep.png")
    results = {"lr": rates.tolist(), "weight_decay": decays.tolist(), "accuracy": accuracy.tolist()}
    (args.out / "sweep.json").write_text(json.dumps(results) + "\n")
    print(f"Wrote {args.out}/sweep.json and {args.out}/sweep.png.")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=int, default=8, help="how many learning rates")
    parser.add_argument("--decays", type=int, default=6, help="how many weight decays")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each cell")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training data")
    parser.add_argument("--fast", action="store_true", help="a 3 x 3 grid, 2 epochs, eagerly")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where results are written")
    args = parser.parse_args()
    for name in ("rates", "decays", "seeds", "epochs"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.fast:
        args.rates, args.decays, args.seeds, args.epochs = 3, 3, 2, 2
    return args


def report(rates: Tensor, decays: Tensor, accuracy: Tensor) -> None:
    """Show the best cells; how they differ over seeds says how far to trust the order."""
    table = Table("lr", "weight decay", "accuracy", "over seeds", title="validation, best cells")
    mean = accuracy.mean(-1)
    for cell in mean.flatten().topk(min(5, mean.numel())).indices.tolist():
        row, column = divmod(cell, len(decays))
        values = accuracy[row, column]
        table.add_row(
            f"{rates[row]:.2g}",
            f"{decays[column]:.2g}",
            f"{values.mean():.4f}",
            f"{values.min():.4f} to {values.max():.4f}",
        )
    Console().print(table)


def plot(rates: Tensor, decays: Tensor, mean: Tensor, path: Path) -> None:
    """Draw the mean accuracy of each cell."""
    figure, axis = plt.subplots(layout="constrained")
    image = axis.imshow(mean, origin="lower", aspect="auto", cmap="viridis")
    axis.set_xticks(range(len(decays)), [f"{x:.1g}" for x in decays.tolist()])
    axis.set_yticks(range(len(rates)), [f"{x:.1g}" for x in rates.tolist()])
    axis.set(xlabel="weight decay", ylabel="learning rate", title="validation accuracy")
    figure.colorbar(image)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
