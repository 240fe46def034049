"""H1: did transfer learning do it? T-shirts against pullovers with 20 labelled images.

    python examples/chapter/h01_transfer.py            # 200 seeds
    python examples/chapter/h01_transfer.py --fast

The chapter prints one seed: 71.6 % from scratch, 92.5 % by transfer. Here are the distributions
that these figures are from; the same with as many steps, with other images, with more labels; and
with bodies trained as autoencoders. `_transfer_runs.py` has the runs, `_transfer_findings.py` says
what they mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from _chapter import parse, publish, run
from _fashion_mnist import load
from _transfer_findings import ByCount, Findings, claims, draw, tables
from _transfer_runs import autoencoder, eight_classes, two_classes
from _two_classes import divide
from torch import Tensor

from fdnn import data, study

PROTOCOL = """
Model A, 784-100-100-100-8 (ReLU, He), learns eight classes of Fashion-MNIST: 49 000 images, SGD at
0.005, batches of 32, 20 epochs. Model B tells T-shirts from pullovers by labelled images, of the
5 000 of these classes that come first; it is tested on the 9 000 that follow. "Transfer" is A's
body and a new head (torch's default start): 10 steps of the head alone, then all layers but the
first. "Head only" keeps the body frozen. "Scratch" trains all layers from He's start. All steps are
full-batch SGD. Every seed has its own start, and its own images where they are drawn; the arms of a
seed share the images. There are 20 bodies of each kind, and seeds that share one are not
independent: the seeds of each body are averaged first, and t tests and intervals are over bodies.

The rate is the chapter's, 0.005; in the study of labels (200 steps; 100, 60 and 40 seeds) each arm
also has its best of 0.005, 0.015, 0.05, 0.15 and 0.5, by the mean accuracy on 1 000 other images of
the pool. The autoencoder (784-100-100-100-100-100-784, Adam at 0.001, batches of 128, 10 epochs,
squared error) sees A's images and the pool's, without labels. Families of comparisons are corrected
by Holm. "Equal" means within half a point, a margin set before any run.
"""
SCRATCH = {"start": "scratch", "trained": "all"}
TRANSFER = {"start": "A", "trained": "head, then all but the first"}
HEAD = {"start": "A", "trained": "head"}
THREE = {"scratch": SCRATCH, "transfer": TRANSFER, "head only": HEAD}
FIVE = THREE | {
    "autoencoder": TRANSFER | {"start": "autoencoder"},
    "autoencoder, head only": HEAD | {"start": "autoencoder"},
}
RATES = [0.005, 0.015, 0.05, 0.15, 0.5]
LABELS = {20: 100, 100: 60, 500: 40}  # and how many seeds, of 200


def main() -> None:
    args = parse(__doc__, seeds=200)
    args.bodies = 2 if args.fast else min(20, args.seeds)
    splits, name = load(args, fast_images=55_000)
    if name != "Fashion-MNIST":
        raise SystemExit("this study needs Fashion-MNIST")
    others, task = divide(splits)
    if args.fast:
        others = data.Batch(*(part[:4000] for part in others))
        task = task._replace(test=data.Batch(*(part[:2000] for part in task.test)))
    test = splits.test._replace(inputs=splits.test.inputs.flatten(1))
    pretrained = {
        "A": pretrain(args, "A", lambda epochs: eight_classes(others, test, epochs), 20),
        "autoencoder": pretrain(
            args, "autoencoder", lambda epochs: autoencoder(others, task, epochs), 10
        ),
    }
    bodies = {name: body(found, name) for name, found in pretrained.items()}
    experiment = two_classes(others, task, bodies)
    studies = [*pretrained.values()]
    by_steps, by_labels, rates = {}, {}, {}
    for images in ("first", "drawn"):
        by_steps[images], some = steps(args, experiment, images)
        studies += some
    for labels, share in LABELS.items():
        one = label_study(args, experiment, labels, max(args.bodies, args.seeds * share // 200))
        by_labels[labels], rates[labels] = at_best(one)
        studies.append(one)
    at_book = {
        labels: {name: arm.results["test_accuracy"][0] for name, arm in one.arms.items()}
        for labels, one in zip(LABELS, studies[-len(LABELS) :], strict=True)
    }
    found = Findings(args.bodies, by_steps, by_labels, at_book, rates)
    first = {count: by_steps["first"][count] for count in (20, 30)}
    publish(
        args,
        title="H1. Transfer to two classes by 20 images",
        protocol=PROTOCOL,
        claims=claims(found),
        tables=tables(found) | {"The bodies": body_rows(pretrained)},
        figure=draw(found),
        studies=studies,
        numbers={
            "the chapter's images, accuracy by seed": {
                f"{name}, {count} steps": values.round(4).tolist()
                for count, arms in first.items()
                for name, values in arms.items()
            }
        },
    )


def pretrain(
    args: argparse.Namespace, name: str, make: Callable[[int], study.Experiment], epochs: int
) -> study.Study:
    """Train bodies, and keep their parameters."""
    arms = {name: {"epochs": epochs // 10 if args.fast else epochs}}
    return run(args, name, make, arms=arms, seeds=args.bodies, keep_parameters=True)


def body(found: study.Study, name: str) -> dict[str, Tensor]:
    """Take the parameters of bodies out of what was trained, under the classifier's names."""
    params, _ = found.parameters(name)
    return {
        path.removeprefix("encoder."): x
        for path, x in params.items()
        if not path.startswith("decoder.")
    }


def steps(
    args: argparse.Namespace, experiment: Callable[..., study.Experiment], images: str
) -> tuple[ByCount, list[study.Study]]:
    """Train on 20 images at the chapter's rate: accuracies by steps, arm and seed."""
    accuracies: ByCount = {}
    studies = []
    for until, every in ((30, 10), (60, 60)) if args.fast else ((60, 10), (1000, 200)):
        shared: dict[str, Any] = {"images": images, "labels": 20, "steps": until, "every": every}
        arms = {name: arm | shared for name, arm in THREE.items()}
        found = run(args, f"20 {images} images, {until} steps", experiment, arms=arms)
        for i in range(until // every):
            accuracies[(i + 1) * every] = {
                name: arm.curves["test_accuracy"][i, 0] for name, arm in found.arms.items()
            }
        studies.append(found)
    return accuracies, studies


def label_study(
    args: argparse.Namespace, experiment: Callable[..., study.Experiment], labels: int, seeds: int
) -> study.Study:
    """Train on drawn images at several rates, which are lanes."""
    count = 15 if args.fast else 200
    shared: dict[str, Any] = {"images": "drawn", "labels": labels, "steps": count, "every": count}
    return run(
        args,
        f"{labels} labels",
        experiment,
        arms={name: arm | shared for name, arm in FIVE.items()},
        seeds=seeds,
        sweep={"lr": RATES[::2] if args.fast else RATES},
    )


def at_best(found: study.Study) -> tuple[dict[str, Any], dict[str, float]]:
    """Choose each arm's rate by validation, where a run that diverged does as well as chance."""
    accuracies, rates = {}, {}
    for name, arm in found.arms.items():
        valid = arm.results["valid_accuracy"].copy()
        valid[arm.diverged] = 0.5
        best = int(valid.mean(1).argmax())
        accuracies[name], rates[name] = arm.results["test_accuracy"][best], found.cells[best]["lr"]
    return accuracies, rates


def body_rows(pretrained: dict[str, study.Study]) -> list[list[str]]:
    """Say how well the bodies do what they were trained for."""
    rows = [["body", "measured on test images", "n", "mean", "sd", "min", "max"]]
    for name, found in pretrained.items():
        for metric in found.metrics():
            s = found.summary(metric)[name]
            spread = [f"{x:.4f}" for x in (s.mean, s.sd, s.min, s.max)]
            rows.append([name, metric.removeprefix("test_"), str(s.n), *spread])
    return rows


if __name__ == "__main__":
    main()
