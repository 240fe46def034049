"""H8: what does max-norm do, alone and with dropout, and does the chapter's setting do anything?

    python examples/chapter/h08_max_norm.py            # 5 radii x 2 rates of dropout, 10 seeds each
    python examples/chapter/h08_max_norm.py --fast

Trains 784-256-256-256-10 on 5,000 images with a high learning rate and much momentum. Radius, rate
of dropout and learning rate are swept numbers, all lanes of one program. A second part repeats the
chapter's own demonstration with a radius of 2.
"""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _chapter import DOES_NOT, HOLDS, OPEN, Claim, judge, parse, publish, run
from _contrast import Contrast, contrast
from _dropout import MEASURES, chosen, experiment, score
from _fashion_mnist import load, stack
from torch import nn

from fdnn import functionalize, initializers, losses, optim, schedules, study, train

PROTOCOL = """
784-256-256-256-10 (ReLU, He, biases 0), dropout before each of the four linear layers, on 5,000
images for 40 passes in batches of 128: SGD with momentum 0.95, its learning rate falling from a
peak to 0 along half a cosine. Each seed trains on images of its own: a stretch of the 55,000,
from a random place. Max-norm r scales every row of a weight matrix that a step carries beyond
norm r back to it. Swept: r in 0.5, 1, 2, 3 and none, dropout 0 and 0.5, peak 0.01, 0.03 and 0.1.
Radius and peak are chosen by the mean validation accuracy after the last pass; the numbers are of
test, no early stopping. Runs of a seed share images, start and batches. "Active" is the fraction
of rows that a step carried outside, mean over steps.

The chapter's setting: 784-100-100-100-10, plain SGD at 0.05 in batches of 32, 3 epochs of 55,000
images, r = 1, 2 and none.
"""

RADII, RATES, PEAKS = (0.5, 1.0, 2.0, 3.0, math.inf), (0.0, 0.5), (0.01, 0.03, 0.1)
DELTA, MARGIN, IDLE = 0.003, 0.002, 0.01  # chosen before any run


def main() -> None:
    args = parse(__doc__, seeds=10)
    splits, _ = load(args)
    settings = {
        "width": 256,
        "images": 1000 if args.fast else 5000,
        "passes": 1 if args.fast else 10,
        "epochs": 1 if args.fast else 4,
        "batch_size": 128,
        "momentum": 0.95,
    }

    def high_rate(momentum: float, **settings: Any) -> study.Experiment:
        per_epoch = -(-settings["images"] * settings["passes"] // settings["batch_size"])
        fall = schedules.cosine_annealing(1.0, T_max=settings["epochs"] * per_epoch)
        tx = optim.chain(
            optim.sgd(lr=0.1, momentum=momentum),
            optim.scale_by_schedule(fall),
            optim.max_norm(math.inf),
        )
        return experiment(splits, tx, optim.set_hyperparams, **settings)

    def demonstration(lr: float, epochs: int) -> study.Experiment:
        model = functionalize(stack(splits, 3, nn.ReLU))
        return study.training(
            model,
            train.supervised(model, losses.cross_entropy),
            optim.chain(optim.sgd(lr=lr), optim.max_norm(math.inf)),
            splits.train,
            epochs=epochs,
            evaluate=train.evaluator(model, MEASURES, valid=splits.valid, test=splits.test),
            weight=initializers.he_uniform(),
            bias=initializers.zeros,
        )

    sweep: dict[str, Any] = {"max_norm": list(RADII), "p": list(RATES), "lr": list(PEAKS)}
    if args.fast:
        sweep = {"max_norm": [0.5, 2.0, math.inf], "p": list(RATES), "lr": [0.03]}
    found = run(args, "high rate", high_rate, arms={"net": settings}, sweep=sweep)
    own = run(
        args,
        "the chapter's setting",
        demonstration,
        arms={"net": {"lr": 0.05, "epochs": 1 if args.fast else 3}},
        seeds=args.seeds if args.fast else 2 * args.seeds,
        sweep={"max_norm": [1.0, 2.0, math.inf]},
    )
    publish(
        args,
        title="H8. Max-norm and dropout",
        protocol=PROTOCOL,
        claims=[no_effect(own), *claims(found)],
        tables={
            "Test accuracy, per cent, at the peak chosen for each radius: mean ± sd": table(found),
            "The chapter's setting": own_table(own),
        },
        figure=draw(found),
        studies=[found, own],
    )


def active(found: study.Study, cell: dict[str, float]) -> Any:
    """The fraction of rows that steps carried outside, mean over the run, by seed."""
    at = found.cells.index(cell)
    return found.arms["net"].curves["max_norm_moved"][:, at].mean(0)


def no_effect(own: study.Study) -> Claim:
    """Whether max-norm with r = 2 does anything in the chapter's setting."""
    bounded, free = (
        own.values("test_accuracy", "net", max_norm=radius) for radius in (2.0, math.inf)
    )
    share, at_1 = (active(own, {"max_norm": radius}).mean() for radius in (2.0, 1.0))
    measured, verdict = judge(study.compare(bounded, free), "r = 2", "none")
    same = study.equivalence(bounded, free, MARGIN)
    if verdict != HOLDS:
        idle = share < IDLE and same.p_value <= 0.05
        verdict = DOES_NOT if idle or verdict == DOES_NOT else OPEN
    losses_ = [
        "/".join(f"{x:.3f}".lstrip("0") for x in own.arms["net"].curves["loss"].mean(2)[:, i])
        for i in (1, 2)
    ]
    return Claim(
        "Max-norm with r = 2 regularizes the chapter's net. (Printed training losses of 3 epochs: "
        ".565/.401/.361 with, .565/.402/.361 without. Rows of He's initialization have norm √2, "
        f"whatever their length. Held not to if fewer than {IDLE:.0%} of rows are active and the "
        f"accuracy is equal to within {100 * MARGIN:g} points.)",
        f"r = 2 is active on {share:.2%} of rows, r = 1 on {at_1:.2%}; training losses "
        f"{losses_[0]} with r = 2, {losses_[1]} without; test accuracy, {measured}, equal to "
        f"within {100 * MARGIN:g} points: p = {same.p_value:.2g}",
        verdict,
    )


def claims(found: study.Study) -> list[Claim]:
    """Judge what is said of max-norm with a high learning rate."""

    def accuracy(cell: dict[str, float]) -> Any:
        return found.values("test_accuracy", "net", **cell)

    def bounded(**fixed: float) -> dict[str, float]:
        cells = [chosen(found, "net", max_norm=r, **fixed) for r in radii if r < math.inf]
        return max(cells, key=lambda cell: score(found, "net", cell))

    def with_and_without(**fixed: float) -> Contrast:
        a, b = bounded(**fixed), chosen(found, "net", max_norm=math.inf, **fixed)
        return Contrast(
            f"r = {a['max_norm']:g} at {a['lr']:g} (active {active(found, a).mean():.1%})",
            accuracy(a),
            f"none at {b['lr']:g}",
            accuracy(b),
        )

    radii = sorted({cell["max_norm"] for cell in found.cells})
    highest = max(cell["lr"] for cell in found.cells)
    best, bare = bounded(p=RATES[1]), chosen(found, "net", max_norm=math.inf, p=0.0)
    others = {
        "max-norm alone": bounded(p=0.0),
        "dropout alone": chosen(found, "net", max_norm=math.inf, p=RATES[1]),
        "neither": bare,
    }
    said = {p: "no dropout" if not p else f"dropout {p:g}" for p in RATES}
    return [
        contrast(
            "Max-norm makes a net more accurate, as it overfits less.",
            {f"there is {said[p]}": with_and_without(p=p) for p in RATES},
            delta=DELTA,
        ),
        contrast(
            "Dropout with max-norm is the best: better than max-norm alone, dropout alone and "
            "neither. (Of the paper, error on MNIST, per cent: 1.05; 1.35; 1.25 for dropout with "
            "an l2 penalty; 1.62 for the penalty.)",
            {
                f"the other is {name}": Contrast("both", accuracy(best), name, accuracy(cell))
                for name, cell in others.items()
            },
            delta=DELTA,
        ),
        contrast(
            f"Max-norm makes a high learning rate bearable. (At a peak of {highest:g}, with "
            "momentum 0.95.)",
            {f"there is {said[p]}": with_and_without(p=p, lr=highest) for p in RATES},
            delta=DELTA,
        ),
    ]


def table(found: study.Study) -> list[list[str]]:
    head = ["dropout", "r", "peak", "test accuracy", "training accuracy", "active rows", "diverged"]
    rows = [head]
    for p, radius in sorted({(cell["p"], cell["max_norm"]) for cell in found.cells}):
        cell = chosen(found, "net", p=p, max_norm=radius)
        test, training = (
            100 * found.values(f"{part}_accuracy", "net", **cell) for part in ("test", "train")
        )
        lost = found.arms["net"].diverged[
            [i for i, c in enumerate(found.cells) if (c["p"], c["max_norm"]) == (p, radius)]
        ]
        rows.append(
            [
                f"{p:g}",
                "none" if radius == math.inf else f"{radius:g}",
                f"{cell['lr']:g}",
                f"{test.mean():.2f} ± {test.std(ddof=1):.2f}",
                f"{training.mean():.2f} ± {training.std(ddof=1):.2f}",
                f"{active(found, cell).mean():.1%}",
                f"{lost.sum()} of {lost.size} at all peaks",
            ]
        )
    return rows


def own_table(own: study.Study) -> list[list[str]]:
    rows = [["r", "test accuracy, %", "training loss by epoch", "active rows"]]
    for i, cell in enumerate(own.cells):
        test = 100 * own.values("test_accuracy", "net", **cell)
        by_epoch = own.arms["net"].curves["loss"][:, i].mean(1)
        radius = cell["max_norm"]
        rows.append(
            [
                "none" if radius == math.inf else f"{radius:g}",
                f"{test.mean():.2f} ± {test.std(ddof=1):.2f}",
                ", ".join(f"{x:.3f}" for x in by_epoch),
                f"{active(own, cell).mean():.3%}",
            ]
        )
    return rows


def draw(found: study.Study) -> plt.Figure:
    """Draw accuracy and active rows against the radius, for each peak and rate of dropout."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    radii, peaks = (sorted({cell[name] for cell in found.cells}) for name in ("max_norm", "lr"))
    places = np.arange(len(radii))
    for ax, p in zip(axes, RATES, strict=False):
        for i, lr in enumerate(peaks):
            cells = [{"max_norm": r, "p": p, "lr": lr} for r in radii]
            values = 100 * np.array([found.values("test_accuracy", "net", **c) for c in cells])
            low, high = values.min(1), values.max(1)
            ax.fill_between(places, low, high, color=f"C{i}", alpha=0.2, lw=0)
            ax.plot(places, np.median(values, 1), "o-", color=f"C{i}", label=f"peak {lr:g}")
            shares = [100 * active(found, c).mean() for c in cells]
            style = {"ls": "--" if p else "-", "marker": "o", "color": f"C{i}"}
            axes[2].plot(places, shares, label=f"peak {lr:g}, dropout {p:g}", **style)
        ax.set(title=f"dropout {p:g}", ylabel="test accuracy, % (median and range)")
    axes[2].set(title="rows that a step carried outside", ylabel="per cent, mean over steps")
    for ax in axes:
        ax.set_xticks(places, ["none" if r == math.inf else f"{r:g}" for r in radii])
        ax.set_xlabel("max-norm r")
        ax.legend(fontsize=8)
    figure.suptitle(
        f"Fashion-MNIST, 784-256-256-256-10, SGD with momentum 0.95, {len(found.seeds)} seeds"
    )
    return figure


if __name__ == "__main__":
    main()
