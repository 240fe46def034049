"""Meta-learn an initialisation from which a few steps suffice (MAML), by gradients of gradients.

    python examples/maml.py            # sine waves, as in the paper
    python examples/maml.py --fast

A task is a sine wave of random amplitude and phase, of which ten points are known. The inner loop
is SGD by `optim.step`; the outer gradient flows through it to the initialisation and to the inner
learning rates, one for each parameter. Tasks are lanes of a `vmap`. Compares with the start
before meta-training and writes `maml.png` into `--out`.

Reference: Finn, Abbeel, Levine (2017), "Model-agnostic meta-learning for fast adaptation of deep
networks"; learned rates: Li et al. (2017), "Meta-SGD".
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn, vmap
from torch.func import grad, grad_and_value

import fdnn
from fdnn import functionalize, optim, random, tree

INNER_STEPS, SHOTS, QUERIES = 3, 10, 10
Params = dict[str, Tensor]
Task = tuple[Tensor, Tensor, Tensor, Tensor]

MODEL = functionalize(
    nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
)
# The learned rates scale the gradient; a step longer than 1 is shortened, or a rare task explodes.
INNER = optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(lr=1.0))


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    params, _ = MODEL.init(random.key(0))
    meta = {"params": params, "rates": tree.map(lambda p: torch.full_like(p, 0.01), params)}
    tx = optim.chain(optim.clip_by_global_norm(10.0), optim.adam(lr=1e-3))

    def outer_step(meta: Any, state: Any, key: Tensor) -> Any:
        tasks = vmap(draw_task)(random.split(key, args.tasks))

        def outer_loss(meta: Any) -> Tensor:
            return vmap(lambda task: loss_after(meta, task))(tasks).mean()

        grads, value = grad_and_value(outer_loss)(meta)
        meta, state = optim.step(tx, meta, grads, state)
        return meta, state, value

    advance = outer_step if args.fast else fdnn.jit(outer_step)
    state, started = tx.init(meta), meta
    for i in range(args.steps):
        meta, state, value = advance(meta, state, random.fold_in(random.key(1), i))
        if i % max(1, args.steps // 10) == 0:
            print(f"step {i:5d}: loss after {INNER_STEPS} inner steps {value.item():.3f}")

    tests = vmap(draw_task)(random.split(random.key(2), 500))
    for name, found in (("before", started), ("after", meta)):
        losses = vmap(lambda task, found=found: loss_after(found, task))(tests)
        error = losses.std() / len(losses) ** 0.5
        print(f"{name:6s} meta-training: test loss {losses.mean():.3f} ± {error:.3f} (500 tasks)")
    plot(started, meta, args.out / "maml.png")
    print(f"Wrote {args.out}/maml.png.")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="outer steps")
    parser.add_argument("--tasks", type=int, default=25, help="tasks in an outer step")
    parser.add_argument("--fast", action="store_true", help="50 steps on 5 tasks, eagerly")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the plot is written")
    args = parser.parse_args()
    if args.steps < 1 or args.tasks < 1:
        parser.error(f"--steps and --tasks must be at least 1, got {args.steps}, {args.tasks}")
    if args.fast:
        args.steps, args.tasks = 50, 5
    return args


def draw_task(key: Tensor) -> Task:
    """Draw a sine wave: known points (x, y), and others to be judged by."""
    key_amplitude, key_phase, key_x = random.split(key, 3)
    amplitude = random.uniform(key_amplitude, (), minval=0.1, maxval=5.0)
    phase = random.uniform(key_phase, (), minval=0.0, maxval=torch.pi)
    x = random.uniform(key_x, (SHOTS + QUERIES, 1), minval=-5.0, maxval=5.0)
    y = amplitude * torch.sin(x - phase)
    return x[:SHOTS], y[:SHOTS], x[SHOTS:], y[SHOTS:]


def predict(params: Params, x: Tensor) -> Tensor:
    return MODEL.apply(params, {}, x)[0]


def adapt(meta: Any, x: Tensor, y: Tensor) -> Params:
    """Take the inner steps: plain functions, so that the outer gradient flows through them."""
    params, state = meta["params"], INNER.init(meta["params"])
    for _ in range(INNER_STEPS):
        grads = grad(lambda params: F.mse_loss(predict(params, x), y))(params)
        scaled = tree.map(torch.mul, grads, meta["rates"])
        params, state = optim.step(INNER, params, scaled, state)
    return params


def loss_after(meta: Any, task: Task) -> Tensor:
    x, y, x_query, y_query = task
    return F.mse_loss(predict(adapt(meta, x, y), x_query), y_query)


def plot(started: Any, meta: Any, path: Path) -> None:
    """Draw what both initialisations make of the same ten points."""
    x, y, _, _ = draw_task(random.key(7))
    grid = torch.linspace(-5, 5, 200).unsqueeze(1)
    figure, axis = plt.subplots(layout="constrained")
    for name, found in (("before meta-training", started), ("after", meta)):
        with torch.no_grad():
            axis.plot(grid, predict(adapt(found, x, y), grid), label=f"{name}: adapted")
    axis.plot(x, y, "k.", label="known points")
    axis.set(xlabel="x", ylabel="y", title=f"{INNER_STEPS} steps on {SHOTS} points")
    axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
