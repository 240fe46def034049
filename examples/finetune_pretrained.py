"""Fine-tune a pretrained reader of printed text on a few handwritten digits, in seven ways.

    pip install 'fdnn-torch[examples,finetune]'
    python examples/finetune_pretrained.py
    python examples/finetune_pretrained.py --fast

The package `legere` (MIT, 360 k parameters, 1.4 MB) ships a convolutional recurrent network that
reads printed lines; it was trained on synthetic pages and has seen no handwriting. Here it is
fine-tuned on 10, 30 and 100 of scikit-learn's digits:

- from scratch: the same architecture, drawn anew;
- frozen base: a new head alone, or one that begins with the ten digits' rows of the old head;
- LoRA: rank 4 on the pointwise and the recurrent weights, and a new head;
- gradual unfreezing: the head, then the recurrent layer, then the upper blocks, then all;
- discriminative rates: all is trained, lower parts by smaller steps;
- full fine-tuning.

All arms take the same images, the same batches and as many steps, AdamW, every seed a lane. The
learning rate of each arm is the best of three on validation images, for seeds that are not
reported. Prints accuracy on the test images with 95 % intervals (Student's t), the paired
difference to scratch, trained parameters, the optimizer's state and seconds a step (medians over
rounds taken in turns); writes `finetune_pretrained.json` and `finetune_pretrained.png`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from _fashion_mnist import console, spread
from _printed_text import DIGITS, names, place, pretrained
from rich.table import Table
from torch import Tensor, vmap

from fdnn import Model, data, losses, metrics, optim, random, train, transfer, tree

BATCH, TUNING_SEEDS = 10, 2
RATES = (1e-3, 3e-3, 1e-2)


class Arm(NamedTuple):
    """A way to train: models that follow each other, an optimizer by its rate, where to begin."""

    name: str
    phases: list[Model]
    optimizer: Callable[[Any], Any]
    source: dict[str, Tensor] | None


class Draws(NamedTuple):
    """The labelled images of every seed, `(seeds, n, ...)`, and the keys of the runs."""

    inputs: Tensor
    targets: Tensor
    keys: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6, help="runs of each arm, made at once")
    parser.add_argument("--steps", type=int, default=80, help="steps of each run")
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[10, 30, 100], help="multiples of 10"
    )
    parser.add_argument("--arms", nargs="+", help="some arms, by name, beside scratch; else all")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where results are written")
    parser.add_argument("--fast", action="store_true", help="a small part, to see that it runs")
    args = parser.parse_args()
    if args.seeds < 1 or args.steps < 1:
        parser.error(f"--seeds and --steps must be at least 1, got {args.seeds}, {args.steps}")
    if wrong := [count for count in args.labels if count < BATCH or count % 10]:
        parser.error(f"--labels must be multiples of 10, as many of each digit, got {wrong}")
    rates = RATES
    if args.fast:
        args.seeds, args.steps, args.labels, rates = min(args.seeds, 2), 8, [10], (3e-3,)
    args.out.mkdir(parents=True, exist_ok=True)

    splits = data.Splits(*(data.Batch(place(x), y) for x, y in data.digits()))
    base, source = pretrained()
    read = base.apply(base.params, base.buffers, splits.test.inputs)[0][:, DIGITS]
    zero_shot = (read.argmax(1) == splits.test.targets).float().mean().item()
    console.print(f"Without a label the reader reads {zero_shot:.3f} of the test digits.")

    arms, results = make_arms(base, source), []
    if args.arms:
        known = [arm.name for arm in arms]
        if unknown := [name for name in args.arms if name not in known]:
            parser.error(f"--arms must be among {known}, got {unknown}")
        arms = [arm for arm in arms if arm.name in ("scratch", *args.arms)]
    rate = {arm.name: choose(arm, splits, rates, args) for arm in arms}
    for count in args.labels:
        draws = draw(splits.train, random.split(random.key(1), args.seeds), count)
        accuracy = {}
        for arm in arms:
            states = run(arm, draws, torch.full((args.seeds,), rate[arm.name]), args.steps)[-1]
            accuracy[arm.name] = measure(arm, states, splits.test)
            results.append(
                {
                    "arm": arm.name,
                    "labels": count,
                    "rate": rate[arm.name],
                    "accuracy": spread(accuracy[arm.name]),
                    "to_scratch": spread(accuracy[arm.name] - accuracy["scratch"]),
                }
            )
    costs = price(arms, draws)
    show(results, costs, args)
    plot(results, costs, zero_shot, args)
    whole = {"zero_shot": zero_shot, "results": results, "costs": costs}
    (args.out / "finetune_pretrained.json").write_text(json.dumps(whole, indent=2) + "\n")
    console.print(f"Wrote {args.out}/finetune_pretrained.json and .png.")


def make_arms(base: Model, source: dict[str, Tensor]) -> list[Arm]:
    model = transfer.replace_head(base, 10)
    waiting = [name for part in ("lower", "upper", "rnn") for name in names(model)[part]]
    head = transfer.freeze(model, waiting)
    above = transfer.unfreeze(head, names(model)["rnn"])
    upper = transfer.unfreeze(above, names(model)["upper"])
    rows = {name: source[name][DIGITS] for name in names(model)["head"]}
    adapted = transfer.lora(model, 4, 8.0, where=["*.pointwise.weight", "crnn.rnn.weight_*"])
    adapted = transfer.unfreeze(adapted, "crnn.head.*")

    def discriminative(rate: Any) -> Any:
        return transfer.discriminative(lambda lr: optim.adamw(lr=lr), rate, names(model))

    def adamw(rate: Any) -> Any:
        return optim.adamw(lr=rate)

    return [
        Arm("scratch", [model], adamw, None),
        Arm("frozen base", [head], adamw, source),
        Arm("frozen base, digits' rows", [head], adamw, {**source, **rows}),
        Arm("LoRA", [adapted], adamw, source),
        Arm("gradual unfreezing", [head, above, upper, model], adamw, source),
        Arm("discriminative rates", [model], discriminative, source),
        Arm("full fine-tuning", [model], adamw, source),
    ]


def draw(pool: data.Batch, keys: Tensor, count: int) -> Draws:
    """Draw each seed's labelled images, as many of each digit."""
    each = [(pool.targets == digit).nonzero()[:, 0] for digit in range(10)]

    def pick(key: Tensor) -> Tensor:
        of_digit = random.split(random.fold_in(key, 1), 10)
        chosen = [
            random.permutation(k, rows)[: count // 10]
            for k, rows in zip(of_digit, each, strict=True)
        ]
        return torch.cat(chosen)

    picks = torch.stack([pick(key) for key in keys])
    return Draws(pool.inputs[picks], pool.targets[picks], keys)


def run(arm: Arm, draws: Draws, rates: Tensor, steps: int) -> list[train.TrainState]:
    """Train every lane at its own rate, an equal share of the steps in each phase.

    Returns the stacked states after each phase.
    """
    states, found = begin(arm, draws, rates), []
    for phase, model in enumerate(arm.phases):
        if phase:
            states = transfer.carry_over(states, model, arm.optimizer(RATES[0]))
            # AdamW's averages start anew with the parameters that have just been released.
            states = vmap(lambda s, rate: s._replace(opt_state=arm.optimizer(rate).init(s.params)))(
                states, rates
            )
        step = stepper(arm, model)
        for count in range(
            phase * steps // len(arm.phases), (phase + 1) * steps // len(arm.phases)
        ):
            states, _ = step(states, batch(draws, count))
        found.append(states)
    return found


def begin(arm: Arm, draws: Draws, rates: Tensor) -> train.TrainState:
    model = arm.phases[0]

    def one(key: Tensor, rate: Tensor) -> train.TrainState:
        tx = arm.optimizer(rate)
        if arm.source is None:
            return train.init(model, tx, key)
        return transfer.init(model, tx, key, arm.source)

    return vmap(one)(draws.keys, rates)


def stepper(arm: Arm, model: Model) -> Any:
    # Eager: to compile seven arms takes longer than to train them.
    loss = train.supervised(model, losses.cross_entropy)
    return vmap(train.make_step(loss, arm.optimizer(RATES[0])))


def batch(draws: Draws, count: int) -> tuple[Tensor, Tensor]:
    """Draw the batch of a step: for each lane from its own images, the same for all arms."""

    def one(key: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        chosen = random.permutation(random.fold_in(key, 2 + count), len(targets))[:BATCH]
        return inputs[chosen], targets[chosen]

    return vmap(one)(draws.keys, draws.inputs, draws.targets)


def choose(arm: Arm, splits: data.Splits, rates: tuple[float, ...], args: Any) -> float:
    """Find the best rate on validation images, all rates and seeds as lanes of one run."""
    if len(rates) == 1:
        return rates[0]
    seeds = random.split(random.key(2), TUNING_SEEDS)
    draws = draw(
        splits.train,
        seeds.repeat_interleave(len(rates), 0),
        sorted(args.labels)[len(args.labels) // 2],
    )
    states = run(arm, draws, torch.tensor(rates).repeat(TUNING_SEEDS), args.steps)[-1]
    found = measure(arm, states, splits.valid).reshape(TUNING_SEEDS, -1).mean(0)
    return rates[int(found.argmax())]


def measure(arm: Arm, states: train.TrainState, split: data.Batch) -> Tensor:
    found = train.evaluate(arm.phases[-1], states, split, {"accuracy": metrics.accuracy()})
    return found["accuracy"]


def price(arms: list[Arm], draws: Draws, rounds: int = 5) -> dict[str, dict[str, float]]:
    """Say what each arm costs; seconds of a step are the medians over rounds, phases averaged."""
    rates = torch.full((len(draws.keys),), RATES[0])
    started = {arm.name: run(arm, draws, rates, len(arm.phases)) for arm in arms}
    seconds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for _ in range(rounds):
        for arm in arms:
            taken = 0.0
            for model, states in zip(arm.phases, started[arm.name], strict=True):
                step, now = stepper(arm, model), batch(draws, 0)
                start = time.perf_counter()
                step(states, now)
                taken += time.perf_counter() - start
            seconds[arm.name].append(taken / len(arm.phases))
    costs = {}
    for arm in arms:
        one = tree.map(lambda leaf: leaf[0], started[arm.name][-1])
        costs[arm.name] = {
            "trained": sum(leaf.numel() for leaf in tree.leaves(one.params)),
            "state_bytes": sum(x.numel() * x.element_size() for x in tree.leaves(one.opt_state)),
            "seconds": statistics.median(seconds[arm.name]),
        }
    return costs


def show(results: list[dict[str, Any]], costs: dict[str, Any], args: argparse.Namespace) -> None:
    columns = [f"{count} labels" for count in args.labels]
    for title, which, sign in (
        ("Test accuracy, mean and 95 %", "accuracy", ""),
        ("Paired difference to scratch, mean and 95 %", "to_scratch", "+"),
    ):
        table = Table("arm", "rate", *columns, title=title)
        for name in costs:
            rows = [row for row in results if row["arm"] == name]
            cells = [
                f"{x['mean']:{sign}.3f} ({x['low']:{sign}.3f} to {x['high']:{sign}.3f})"
                for x in (row[which] for row in rows)
            ]
            table.add_row(name, f"{rows[0]['rate']:g}", *cells)
        console.print(table)
    table = Table("arm", "trained", "optimizer's state", f"seconds a step, {args.seeds} seeds")
    for name, cost in costs.items():
        kilobytes = f"{cost['state_bytes'] / 1024:,.0f} KiB"
        table.add_row(name, f"{cost['trained']:,}", kilobytes, f"{cost['seconds']:.3f}")
    console.print(table)


def plot(
    results: list[dict[str, Any]], costs: dict[str, Any], zero_shot: float, args: argparse.Namespace
) -> None:
    """Draw accuracy by the number of labels, and by the number of trained parameters."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    most = max(args.labels)
    for i, (name, cost) in enumerate(costs.items()):
        rows = [row for row in results if row["arm"] == name]
        found = [row["accuracy"] for row in rows]
        where = [row["labels"] * 1.03 ** (i - 3) for row in rows]  # apart, so that all are seen
        errors = [[x["mean"] - x["low"] for x in found], [x["high"] - x["mean"] for x in found]]
        left.errorbar(
            where,
            [x["mean"] for x in found],
            errors,
            fmt="o-",
            capsize=3,
            color=f"C{i}",
            label=name,
        )
        last = next(row["accuracy"] for row in rows if row["labels"] == most)
        error = [[last["mean"] - last["low"]], [last["high"] - last["mean"]]]
        right.errorbar(
            cost["trained"] * 1.06 ** (i - 3),
            last["mean"],
            error,
            fmt="o",
            capsize=3,
            color=f"C{i}",
        )
    for axes in (left, right):
        axes.axhline(zero_shot, color="black", ls=":")
        axes.set(xscale="log", ylabel="test accuracy, mean and 95 %")
    left.set(xlabel="labelled images", title="dotted: the reader as it is, without a label")
    left.set_xticks(args.labels, [str(count) for count in args.labels])
    left.minorticks_off()
    left.legend(fontsize="small")
    right.set(xlabel="trained parameters", title=f"{most} labels")
    figure.suptitle(
        f"A reader of printed text, fine-tuned on handwritten digits: {args.seeds} seeds, "
        f"{args.steps} steps"
    )
    figure.savefig(args.out / "finetune_pretrained.png", dpi=120)


if __name__ == "__main__":
    main()
