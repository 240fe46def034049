"""What an optimizer step costs, side by side: fdnn, torch.optim, optax and TorchOpt.

    python benchmarks/optimizers.py [--rounds 9] [--out FILE]

Eagerly, on 8, 100 and 500 tensors of 32 x 32: `optim.step` under `no_grad` against torch.optim's
default step (on a CPU a loop), its foreach step and TorchOpt's (where it is installed).
Compiled, on eight tensors that hold 100 000 and 10 million parameters in all: `optim.step` under
`fdnn.jit` with donation against torch.optim's fused step and optax under `jax.jit` with donation,
and beside them the time that copying as many bytes takes as the step has to read and write.

The contenders take turns, and the table shows medians over rounds of microseconds a step, and of
the ratio to the group's first within the round (below 1: faster).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from _turns import Contender, measure, report
from torch import Tensor

import fdnn
from fdnn import optim

Tensors = list[Tensor]

KINDS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "sgd, momentum": (torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9}, optim.sgd(1e-3, 0.9)),
    "adam": (torch.optim.Adam, {"lr": 1e-3}, optim.adam()),
    "adamw": (torch.optim.AdamW, {"lr": 1e-3}, optim.adamw()),
}
SLOTS = {"sgd, momentum": 1, "adam": 2, "adamw": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    figures = []
    for kind in KINDS:
        for count in (8, 100, 500):
            figures += measure(eager(kind, count), args.rounds)
        for size in (100_000, 10_000_000):
            figures += measure(compiled(kind, size), args.rounds)
    report(figures)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


def draw(shapes: list[tuple[int, ...]]) -> Tensors:
    return [torch.randn(shape) for shape in shapes]


def eager(kind: str, count: int) -> dict[str, Contender]:
    shapes = [(32, 32)] * count
    grads = draw(shapes)
    name = f"{kind}, {count} tensors: "
    return {
        f"{name}torch.optim, default": torch_step(kind, draw(shapes), grads),
        f"{name}torch.optim, foreach": torch_step(kind, draw(shapes), grads, foreach=True),
        f"{name}fdnn": fdnn_step(kind, draw(shapes), grads, compile=False),
        **torchopt_step(f"{name}TorchOpt", kind, draw(shapes), grads),
    }


def compiled(kind: str, size: int) -> dict[str, Contender]:
    shapes = [(size // 8,)] * 8
    grads = draw(shapes)
    name = f"{kind}, {size:,} parameters: "
    floats = size * (2 * SLOTS[kind] + 3) // 2  # read and written in turn: so many copied
    source, target = torch.randn(floats), torch.empty(floats)
    return {
        f"{name}torch.optim, fused": torch_step(kind, draw(shapes), grads, fused=True),
        f"{name}fdnn.jit": fdnn_step(kind, draw(shapes), grads, compile=True),
        **optax_step(f"{name}optax, jax.jit", kind, draw(shapes), grads),
        f"{name}copying as many bytes": lambda: target.copy_(source),
    }


def torch_step(kind: str, params: Tensors, grads: Tensors, **options: bool) -> Contender:
    make, hyperparams, _ = KINDS[kind]
    for param, grad in zip(params, grads, strict=True):
        param.requires_grad_().grad = grad
    step: Contender = make(params, **hyperparams, **options).step
    return step


def fdnn_step(kind: str, params: Tensors, grads: Tensors, *, compile: bool) -> Contender:
    tx = KINDS[kind][2]
    named = {str(i): x for i, x in enumerate(grads)}
    own = {str(i): x for i, x in enumerate(params)}
    state = (own, tx.init(own))

    def advance(state: Any, grads: Any) -> Any:
        return optim.step(tx, state[0], grads, state[1])

    step = fdnn.jit(advance, donate_argnums=0) if compile else advance

    @torch.no_grad()
    def run() -> None:
        nonlocal state
        state = step(state, named)

    return run


def torchopt_step(name: str, kind: str, params: Tensors, grads: Tensors) -> dict[str, Contender]:
    try:
        import torchopt
    except ImportError:
        return {}
    make = {"sgd, momentum": torchopt.sgd, "adam": torchopt.adam, "adamw": torchopt.adamw}[kind]
    tx = make(**KINDS[kind][1])
    box = [tuple(params), tx.init(tuple(params))]

    @torch.no_grad()
    def run() -> None:
        updates, box[1] = tx.update(tuple(grads), box[1], params=box[0], inplace=False)
        box[0] = torchopt.apply_updates(box[0], updates, inplace=False)

    return {name: run}


def optax_step(name: str, kind: str, params: Tensors, grads: Tensors) -> dict[str, Contender]:
    try:
        import jax
        import optax
    except ModuleNotFoundError:
        return {}
    hyperparams = {"learning_rate" if k == "lr" else k: v for k, v in KINDS[kind][1].items()}
    make = {"sgd, momentum": optax.sgd, "adam": optax.adam, "adamw": optax.adamw}[kind]
    tx = make(**hyperparams)
    own, given = ([jax.numpy.asarray(x.numpy()) for x in xs] for xs in (params, grads))

    def advance(state: Any, grads: Any) -> Any:
        params, opt_state = state
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    step = jax.jit(advance, donate_argnums=0)
    state = (own, tx.init(own))

    def run() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, given))

    return {name: run}


if __name__ == "__main__":
    main()
