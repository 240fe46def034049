"""H7: when does dropout help: with few images or many, and how much slower does it learn?

    python examples/chapter/h07_dropout_by_data.py            # 3 sizes x 3 rates, 10 seeds each
    python examples/chapter/h07_dropout_by_data.py --fast

Trains the net 784-100-100-100-10 on 1,000, 5,000 and 55,000 images until its validation accuracy no
longer grows, with dropout of rate 0, 0.2 and 0.5 before each linear layer. The rate is a swept
number, like the learning rate, so that a size is one program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from _chapter import Claim, parse, publish, run
from _contrast import Contrast, contrast
from _dropout import MEASURES, chosen, classifier, experiment
from _fashion_mnist import load

from fdnn import data, optim, study, train

PROTOCOL = """
The net 784-100-100-100-10 (ReLU, He, biases 0) with dropout before each of its four linear
layers, the inputs too, as in the chapter; SGD with momentum 0.9 in batches of 32, cross-entropy,
constant learning rate. Each seed trains on images of its own: a stretch of the 55,000, from a
random place. An epoch is a pass through them (5 passes of 1,000), at most 60 epochs of 1,000 and
5,000 images, 30 of 55,000; a run ends when its accuracy on the 5,000 validation images has not
grown for 15 epochs (8 of 55,000), and keeps its best epoch. Of every size and rate the learning
rate (0.003, 0.01, 0.03) is chosen by the mean validation accuracy; the numbers are of test. All
rates of a seed share its images, its start and its batches. To converge is to come within half a
point of the run's best validation accuracy for the first time. "In train mode" is the loss that
the steps of a run's last epoch report, "in eval mode" that after it, on up to 2,000 of the run's
training images.
"""

RATES, CLOSE = (0.0, 0.2, 0.5), 0.005
DELTA = 0.003  # accuracy that matters, chosen before any run


class Cell(NamedTuple):
    """What is known of one size and rate, at its best learning rate, by seed."""

    lr: float
    accuracy: Any
    loss: Any
    images: Any  # seen until it has converged
    train_mode: Any
    eval_mode: Any
    valid_loss: Any
    valid_accuracy: Any


def main() -> None:
    args = parse(__doc__, seeds=10)
    splits, _ = load(args)
    total = len(splits.train.targets)
    sizes = {f"{n // 1000}k": n for n in (1000, 5000, total) if n <= total}
    arms = {
        name: {
            "images": n,
            "passes": max(1, 5000 // n),
            "epochs": 2 if args.fast else (60 if n <= 5000 else 30),
            "patience": 15 if n <= 5000 else 8,
            "width": 100,
            "batch_size": 32,
            "momentum": 0.9,
        }
        for name, n in sizes.items()
    }

    def build(patience: int, momentum: float, **settings: Any) -> study.Experiment:
        stop = train.early_stopping("valid_accuracy", patience=patience, mode="max")
        return experiment(
            splits,
            optim.sgd(lr=0.01, momentum=momentum),
            optim.set_hyperparams,
            parts=("valid",),
            monitors={"stop": stop},
            **settings,
        )

    rates = [0.03] if args.fast else [0.003, 0.01, 0.03]
    found = run(
        args,
        "sizes",
        build,
        arms=arms,
        sweep={"p": list(RATES), "lr": rates},
        keep_parameters=True,
    )
    cells = {
        (name, p): read(found, splits.test, classifier(splits, arm["width"]), name, p, arm)
        for name, arm in arms.items()
        for p in RATES
    }
    publish(
        args,
        title="H7. Dropout by the number of images",
        protocol=PROTOCOL,
        claims=claims(cells, list(arms)),
        tables={"At the best learning rate, mean ± standard deviation over seeds": table(cells)},
        figure=draw(cells, arms, args.seeds),
        studies=[found],
    )


def read(
    found: study.Study, test: data.Batch, model: Any, arm: str, p: float, settings: dict[str, Any]
) -> Cell:
    """Read what a size and rate came to, and measure it on the test images."""
    cell = chosen(found, arm, p=p)
    params, buffers = found.parameters(arm, **cell)
    seeds = len(found.seeds)
    state = train.TrainState(params, buffers, {}, torch.zeros(seeds, 2), torch.zeros(seeds))
    scores = {name: x.numpy() for name, x in train.evaluate(model, state, test, MEASURES).items()}
    at, curves = found.cells.index(cell), found.arms[arm].curves
    valid, steps = curves["valid_accuracy"][:, at], curves["loss"][:, at]
    converged = (valid >= np.nanmax(valid, axis=0) - CLOSE).argmax(0) + 1
    last = (~np.isnan(steps)).sum(0) - 1
    in_train_mode = steps[last, np.arange(seeds)]
    in_eval_mode = curves["train_loss"][last, at, np.arange(seeds)]
    return Cell(
        cell["lr"],
        scores["accuracy"].astype(float),
        scores["loss"].astype(float),
        converged * settings["images"] * settings["passes"],
        in_train_mode,
        in_eval_mode,
        found.values("valid_loss", arm, **cell),
        found.values("valid_accuracy", arm, **cell),
    )


def claims(cells: dict[tuple[str, float], Cell], sizes: list[str]) -> list[Claim]:
    """Judge what the chapter says of dropout."""
    dropped = RATES[1:]

    def best(size: str) -> float:
        return max(dropped, key=lambda p: cells[size, p].valid_accuracy.mean())

    def accuracy(size: str, p: float) -> Any:
        return cells[size, p].accuracy

    def gap(size: str, p: float) -> Any:
        return cells[size, p].train_mode - cells[size, p].eval_mode

    def gain(size: str, p: float) -> Any:
        return accuracy(size, p) - accuracy(size, 0.0)

    few, many = sizes[0], sizes[-1]
    slower = "; ".join(
        f"{size}, {p}: "
        f"{2 ** (doublings(cells[size, p]) - doublings(cells[size, 0.0])).mean():.1f} times"
        for size in sizes
        for p in dropped
    )
    slow = contrast(
        "Dropout slows learning down. (Doublings of the images seen until converged, each at its "
        "own learning rate; held to matter from half a doubling on.)",
        {
            f"there are {size} images and the rate is {p}": Contrast(
                f"rate {p}", doublings(cells[size, p]), "none", doublings(cells[size, 0.0])
            )
            for size in sizes
            for p in dropped
        },
        delta=0.5,
        points=False,
    )
    return [
        contrast(
            "Dropout makes a net more accurate, typically by a point or two. (Printed for rate 0.2 "
            "on 55,000 images after 10 epochs: .8680 of validation, without .8614.) The better of "
            "both rates by validation, against none.",
            {
                f"there are {size} images": Contrast(
                    f"rate {best(size)}", accuracy(size, best(size)), "none", accuracy(size, 0.0)
                )
                for size in sizes
            },
            delta=DELTA,
        ),
        contrast(
            "The more a net overfits, the more dropout it needs; one that underfits needs less. "
            f"(The gain of test accuracy over no dropout with {few} images, against {many}.)",
            {
                f"the rate is {p}": Contrast(
                    f"gain with {few}", gain(few, p), f"with {many}", gain(many, p)
                )
                for p in dropped
            },
            delta=DELTA,
        ),
        slow._replace(measured=f"Images seen, of those without dropout: {slower}. {slow.measured}"),
        contrast(
            "The training loss that is reported with dropout on misleads: measured with dropout "
            "off it is lower. (Printed of accuracy: .8849 off, .8552 on.) The difference on − off "
            "at rate 0.2, against no dropout, where it shows no more than that the net learned.",
            {
                f"there are {size} images": Contrast(
                    "on − off at rate 0.2", gap(size, 0.2), "at none", gap(size, 0.0)
                )
                for size in sizes
            },
            delta=0.02,
            points=False,
        ),
    ]


def doublings(cell: Cell) -> Any:
    return np.log2(cell.images)


def table(cells: dict[tuple[str, float], Cell]) -> list[list[str]]:
    def spread(x: Any, digits: str = ".3f") -> str:
        return f"{x.mean():{digits}} ± {x.std(ddof=1):{digits}}"

    head = ["images", "dropout", "learning rate", "test accuracy, %", "test loss"]
    head += ["images seen to converge", "train loss, train mode", "eval mode", "validation loss"]
    return [
        head,
        *(
            [
                size,
                f"{p:g}",
                f"{cell.lr:g}",
                spread(100 * cell.accuracy, ".2f"),
                spread(cell.loss),
                spread(cell.images, ",.0f"),
                spread(cell.train_mode),
                spread(cell.eval_mode),
                spread(cell.valid_loss),
            ]
            for (size, p), cell in cells.items()
        ),
    ]


def draw(cells: dict[tuple[str, float], Cell], arms: dict[str, Any], seeds: int) -> plt.Figure:
    """Draw what dropout gains, and what it costs, against the number of images."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    x = np.array([arm["images"] for arm in arms.values()])
    for i, p in enumerate(RATES):
        label = f"dropout {p:g}" if p else "no dropout"
        seen = np.array([cells[size, p].images for size in arms])
        place = x * 1.06 ** (i - 1)
        right.plot(place, np.median(seen, 1), "o-", color=f"C{i}", label=label)
        right.plot(place, seen, ".", color=f"C{i}", alpha=0.4)
        if not p:
            left.axhline(0, color="C0", label=label)
            continue
        gains = [100 * (cells[size, p].accuracy - cells[size, 0.0].accuracy) for size in arms]
        found = [study.summarize(gain) for gain in gains]
        mean = np.array([one.mean for one in found])
        reach = np.abs(np.array([one.t_interval for one in found]).T - mean)
        left.errorbar(place, mean, yerr=reach, fmt="o-", color=f"C{i}", capsize=4, label=label)
        left.plot(place, gains, ".", color=f"C{i}", alpha=0.4)
    for ax in (left, right):
        ax.set(xscale="log", xlabel="images to train on")
        ax.set_xticks(x, [f"{n:,}" for n in x])
        ax.minorticks_off()
        ax.legend()
    left.set_ylabel("test accuracy over no dropout, points\n(dots: seeds; bars: 95 % of the mean)")
    right.set(yscale="log", ylabel="images seen until converged\n(dots: seeds; line: median)")
    figure.suptitle(f"Fashion-MNIST, 784-100-100-100-10, SGD with momentum, {seeds} seeds")
    return figure


if __name__ == "__main__":
    main()
