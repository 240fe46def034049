"""H4: which initialization does a deep net need, and does its first gradient tell?

    python examples/chapter/h04_initialization.py            # 15 arms x 4 initializations, 10 seeds
    python examples/chapter/h04_initialization.py --fast

Trains 5, 20 and 50 layers of 100 units with five activations and four initializations, after a look
at the signal and the gradient before the first step. The initialization is a swept number that
chooses among draws, so that depth and activation alone make a program, whose lanes are
initializations and seeds.
"""

from __future__ import annotations

import functools
import time
from itertools import product
from typing import Any

import numpy as np
from _chapter import DOES_NOT, HOLDS, ONLY_WHEN, Claim, parse, publish, run
from _contrast import contrast, together
from _fashion_mnist import load
from _initialization_figure import draw
from _initializations import (
    ACTIVATIONS,
    DELTA,
    HEALTHY,
    NAMES,
    RATE,
    USUAL,
    Runs,
    experiment,
    look,
    shorten,
)

from fdnn import study

PROTOCOL = """
5, 20 or 50 hidden layers of 100 units on standardized Fashion-MNIST (55,000 images to train), 2
epochs of SGD at 0.01 in batches of 128, cross-entropy: one learning rate for all, as the chapter's
notes have it. Initializations: torch's default, uniform with variance 1 / (3 fan_in), biases too;
Glorot, He and LeCun, normal with variances 2 / (fan_in + fan_out), 2 / fan_in and 1 / fan_in,
biases 0. The last three of a seed are the same draw, scaled. All arms of a seed share their
batches. A run is said to train if it classifies half of the test images after the 2 epochs (chance:
a tenth). Before the first step, on 128 training images: the standard deviation of the last hidden
layer's output, and the norm of the loss's gradient by the first layer's weights over that by the
output layer's; medians over seeds. "Best" is by validation accuracy, numbers are of test.
"""


def main() -> None:
    args = parse(__doc__, seeds=10)
    splits, _ = load(args, standardize=True)
    depths, epochs = [5, 20, 50], 2
    if args.fast:
        depths, epochs = [5, 20], 1
        splits = shorten(splits)
    arms = {
        f"{activation} {depth}": dict(depth=depth, activation=activation, lr=RATE, epochs=epochs)
        for depth, activation in product(depths, ACTIVATIONS)
    }
    clock = time.perf_counter()
    before = {name: look(splits, args.seeds, **arm) for name, arm in arms.items()}
    seconds = time.perf_counter() - clock
    sweep = {"initialization": list(range(len(NAMES)))}
    found = run(
        args,
        "runs",
        functools.partial(experiment, splits),
        arms=arms,
        sweep=sweep,
        chunk_size=args.seeds,  # so that all chunks have one size, and one program
    )
    runs = Runs(depths, found, before)
    publish(
        args,
        title="H4. Initialization, activation and depth",
        protocol=PROTOCOL,
        claims=claims(runs),
        tables=tables(runs),
        figure=draw(runs),
        studies=[found],
        seconds=seconds,
        numbers={"before": {" ".join(map(str, k)): runs.signal(*k) for k in runs.combinations()}},
    )


def claims(runs: Runs) -> list[Claim]:
    """Judge what the chapter says of deep nets' first values."""
    deep = [depth for depth in runs.depths if depth > 5]

    def at(depth: int) -> str:
        return f"there are {depth} hidden layers"

    def counted(activation: str, law: str | None, wanted: bool, depths: Any) -> tuple[str, str]:
        """Count the runs that train; the claim holds where all of them, or none, do."""
        said, verdicts = [], {}
        for depth in depths:
            own = [law] if law else NAMES
            count = sum(runs.trained(depth, activation, name) for name in own)
            total = len(own) * runs.seeds
            mean = np.mean([runs.accuracy(depth, activation, name).mean() for name in own])
            said.append(f"{count} of {total} train at {depth} layers (mean {100 * mean:.1f} %)")
            verdicts[at(depth)] = HOLDS if count == (total if wanted else 0) else DOES_NOT
        return "; ".join(said), together(verdicts)

    def compared(claimed: str, a: tuple[str, str], b: tuple[str, str], depths: Any) -> Claim:
        return contrast(
            claimed, {at(depth): runs.contrast(depth, a, b) for depth in depths}, delta=DELTA
        )

    return [
        Claim(
            "Deep nets of sigmoids do not train, whatever the initialization (printed for 20 "
            "layers: .100).",
            *counted("sigmoid", None, False, deep),
        ),
        compared(
            "torch's default fails in deep nets of ReLUs, and He's initialization cures it "
            "(printed for 20 layers: .100 and .806 to .816).",
            ("ReLU", "He"),
            ("ReLU", "default"),
            deep,
        ),
        Claim(
            "tanh with Glorot's initialization trains at depth (printed for 20 layers: .810 to "
            ".823).",
            *counted("tanh", "Glorot", True, deep),
        ),
        compared(
            "SELU with LeCun's initialization is better at depth than ReLU with He's (printed for "
            "20 layers: .835 to .849 and .806 to .816).",
            ("SELU", "LeCun"),
            ("ReLU", "He"),
            deep,
        ),
        compared(
            "SiLU (Swish) is better in deep nets than ReLU, both with He's (printed for 20 layers: "
            ".59 to .79 and .806 to .816).",
            ("SiLU", "He"),
            ("ReLU", "He"),
            deep,
        ),
        contrast(
            "A net of few layers needs its initialization as well: with 5, the usual one beats "
            "torch's default.",
            {
                f"it is {name}": runs.contrast(5, (name, usual), (name, "default"))
                for name, usual in USUAL.items()
            },
            delta=DELTA,
        ),
        usual(runs),
        told(runs),
    ]


def usual(runs: Runs) -> Claim:
    """Whether the initialization that goes with an activation is as good as the best."""
    gaps, serves = [], []
    for depth, activation in product(runs.depths, ACTIVATIONS):
        best = runs.best(depth, activation)
        if not runs.trained(depth, activation, best):
            continue
        own = USUAL[activation]
        x, y = (runs.accuracy(depth, activation, law) for law in (own, best))
        gaps.append(f"{activation} {depth}: {100 * (x - y).mean():+.1f} ({best})")
        if own == best or study.compare(x, y).t_interval.low > -DELTA:
            serves.append(f"{activation} {depth}")
    verdict = HOLDS if len(serves) == len(gaps) else DOES_NOT
    if serves and len(serves) < len(gaps):
        verdict = f"{ONLY_WHEN} it is one of: {', '.join(serves)}"
    return Claim(
        "Glorot's initialization goes with sigmoid and tanh, He's with ReLU and SiLU, LeCun's with "
        "SELU. (Held to be so where the 95 % interval says that the best of them is not better "
        f"by {100 * DELTA:g} point.)",
        "Points of the usual one over the best by validation, where anything trains: "
        + "; ".join(gaps),
        verdict,
    )


def told(runs: Runs) -> Claim:
    """Whether what is seen before the first step tells which nets train."""
    low, high = HEALTHY
    keys = runs.combinations()
    trains = np.array([2 * runs.trained(*key) > runs.seeds for key in keys])
    std, ratio = np.array([runs.signal(*key) for key in keys]).T
    gradient = (low <= ratio) & (ratio <= high)
    both = gradient & (low <= std) & (std <= high)
    alone, joint = (float((sign == trains).mean()) for sign in (gradient, both))
    verdict = HOLDS if alone >= 0.9 else DOES_NOT
    if alone < 0.9 <= joint:
        verdict = f"{ONLY_WHEN} the forward signal is looked at as well"
    return Claim(
        "Deep nets fail because gradients vanish or explode on the way to the first layer. (Held "
        f"to be so if a ratio from {low:g} to {high:g} before the first step tells, for 9 of 10 "
        "combinations, whether most of its runs train.)",
        f"Of {len(keys)} combinations {trains.sum()} train. The gradient's ratio is right about "
        f"{alone:.0%}, with the last hidden layer's standard deviation in the same range as well "
        f"about {joint:.0%}",
        verdict,
    )


def tables(runs: Runs) -> dict[str, list[list[str]]]:
    def accuracy(*key: Any) -> str:
        x = 100 * runs.accuracy(*key)
        return f"{x.mean():.1f} ± {x.std(ddof=1):.1f} ({runs.trained(*key)} of {len(x)} train)"

    shown = {
        "Test accuracy, per cent: mean and standard deviation over seeds": accuracy,
        "Standard deviation of the last hidden layer before the first step": lambda *key: (
            f"{runs.signal(*key)[0]:.2g}"
        ),
        "Gradient of the first layer over that of the last before the first step": lambda *key: (
            f"{runs.signal(*key)[1]:.2g}"
        ),
    }
    return {
        caption: [
            ["hidden layers", "activation", *NAMES],
            *(
                [str(depth), name, *(cell(depth, name, law) for law in NAMES)]
                for depth, name in product(runs.depths, ACTIVATIONS)
            ),
        ]
        for caption, cell in shown.items()
    }


if __name__ == "__main__":
    main()
