"""The main job's training step, side by side: fdnn, a torch.optim loop, and JAX.

    python benchmarks/many_seeds.py [--seeds 32] [--rounds 9] [--optimizer sgd|adam]
                                    [--net classifier|regressor] [--out FILE]

All train on batches of 32 gathered from one tensor of 55 000 examples (noise: time does not depend
on what they show): the classifier 784-100-100-100-10, or the small regressor 8-50-40-1. The
contenders take turns, a round each, and the table shows medians over rounds of microseconds per
step and seed, and of the ratio to the torch loop within the round. Compilation comes before the
first round. JAX (the extra `jax`) runs one step a call, and all steps of a round in `lax.scan`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn, vmap

import fdnn
from fdnn import functionalize, optim, random, train, tree

IMAGES, BATCH_SIZE, STEPS = 55_000, 32, 100
SIZES = {"classifier": (784, 100, 100, 100, 10), "regressor": (8, 50, 40, 1)}
Contender = Callable[[int], None]
"""Takes a number of steps, for every seed it trains."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--net", choices=tuple(SIZES), default="classifier")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    job, seeds = Job(args.net, args.optimizer), args.seeds
    contenders: dict[str, tuple[int, Contender]] = {
        "torch.optim loop, fused": (1, torch_loop(job)),
        "fdnn, one seed, compiled": (1, fdnn_runs(job, None, 1, 1)),
    }
    some, few = min(16, seeds), min(8, seeds)
    for chunk, group in ((seeds, 1), (seeds, 4), (some, 1), (some, 4), (few, 4)):
        name = f"fdnn, {seeds} seeds by {chunk}, {group} steps a call"
        contenders[name] = seeds, fdnn_runs(job, seeds, chunk, group)
    try:
        for chunk, scan in itertools.product((seeds, few), (False, True)):
            name = f"JAX jit(vmap), {seeds} seeds by {chunk}{', lax.scan' * scan}"
            contenders[name] = seeds, jax_runs(job, seeds, chunk, scan)
    except ModuleNotFoundError:
        print("JAX is not installed (pip install 'fdnn-torch[jax]'): measuring without it")

    micros: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(args.rounds + 1):
        for name, (width, run) in contenders.items():
            steps = STEPS if width > 1 else 5 * STEPS
            begun = time.perf_counter()
            run(steps)
            if number:  # round 0 compiles and warms up
                micros[name].append((time.perf_counter() - begun) / steps / width * 1e6)
    report(micros, args)


class Job:
    """What all contenders do: a net, its data and loss, an optimizer."""

    def __init__(self, net: str, optimizer: str):
        # As `train.fit` and XLA do: momentum of a unit that has died is slow to compute with.
        torch.set_flush_denormal(True)
        self.sizes, self.optimizer = SIZES[net], optimizer
        self.is_classifier = net == "classifier"
        self.loss: Any = F.cross_entropy if self.is_classifier else F.mse_loss
        self.x = torch.rand(IMAGES, self.sizes[0])
        self.y = torch.randint(10, (IMAGES,)) if self.is_classifier else torch.rand(IMAGES, 1)

    def network(self) -> nn.Module:
        """Linear layers with ReLUs between them."""
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(self.sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def torch_loop(job: Job) -> Contender:
    module, x, y = job.network(), job.x, job.y
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[job.optimizer]
    tx = kind(module.parameters(), lr=1e-3, fused=True)

    def run(steps: int) -> None:
        for index in torch.randperm(IMAGES)[: steps * BATCH_SIZE].split(BATCH_SIZE):
            loss = job.loss(module(x[index]), y[index])
            tx.zero_grad()
            loss.backward()
            tx.step()

    return run


def fdnn_runs(job: Job, seeds: int | None, chunk: int, group: int) -> Contender:
    """Run what `train.fit` runs, without its epochs."""
    model, tx = functionalize(job.network()), getattr(optim, job.optimizer)(lr=1e-3)
    step = train.make_step(train.supervised(model, job.loss), tx)

    def one(state: train.TrainState, index: Tensor) -> Any:
        return step(state, (job.x[index], job.y[index]))

    batched = vmap(one) if seeds else one

    def several(state: train.TrainState, *indices: Tensor) -> Any:
        for index in indices:
            state, info = batched(state, index)
        return state, info

    fast = fdnn.jit(several, donate_argnums=0)
    if seeds:
        states = vmap(lambda key: train.init(model, tx, key))(random.split(random.key(0), seeds))
        chunks = [
            tree.map(lambda leaf, i=i: leaf[i : i + chunk].clone(), states)
            for i in range(0, seeds, chunk)
        ]
    else:
        chunks = [train.init(model, tx, random.key(0))]

    def run(steps: int) -> None:
        for i, state in enumerate(chunks):
            for _ in range(steps // group):
                index = torch.randint(IMAGES, (group, *state.count.shape, BATCH_SIZE))
                state, _ = fast(state, *index)
            chunks[i] = state

    return run


def jax_runs(job: Job, seeds: int, chunk: int, scan: bool) -> Contender:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    inputs, targets = jnp.asarray(job.x.numpy()), jnp.asarray(job.y.numpy())
    tx = getattr(optax, job.optimizer)(1e-3)

    def init(key: Any) -> Any:
        draw = jax.nn.initializers.he_normal()
        layers = list(itertools.pairwise(job.sizes))
        shapes = zip(jax.random.split(key, len(layers)), *zip(*layers, strict=True), strict=True)
        params = [(draw(key, (rows, columns)), jnp.zeros(columns)) for key, rows, columns in shapes]
        return params, tx.init(params)

    def loss(params: Any, activations: Any, target: Any) -> Any:
        *hidden, (weight, bias) = params
        for w, b in hidden:
            activations = jax.nn.relu(activations @ w + b)
        output = activations @ weight + bias
        if job.is_classifier:
            return optax.softmax_cross_entropy_with_integer_labels(output, target).mean()
        return ((output - target) ** 2).mean()

    def step(state: Any, index: Any) -> Any:
        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params, inputs[index], targets[index])
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    def scanned(state: Any, indices: Any) -> Any:
        return jax.lax.scan(jax.vmap(step), state, indices)

    fast = jax.jit(scanned if scan else jax.vmap(step), donate_argnums=0)
    keys = jax.random.split(jax.random.key(0), seeds)
    chunks = [jax.vmap(init)(keys[i : i + chunk]) for i in range(0, seeds, chunk)]
    rng = np.random.default_rng(0)

    def run(steps: int) -> None:
        for i, state in enumerate(chunks):
            shape = min(chunk, seeds - i * chunk), BATCH_SIZE
            if scan:
                state, _ = fast(state, rng.integers(IMAGES, size=(steps, *shape)))
            for _ in range(0 if scan else steps):
                state, _ = fast(state, rng.integers(IMAGES, size=shape))
            chunks[i] = jax.block_until_ready(state)

    return run


def report(micros: dict[str, list[float]], args: argparse.Namespace) -> None:
    yardstick, *_ = micros.values()
    table = Table("", "µs a step and seed", "times cheaper than the torch loop")
    figures = {}
    for name, values in micros.items():
        ratio = statistics.median(t / v for t, v in zip(yardstick, values, strict=True))
        figures[name] = {"us": statistics.median(values), "ratio": ratio}
        table.add_row(name, f"{figures[name]['us']:.0f}", f"{ratio:.2f}")
    Console().print(table)
    if args.out:
        what = {"optimizer": args.optimizer, "net": args.net}
        args.out.write_text(json.dumps(what | figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
