"""Ask whether transfer learning did it: T-shirts against pullovers with 20 labelled images.

    python examples/transfer_learning.py            # 200 seeds of each arm
    python examples/transfer_learning.py --fast

The chapter trains model A on eight classes of Fashion-MNIST, reuses its layers for the two classes
left out, and reports 71.6 % from scratch against 92.5 % by transfer: one seed each, and 20 steps
against 30. Here every arm has 200 seeds, all trained at once, and scratch gets as many steps:

- the book's protocol: its 20 images; scratch 20 full-batch steps; transfer 10 with the body frozen,
  then 20 with all but the first layer trained;
- the same, step by step alike: 30, 200 and 1000 steps in all;
- 20 images drawn anew for each seed; and 100 and 500 images.

Pairs share the images. Prints means, quantiles, where 71.6 % lies, and the paired gains with their
95 % intervals (Student's t); writes `transfer_learning.json` and `transfer_learning.png`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from _fashion_mnist import add_arguments, console, load, parse, spread, stack
from _two_classes import Task, binary_accuracy, divide
from rich.table import Table
from torch import Tensor, nn, vmap

import fdnn
from fdnn import data, functionalize, initializers, losses, optim, random, train, transfer

LR, BOOK_SCRATCH, BOOK_TRANSFER = 0.005, 0.716, 0.925
FROZEN_STEPS, BOOK_STEPS = 10, 20
HE = {"weight": initializers.he_uniform(), "bias": initializers.zeros}


class Draws(NamedTuple):
    """The images of every seed, `(seeds, n, ...)`."""

    name: str
    inputs: Tensor
    targets: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=200, epochs=20)
    parser.add_argument(
        "--bodies", type=int, default=6, help="model A's trained, one for each lane"
    )
    args = parse(parser, fast_seeds=8, fast_epochs=2)
    splits, name = load(args, fast_images=55_000)
    if name != "Fashion-MNIST":
        raise SystemExit("this example needs Fashion-MNIST")
    others, task = divide(splits)
    if args.fast:
        others = data.Batch(*(part[:4000] for part in others))
    model = functionalize(stack(splits._replace(train=others), depth=3, activation=nn.ReLU))
    bodies = train_a(model, others, args)
    steps = (20, 30, 200) if args.fast else (20, 30, 200, 1000)
    book = images(task, torch.arange(20).expand(args.seeds, -1), "the book's 20 images")
    arms = [compare(model, bodies, task, book, steps, args)]
    for count, longest in ((20, steps[-1]), (100, 200), (500, 200)):
        seeds = args.seeds if count == 20 else min(args.seeds, 40)
        keys = random.split(random.key(7), args.seeds)[:seeds]
        picks = vmap(lambda key, n=count: random.permutation(key, len(task.pool.targets))[:n])(keys)
        drawn = images(task, picks, f"{count} images, drawn")
        arms.append(compare(model, bodies, task, drawn, [s for s in steps if s <= longest], args))
    show(arms)
    plot(arms, args)
    results = [{k: v for k, v in row.items() if k != "values"} for arm in arms for row in arm]
    (args.out / "transfer_learning.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Wrote {args.out}/transfer_learning.json and .png.")


def train_a(model: Any, others: data.Batch, args: argparse.Namespace) -> dict[str, Tensor]:
    """Train model A for several seeds; the parameters, stacked."""
    tx = optim.sgd(lr=LR)
    states = vmap(lambda key: train.init(model, tx, key, **HE))(
        random.split(random.key(0), args.bodies)
    )
    states, history = train.fit(
        train.make_step(train.supervised(model, losses.cross_entropy), tx),
        states,
        others,
        epochs=args.epochs,
        batch_size=32,
        compile=not args.no_compile,
    )
    console.print(
        f"Model A: training loss {history['loss'][-1].mean():.3f} over {args.bodies} seeds."
    )
    return states.params


def images(task: Task, picks: Tensor, name: str) -> Draws:
    return Draws(name, task.pool.inputs[picks], task.pool.targets[picks])


def compare(
    model_a: Any,
    bodies: dict[str, Tensor],
    task: Task,
    draws: Draws,
    steps: Any,
    args: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Train scratch and transfer on the same images, and measure both after each count of steps."""
    seeds, tx = len(draws.inputs), optim.sgd(lr=LR)
    keys = random.split(random.key(1), seeds)
    whole = transfer.replace_head(model_a, 1)
    frozen = transfer.freeze(whole, transfer.by_depth(whole, -1))
    first = transfer.freeze(whole, transfer.by_depth(whole, 1))
    body = {name: x[torch.arange(seeds) % args.bodies] for name, x in bodies.items()}

    scratch = vmap(lambda key: train.init(whole, tx, key, **HE))(keys)
    reused = vmap(lambda key, source: transfer.init(frozen, tx, key, source))(keys, body)
    reused = walk(frozen, tx, reused, draws, FROZEN_STEPS, args)
    reused = transfer.carry_over(reused, first, tx)
    rows = []
    for count in steps:
        scratch = walk(whole, tx, scratch, draws, count, args)
        # The book's transfer has 10 steps more than its scratch, all others as many.
        reused = walk(first, tx, reused, draws, max(count, FROZEN_STEPS + BOOK_STEPS), args)
        accuracies = [
            train.evaluate(model, state, task.test, {"accuracy": binary_accuracy()})
            for model, state in ((whole, scratch), (first, reused))
        ]
        alone, moved = (found["accuracy"] for found in accuracies)
        rows.append(
            {
                "images": draws.name,
                "steps": count,
                "scratch": spread(alone),
                "scratch_5_percent": alone.quantile(0.05).item(),
                "share_below_the_book": (alone < BOOK_SCRATCH).double().mean().item(),
                "transfer": spread(moved),
                "gain": spread(moved - alone),
                "values": (alone, moved),
            }
        )
    return rows


def walk(
    model: Any, tx: Any, states: Any, draws: Draws, until: int, args: argparse.Namespace
) -> Any:
    """Take full-batch steps, every seed on its own images, until `until` have been taken."""
    loss = train.supervised(model, losses.binary_cross_entropy_with_logits)
    step = vmap(train.make_step(loss, tx))
    run = step if args.no_compile else fdnn.jit(step)
    for _ in range(int(states.count.max()), until):
        states, _ = run(states, (draws.inputs, draws.targets))
    return states


def show(arms: list[list[dict[str, Any]]]) -> None:
    table = Table(
        "images", "steps", "scratch", "5 % quantile", "below 71.6 %", "transfer", "gain, 95 %"
    )
    for row in [row for arm in arms for row in arm]:
        scratch, gain = row["scratch"], row["gain"]
        table.add_row(
            row["images"],
            str(row["steps"]),
            f"{scratch['mean']:.3f} ({scratch['min']:.3f} to {scratch['max']:.3f})",
            f"{row['scratch_5_percent']:.3f}",
            f"{row['share_below_the_book']:.1%}",
            f"{row['transfer']['mean']:.3f}",
            f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})",
        )
    console.print(table)
    console.print(
        f"Printed: {BOOK_SCRATCH:.1%} from scratch (20 steps), "
        f"{BOOK_TRANSFER:.1%} by transfer (30)."
    )


def plot(arms: list[list[dict[str, Any]]], args: argparse.Namespace) -> None:
    """Draw the two distributions of the book's protocol, and the gain by steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    bins = torch.linspace(0.5, 1.0, 51).tolist()
    for i, (label, values) in enumerate(
        zip(("scratch, 20 steps", "transfer, 30"), arms[0][0]["values"], strict=True)
    ):
        left.hist(values.tolist(), bins, alpha=0.6, color=f"C{i}", label=label)
    for value in (BOOK_SCRATCH, BOOK_TRANSFER):
        left.axvline(value, color="black", ls=":")
    left.set(xlabel="test accuracy", ylabel="seeds", title="the book's 20 images (dotted: printed)")
    left.legend()
    for i, arm in enumerate(arms):
        steps, gains = [row["steps"] for row in arm], [row["gain"] for row in arm]
        right.fill_between(
            steps, [g["low"] for g in gains], [g["high"] for g in gains], color=f"C{i}", alpha=0.3
        )
        right.plot(steps, [g["mean"] for g in gains], "o-", color=f"C{i}", label=arm[0]["images"])
    right.axhline(0.0, color="grey")
    right.set(xscale="log", xlabel="steps", ylabel="paired gain of transfer, mean and 95 %")
    right.legend()
    figure.suptitle(f"Transfer to two classes of Fashion-MNIST: {args.seeds} seeds")
    figure.savefig(args.out / "transfer_learning.png", dpi=120)


if __name__ == "__main__":
    main()
