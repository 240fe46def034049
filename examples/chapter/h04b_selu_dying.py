"""H4b: do SELUs train a hundred plain layers, and do ReLUs die at a high learning rate?

python examples/chapter/h04b_selu_dying.py            # 10 seeds of 100 layers, 20 of 3 layers
python examples/chapter/h04b_selu_dying.py --fast
"""

from __future__ import annotations

import functools
import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _chapter import DOES_NOT, HOLDS, Claim, parse, publish, run, summary_rows
from _contrast import Contrast, contrast, together
from _deep_or_dying import FAR, experiment, signals, thousand
from _fashion_mnist import load
from _initializations import shorten

from fdnn import study

PROTOCOL = """
A hundred layers: 100 hidden layers of 100 units on standardized Fashion-MNIST, 5 epochs of SGD at
0.001 in batches of 32: SELU with LeCun's normal initialization, ReLU with He's. Accuracy after the
last epoch; mean and standard deviation of every hidden layer's output on 1,000 validation images,
averaged over seeds. A thousand layers: normal inputs (500 of 300 numbers) through 1,000 layers of
300 SELUs that are not trained, with LeCun's normal and with He's uniform initialization, averaged
over 5 seeds. The signal is said to keep its size if every mean (of the thousand: the last) is
within ±0.1 and every standard deviation from 0.8 to 1.25.

Dying: the net 784-100-100-100-10 (He, images in [0, 1]), 5 epochs of SGD in batches of 32 at 0.05
and at 0.5, with ReLU and leaky ReLU (slope 0.01), twice the seeds. A hidden unit is dead if it is
exactly 0 for all 5,000 validation images. A run whose parameters became nan has no dead units to
count, but an accuracy: that of chance. Arms of a seed share their first draw and their batches.
"""

MEANS, STDS, DELTA = (-0.1, 0.1), (0.8, 1.25), 0.01  # chosen before any run
RATES = (0.05, 0.5)


def main() -> None:
    args = parse(__doc__, seeds=10)
    depth, epochs = (20, 1) if args.fast else (100, 5)
    standard, plain = load(args, standardize=True)[0], load(args)[0]
    if args.fast:
        standard, plain = shorten(standard), shorten(plain)
    arms: dict[str, dict[str, Any]] = {
        "SELU": {"activation": "SELU", "law": "LeCun"},
        "ReLU": {"activation": "ReLU", "law": "He"},
    }
    arms = {k: arm | {"depth": depth, "lr": 0.001, "epochs": epochs} for k, arm in arms.items()}
    deep = run(
        args,
        "deep",
        functools.partial(experiment, standard),
        arms=arms,
        chunk_size=-(-args.seeds // 2),  # two chunks of one size, one program
        keep_parameters=True,
    )
    clock = time.perf_counter()
    shapes = {name: signals(standard, deep, name, **arm) for name, arm in arms.items()}
    far = {
        name: thousand(law, min(args.seeds, 5), 100 if args.fast else 1000)
        for name, law in FAR.items()
    }
    seconds = time.perf_counter() - clock
    kinds = {
        name: {"activation": name, "law": "He", "depth": 3, "lr": RATES[0], "epochs": epochs}
        for name in ("ReLU", "leaky ReLU")
    }
    dying = run(
        args,
        "dying",
        functools.partial(experiment, plain),
        arms=kinds,
        seeds=2 * args.seeds,
        sweep={"lr": RATES},
    )
    publish(
        args,
        title="H4b. A hundred SELUs, and dying ReLUs",
        protocol=PROTOCOL,
        claims=[*claims_deep(deep, shapes, far), *claims_dying(dying)],
        tables={
            f"{depth} layers: test accuracy, per cent": summary_rows(deep, "test_accuracy"),
            "Dead hidden units in the end, per cent": summary_rows(dying, "dead"),
            "Dying: test accuracy, per cent": summary_rows(dying, "test_accuracy"),
        },
        figure=draw(deep, shapes, dying),
        studies=[deep, dying],
        seconds=seconds,
        numbers={"signals": {k: v.tolist() for k, v in shapes.items()}, "thousand": far},
    )


def keeps(mean: Any, std: Any) -> str:
    """Whether the signal keeps its size."""
    fine = [low <= np.min(x) and np.max(x) <= high
            for x, (low, high) in ((mean, MEANS), (std, STDS))]  # fmt: skip
    return HOLDS if all(fine) else DOES_NOT


def claims_deep(deep: study.Study, shapes: dict[str, Any], far: dict[str, Any]) -> list[Claim]:
    """Judge what the chapter says of SELU."""
    printed = {"SELU": 0.8046, "ReLU": 0.7054}
    selu, relu = (deep.values("test_accuracy", name) for name in printed)
    better = contrast(
        "SELU with LeCun's initialization trains 100 plain layers better than ReLU with He's "
        "(printed, one seed, validation: .8046 and .7054).",
        {"": Contrast("SELU", selu, "ReLU", relu)},
        delta=0.03,
    )
    for name, figure in printed.items():
        place = study.where(deep.values("valid_accuracy", name), figure)
        measured = f"{better.measured}. Of {place.n} {name} runs {place.below} have less than "
        better = better._replace(measured=f"{measured}{figure} on validation")
    said, verdicts = [], {}
    for when, (mean, std) in zip(("new", "trained"), shapes["SELU"], strict=True):
        said.append(
            f"{when}: means {mean.min():+.2f} to {mean.max():+.2f}, standard deviations "
            f"{std.min():.2f} to {std.max():.2f}"
        )
        verdicts[f"the net is {when}"] = keeps(mean, std)
    return [
        better,
        Claim(
            "In nets of SELUs with LeCun's initialization every layer keeps mean 0 and standard "
            "deviation 1.",
            "; ".join(said),
            together(verdicts),
        ),
        Claim(
            "SELUs keep them through 1,000 layers. (The notebook's cells on activations draw by "
            "`kaiming_uniform_`, He's law.)",
            "; ".join(f"{name}: mean {m:.2g}, standard deviation {s:.2g}"
                      for name, (m, s) in far.items()),
            together({f"the law is {name}'s": keeps(m, s) for name, (m, s) in far.items()}),
        ),
    ]  # fmt: skip


def claims_dying(dying: study.Study) -> list[Claim]:
    """Judge what the chapter says of units that die."""
    low, high = RATES

    def values(metric: str, name: str, lr: float) -> Any:
        return dying.values(metric, name, lr=lr)

    worst = {lr: float(np.nan_to_num(values("dead", "leaky ReLU", lr)).max()) for lr in RATES}
    lost = {
        f"{name} at {cell['lr']:g}": f"{count} of {len(dying.seeds)} runs"
        for name, arm in dying.arms.items()
        for cell, count in zip(dying.cells, arm.diverged.sum(1), strict=True)
        if count
    }
    diverged = ", ".join(f"{count} of {name}" for name, count in lost.items())
    better = contrast(
        "So leaky ReLUs give better nets.",
        {
            f"the rate is {lr}": Contrast(
                "leaky", values("test_accuracy", "leaky ReLU", lr),
                "ReLU", values("test_accuracy", "ReLU", lr),
            )
            for lr in RATES
        },
        delta=DELTA,
    )  # fmt: skip
    measured = f"{better.measured}; diverged: {diverged or 'none'}"
    return [
        contrast(
            "A high learning rate kills ReLUs.",
            {
                "": Contrast(
                    f"share dead at {high}", values("dead", "ReLU", high),
                    f"at {low}", values("dead", "ReLU", low),
                )
            },
            delta=DELTA,
        ),
        Claim(
            "Leaky ReLUs cannot die.",
            "; ".join(f"at most {share:.2%} of a run's at {lr}" for lr, share in worst.items()),
            together({f"the rate is {lr}": DOES_NOT if worst[lr] else HOLDS for lr in RATES}),
        ),
        better._replace(measured=measured),
    ]  # fmt: skip


def draw(deep: study.Study, shapes: dict[str, Any], dying: study.Study) -> plt.Figure:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(17, 4.8), layout="constrained")
    deep.plot("valid_accuracy", "curves", ax=left)
    depth = next(iter(shapes.values())).shape[2]
    left.set(
        title=f"{depth} layers, {len(deep.seeds)} seeds: median, 10 % to 90 %",
        ylabel="validation accuracy",
    )
    for i, (name, both) in enumerate(shapes.items()):
        for (_, std), style, when in zip(both, ("-", "--"), ("new", "trained"), strict=True):
            middle.plot(range(1, depth + 1), std, style, color=f"C{i}", label=f"{name}, {when}")
    middle.set(xlabel="layer", ylabel="standard deviation of its output", yscale="log",
               title="the signal in every layer, mean over seeds")  # fmt: skip
    middle.legend()
    dying.plot("dead", "curves", ax=right)
    right.set(
        title=f"3 layers, {len(dying.seeds)} seeds: median, 10 % to 90 %",
        ylabel="share of dead hidden units",
    )
    figure.suptitle(
        f"Fashion-MNIST: {depth} layers of SELU (LeCun) or ReLU (He) by SGD at 0.001; units that "
        "die in nets of 3 layers"
    )
    return figure


if __name__ == "__main__":
    main()
