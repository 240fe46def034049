"""Ask what Monte Carlo dropout changes: the chapter's three images, and then the whole test set.

    python examples/mc_dropout.py            # 10 seeds, trained and sampled at once
    python examples/mc_dropout.py --fast

The chapter trains 784-100-100-10 with dropout 0.2 before each linear layer for 10 epochs, predicts
three images 100 times with dropout active, and prints the mean probability of the predicted class
and its standard deviation. Its text does not say which images these are. torch's `random_split` of
the training file with seed 42 puts a sneaker, a coat and a pullover first among its validation
images; they fit what is printed, while the first three of the test set do not (a pair of trousers
comes third, and no net doubts those). They are left out of training here.

Then the test set: accuracy, negative log-likelihood, calibration error and mean confidence of the
same networks without dropout (deterministic), of averaged probabilities, and of averaged logits,
over the seeds, and the paired differences with their 95 % intervals (Student's t). Writes
`mc_dropout.json` and `mc_dropout.png`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import matplotlib.pyplot as plt
import torch
from _classifiers import head, trained, with_dropout
from _fashion_mnist import add_arguments, console, load, parse, spread
from rich.table import Table
from torch import Tensor, vmap

from fdnn import data, random, study, train, uncertainty

CHAPTER = (55_299, 34_709, 13_174)  # of the training file
PRINTED = {  # by run of the chapter's notebook: probability and standard deviation of each image
    "May 2025": ((0.97, 0.06), (0.99, 0.02), (0.50, 0.16)),
    "March 2026": ((0.99, 0.02), (0.99, 0.02), (0.41, 0.17)),
}
ALONE, PROBS, LOGITS = "deterministic", "averaged probabilities", "averaged logits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=10, epochs=10)
    parser.add_argument("--samples", type=int, default=100, help="predictions of each image")
    args = parse(parser, fast_seeds=3)
    splits, name = load(args, fast_images=55_000)
    if name != "Fashion-MNIST":
        raise SystemExit("this example needs Fashion-MNIST")
    three, splits = apart(splits)
    if args.fast:
        args.samples = min(args.samples, 30)
        splits = splits._replace(train=head(splits.train, 4000), test=head(splits.test, 500))
    model, state = trained(splits, args, dropout=0.2, runs=args.seeds)

    members = with_dropout(
        model,
        state,
        three.inputs,
        lambda logits: logits.softmax(-1).movedim(0, 1),
        key=random.key(1),
        num_samples=args.samples,
    ).movedim(2, 1)  # (seeds, samples, images, classes)
    images = [image(members[:, :, i], i, int(three.targets[i])) for i in range(len(three.targets))]
    show_images(images, args)

    probs = predictives(model, state, splits.test.inputs, args)
    values = {way: vmap(scores, (0, None))(p, splits.test.targets) for way, p in probs.items()}
    rows = [row(way, metric, values) for way in values for metric in values[way]]
    show_scores(rows, len(splits.test.targets))
    plot(members, three, probs, splits.test.targets, args)
    (args.out / "mc_dropout.json").write_text(
        json.dumps({"images": images, "test": rows}, indent=2) + "\n"
    )
    console.print(f"Wrote {args.out}/mc_dropout.json and .png.")


def apart(splits: data.Splits) -> tuple[data.Batch, data.Splits]:
    """Take the three images out of the training file."""
    both = data.Batch(*(torch.cat(parts) for parts in zip(splits.train, splits.valid, strict=True)))
    three = data.Batch(*(part[list(CHAPTER)] for part in both))
    kept = torch.ones(len(splits.train.targets), dtype=torch.bool)
    kept[[place for place in CHAPTER if place < len(kept)]] = False
    return three, splits._replace(train=data.Batch(*(part[kept] for part in splits.train)))


def image(members: Tensor, number: int, target: int) -> dict[str, Any]:
    """Say of one image what the chapter prints; `members` is `(seeds, samples, classes)`."""
    mean, std = members.mean(1), members.std(1)
    top, predicted = mean.max(-1)
    return {
        "class": data.FASHION_MNIST_CLASSES[target],
        "seeds_right": int((predicted == target).sum()),
        "probability": spread(top),
        "std": spread(std.gather(1, predicted[:, None])[:, 0]),
        "entropy": spread(uncertainty.predictive_entropy(mean)),
        "mutual_information": spread(vmap(uncertainty.mutual_information)(members)),
        "printed": {run: figures[number] for run, figures in PRINTED.items()},
    }


def predictives(
    model: Any, state: train.TrainState, inputs: Tensor, args: argparse.Namespace
) -> dict[str, Tensor]:
    """Return the probabilities of each way to predict, `(seeds, images, classes)`."""

    def averaged(outputs: Tensor) -> dict[str, Tensor]:
        return {
            PROBS: uncertainty.categorical(outputs).probs,
            LOGITS: uncertainty.categorical(outputs, "logits").probs,
        }

    sampled: dict[str, Tensor] = with_dropout(
        model, state, inputs, averaged, key=random.key(2), num_samples=args.samples
    )
    return {ALONE: train.predict(model, state, inputs).softmax(-1), **sampled}


def scores(probs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    confidence = uncertainty.max_probability(probs).mean()
    accuracy = (probs.argmax(-1) == targets).to(probs.dtype).mean()
    return {
        "accuracy": accuracy,
        "nll": uncertainty.nll(probs, targets),
        "ece": uncertainty.expected_calibration_error(probs, targets),
        "confidence - accuracy": confidence - accuracy,
    }


def row(way: str, metric: str, values: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
    """Give a score of one way over the seeds, and how it differs from the deterministic one."""
    found: dict[str, Any] = {"way": way, "metric": metric, **spread(values[way][metric])}
    if way != ALONE and len(values[way][metric]) > 1:
        compared = study.compare(values[way][metric], values[ALONE][metric])
        found["difference"] = [compared.difference, *compared.t_interval]
    return found


def show_images(images: list[dict[str, Any]], args: argparse.Namespace) -> None:
    table = Table("image", "right", "probability, range of seeds", "its std", *PRINTED)
    for one in images:
        mean, std = one["probability"], one["std"]
        table.add_row(
            one["class"],
            f"{one['seeds_right']} of {args.seeds}",
            f"{mean['mean']:.2f} ({mean['min']:.2f} to {mean['max']:.2f})",
            f"{std['mean']:.2f} ({std['min']:.2f} to {std['max']:.2f})",
            *(f"{p:.2f}, {s:.2f}" for p, s in one["printed"].values()),
        )
    console.print(table)


def show_scores(rows: list[dict[str, Any]], count: int) -> None:
    table = Table(
        "prediction", "score", "mean, 95 %", "minus deterministic, 95 %", title=f"{count} images"
    )
    for one in rows:
        gain = one.get("difference")
        table.add_row(
            one["way"],
            one["metric"],
            f"{one['mean']:.4f} ({one['low']:.4f} to {one['high']:.4f})",
            "" if gain is None else "{:+.4f} ({:+.4f} to {:+.4f})".format(*gain),
        )
    console.print(table)


def plot(
    members: Tensor,
    three: data.Batch,
    probs: dict[str, Tensor],
    targets: Tensor,
    args: argparse.Namespace,
) -> None:
    """Draw the first seed's probabilities of each image, and the reliability of each way."""
    figure = plt.figure(figsize=(13, 8), layout="constrained")
    grid = figure.add_gridspec(2, 6)
    for i, target in enumerate(three.targets.tolist()):
        ax = figure.add_subplot(grid[0, 2 * i : 2 * i + 2])
        uncertainty.plot_probabilities(
            members[0, :, i], ax, class_names=data.FASHION_MNIST_CLASSES, target=target
        )
        ax.set_title(f"{data.FASHION_MNIST_CLASSES[target]}, seed 0: mean, 5 to 95 % of samples")
        corner = ax.inset_axes((0.02, 0.62, 0.22, 0.36) if target > 4 else (0.76, 0.62, 0.22, 0.36))
        corner.imshow(three.inputs[i], cmap="gray")
        corner.set_axis_off()
    for i, (way, found) in enumerate(probs.items()):
        ax = figure.add_subplot(grid[1, 2 * i : 2 * i + 2])
        uncertainty.plot_reliability(vmap(uncertainty.reliability, (0, None))(found, targets), ax)
        ax.set_title(way)
    figure.suptitle(f"Monte Carlo dropout, {args.samples} samples, {args.seeds} seeds")
    figure.savefig(args.out / "mc_dropout.png", dpi=110)


if __name__ == "__main__":
    main()
