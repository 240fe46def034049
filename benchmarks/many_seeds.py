"""The main job's training step, side by side: fdnn, a torch.optim loop, and JAX.

    python benchmarks/many_seeds.py [--seeds 32] [--rounds 9] [--optimizer sgd|adam] [--out FILE]

All train the MLP 784-100-100-100-10 on batches of 32 gathered from one tensor of 55 000 images
(noise: time does not depend on what they show). The contenders take turns, a round each, and the
table shows medians over rounds of microseconds per step and seed, and of the ratio to the torch
loop within the round. Compilation comes before the first round. JAX needs the extra `jax`.
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
SIZES = [784, 100, 100, 100, 10]
Contender = Callable[[int], None]
"""Takes a number of steps, for every seed it trains."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()

    data = torch.rand(IMAGES, 784), torch.randint(10, (IMAGES,))
    seeds, kind = args.seeds, args.optimizer
    contenders: dict[str, tuple[int, Contender]] = {
        "torch.optim loop, fused": (1, torch_loop(*data, kind)),
        "fdnn, one seed, compiled": (1, fdnn_runs(*data, kind, None, 1, 1)),
        f"fdnn, {seeds} seeds at once": (seeds, fdnn_runs(*data, kind, seeds, seeds, 1)),
        f"fdnn, {seeds} seeds by 8, 4 steps a call": (seeds, fdnn_runs(*data, kind, seeds, 8, 4)),
    }
    try:
        for chunk in (seeds, 8):
            name = f"JAX jit(vmap), {seeds} seeds, {chunk} at once"
            contenders[name] = seeds, jax_runs(*data, kind, seeds, chunk)
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


def torch_loop(x: Tensor, y: Tensor, optimizer: str) -> Contender:
    module = network()
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    tx = kind(module.parameters(), lr=1e-3, fused=True)

    def run(steps: int) -> None:
        for index in torch.randperm(IMAGES)[: steps * BATCH_SIZE].split(BATCH_SIZE):
            loss = F.cross_entropy(module(x[index]), y[index])
            tx.zero_grad()
            loss.backward()
            tx.step()

    return run


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(SIZES):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fdnn_runs(
    x: Tensor, y: Tensor, optimizer: str, seeds: int | None, chunk: int, group: int
) -> Contender:
    """Run what `train.fit` runs, without its epochs."""
    model, tx = functionalize(network()), getattr(optim, optimizer)(lr=1e-3)
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)

    def one(state: train.TrainState, index: Tensor) -> Any:
        return step(state, (x[index], y[index]))

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


def jax_runs(x: Tensor, y: Tensor, optimizer: str, seeds: int, chunk: int) -> Contender:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    images, labels = jnp.asarray(x.numpy()), jnp.asarray(y.numpy())
    tx = getattr(optax, optimizer)(1e-3)

    def init(key: Any) -> Any:
        draw = jax.nn.initializers.he_normal()
        shapes = zip(jax.random.split(key, len(SIZES) - 1), SIZES, SIZES[1:], strict=False)
        params = [(draw(key, (rows, columns)), jnp.zeros(columns)) for key, rows, columns in shapes]
        return params, tx.init(params)

    def loss(params: Any, activations: Any, target: Any) -> Any:
        *hidden, (weight, bias) = params
        for w, b in hidden:
            activations = jax.nn.relu(activations @ w + b)
        logits = activations @ weight + bias
        return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()

    def step(state: Any, index: Any) -> Any:
        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params, images[index], labels[index])
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    fast = jax.jit(jax.vmap(step), donate_argnums=0)
    keys = jax.random.split(jax.random.key(0), seeds)
    chunks = [jax.vmap(init)(keys[i : i + chunk]) for i in range(0, seeds, chunk)]
    rng = np.random.default_rng(0)

    def run(steps: int) -> None:
        for i, state in enumerate(chunks):
            for _ in range(steps):
                state, _ = fast(state, rng.integers(IMAGES, size=(chunk, BATCH_SIZE)))
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
        args.out.write_text(json.dumps({"optimizer": args.optimizer, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
