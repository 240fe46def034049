"""Learn the learning rate, momentum and weight decay by gradients through training.

    python examples/hypergradient.py            # scikit-learn's diabetes data
    python examples/hypergradient.py --fast

The validation loss after 50 steps of SGD is a function of the optimizer's hyperparameters, which
are tensors in its state. Its gradient flows back through all steps; a second optimizer, on the
hyperparameters' unconstrained forms, follows it. Several starts run as lanes of one `vmap`. Checks
the gradient against finite differences, prints the way, and writes `hypergradient.png`.

Reference: Maclaurin, Duvenaud, Adams (2015), "Gradient-based hyperparameter optimization through
reversible learning" (here the steps are kept instead of reversed).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn, vmap
from torch.func import grad_and_value

from fdnn import data, functionalize, optim, random, train, tree

MODEL = functionalize(nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 1)).double())
INNER = optim.sgd(lr=0.1, momentum=0.5, weight_decay=1e-3)
Raw = dict[str, Tensor]
"""Unconstrained hyperparameters: logarithms, and the logit of the momentum."""


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    splits = tree.cast(data.diabetes(), torch.float64)
    scale = splits.train.targets.std()
    splits = data.Splits(*((x, (y - splits.train.targets.mean()) / scale) for x, y in splits))
    step = train.make_step(train.supervised(MODEL, F.mse_loss), INNER, differentiable=True)

    def validation_loss(raw: Raw, key: Tensor) -> Tensor:
        state = train.init(MODEL, INNER, key)
        opt_state = optim.set_hyperparams(state.opt_state, **constrained(raw))
        state = state._replace(opt_state=opt_state)
        for _ in range(args.inner_steps):
            state, _ = step(state, splits.train)
        x, y = splits.valid
        return F.mse_loss(MODEL.apply(state.params, state.buffers, x)[0], y)

    key = random.key(0)
    raw = {
        "lr": torch.log(torch.tensor([0.003, 0.03, 0.1], dtype=torch.float64)),
        "momentum": torch.zeros(3, dtype=torch.float64),
        "weight_decay": torch.log(torch.full((3,), 1e-3, dtype=torch.float64)),
    }
    check(lambda raw: validation_loss(raw, key), {name: x[1] for name, x in raw.items()})

    tx = optim.adam(lr=0.1)
    state = vmap(tx.init)(raw)
    losses, rates = [], []
    for i in range(args.steps):
        grads, value = vmap(grad_and_value(validation_loss), in_dims=(0, None))(raw, key)
        losses.append(value)
        rates.append(raw["lr"].exp())
        raw, state = vmap(lambda r, g, s: optim.step(tx, r, g, s))(raw, grads, state)
        if i % max(1, args.steps // 5) == 0:
            print(f"outer step {i:3d}: validation loss {show(value)}, lr {show(raw['lr'].exp())}")
    print(f"validation loss {show(losses[0])} at first, {show(losses[-1])} at last")
    plot(torch.stack(losses), torch.stack(rates), args.out / "hypergradient.png")
    print(f"Wrote {args.out}/hypergradient.png.")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="steps on the hyperparameters")
    parser.add_argument("--inner-steps", type=int, default=50, help="steps of training")
    parser.add_argument("--fast", action="store_true", help="3 steps through 10")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the plot is written")
    args = parser.parse_args()
    if args.steps < 1 or args.inner_steps < 1:
        parser.error("--steps and --inner-steps must be at least 1")
    if args.fast:
        args.steps, args.inner_steps = 3, 10
    return args


def constrained(raw: Raw) -> dict[str, Tensor]:
    return {
        "lr": raw["lr"].exp(),
        "momentum": raw["momentum"].sigmoid(),
        "weight_decay": raw["weight_decay"].exp(),
    }


def check(loss: Any, raw: Raw) -> None:
    """Compare the gradient with central differences, one hyperparameter at a time."""
    grads, _ = grad_and_value(loss)(raw)
    for name, value in raw.items():
        above, below = (loss({**raw, name: value + h}) for h in (1e-5, -1e-5))
        difference = (above - below) / 2e-5
        print(f"d loss / d {name}: {grads[name]:+.6f}, by differences {difference:+.6f}")
        torch.testing.assert_close(grads[name], difference, rtol=1e-4, atol=1e-8)


def show(values: Tensor) -> str:
    return ", ".join(f"{value:.4f}" for value in values.tolist())


def plot(losses: Tensor, rates: Tensor, path: Path) -> None:
    """Draw loss and learning rate by outer step, a line for each start."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    axes[0].plot(losses)
    axes[0].set(xlabel="outer step", ylabel="validation loss", yscale="log")
    axes[1].plot(rates)
    axes[1].set(xlabel="outer step", ylabel="learning rate", yscale="log")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
