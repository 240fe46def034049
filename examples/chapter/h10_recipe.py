"""H10: is the recipe better than a naive start, and what does each rung of exercise 8 bring?

    python examples/chapter/h10_recipe.py            # 6 seeds of 5 rungs, and of 2 depths
    python examples/chapter/h10_recipe.py --fast

Part one trains 3 and 20 hidden layers by `fdnn.recipe` and as one would without it. Part two climbs
the ladder of the chapter's exercise 8 on Fashion-MNIST, one change at a time, the learning rate
swept for each.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from _chapter import Claim, parse, publish, run
from _contrast import Contrast, contrast, family
from _fashion_mnist import load
from _recipe_runs import SAMPLES, Runs, Values, read

from fdnn import schedules, study

PROTOCOL = """
Hidden layers of 100 units on Fashion-MNIST (55,000 images to train, 5,000 for validation), 10
epochs in batches of 128, cross-entropy. Every run keeps its epoch of the best validation loss.
The learning rate of every arm is the best of those swept by mean validation accuracy; the numbers
are of test. Arms of a seed share the order of the batches, and nets of the same shape their
start.

Recipe: `fdnn.recipe(depth, total_steps=...)`: at 3 layers ReLU, He, Nesterov's momentum; at 20
SiLU, He, batch norm, AdamW; both with 1cycle. As it is, and at 0.3 and 3 times its rate. Naive:
ReLU, torch's default initialization, a constant rate, by SGD (0.03, 0.1, 0.3) or by Adam (0.0003,
0.001, 0.003).

Ladder: 20 layers, NAdam at 0.0002, 0.0007 or 0.002. Its rungs: SiLU with He's initialization;
with batch norm before each SiLU; instead of it SELU, LeCun's initialization and standardized
pixels; with alpha dropout of 0.1 after each hidden layer; the same runs, predicted by the mean of
10 samples with alpha dropout on; and trained anew with 1cycle up to 0.001, 0.003 or 0.01, with
Adam's beta1 from 0.95 to 0.85 and back. The PyTorch notebook made that schedule for all steps,
but took one of its steps an epoch; the last arm does so too.
"""

DEPTHS = (3, 20)
DELTA = 0.003  # accuracy that matters, chosen before any run
SGD, ADAM, NADAM = [0.03, 0.1, 0.3], [3e-4, 1e-3, 3e-3], [2e-4, 7e-4, 2e-3]
FACTORS, PEAKS = [0.3, 1.0, 3.0], [1e-3, 3e-3, 1e-2]
PLAIN = {"activation": "silu", "norm": None, "dropout": 0.0, "standardize": False}
SELU = PLAIN | {"activation": "selu", "standardize": True}
DROPPED = SELU | {"dropout": 0.1}
RUNGS = {
    "SiLU, He": PLAIN,
    "batch norm": PLAIN | {"norm": "batch"},
    "SELU, LeCun": SELU,
    "alpha dropout": DROPPED,
}
MC, CYCLE, STILL = "MC alpha dropout", "1cycle", "1cycle stepped by epoch"


def main() -> None:
    args = parse(__doc__, seeds=6)
    epochs, deep = (1, 4) if args.fast else (10, DEPTHS[-1])
    runs = Runs(load(args)[0], load(args, standardize=True)[0], epochs)

    def cut(values: list[float]) -> list[float]:
        return values[1:3] if args.fast else values

    depths = {f"{depth} layers": depth for depth in (DEPTHS[0], deep)}
    starts = {
        name: run(
            args,
            f"naive {name}",
            runs.naive,
            arms={
                arm: {"depth": depth, "optimizer": name, "epochs": epochs}
                for arm, depth in depths.items()
            },
            sweep={"lr": cut(rates)},
        )
        for name, rates in {"SGD": SGD, "Adam": ADAM}.items()
    }
    cooked = run(
        args,
        "recipe",
        runs.recipe,
        arms={arm: {"depth": depth, "epochs": epochs} for arm, depth in depths.items()},
        sweep={"step_size": cut(FACTORS)},
    )
    common = {"depth": deep, "epochs": epochs}
    ladder = run(
        args,
        "ladder",
        runs.rung,
        arms={name: {**common, **net, "schedule": "constant"} for name, net in RUNGS.items()},
        sweep={"lr": cut(NADAM)},
        keep_parameters=True,
    )
    cycles = run(
        args,
        "1cycle",
        runs.rung,
        arms={
            CYCLE: {**common, **DROPPED, "schedule": "1cycle"},
            STILL: {**common, **DROPPED, "schedule": "by epoch"},
        },
        sweep={"lr": cut(PEAKS)},
    )

    steps = {name: read(ladder, name) for name in RUNGS}
    net = {name: DROPPED[name] for name in ("activation", "norm", "dropout")}
    steps[MC] = runs.sampled(ladder, "alpha dropout", deep, **net)
    steps |= {name: read(cycles, name) for name in cycles.arms}
    begun = {
        arm: {
            "naive, SGD": read(starts["SGD"], arm),
            "naive, Adam": read(starts["Adam"], arm),
            "recipe as it is": read(cooked, arm, step_size=1.0),
            "recipe, rate chosen": read(cooked, arm),
        }
        for arm in depths
    }
    still = schedules.one_cycle(PEAKS[-1], runs.total)
    publish(
        args,
        title="H10. The recipe, and the ladder of exercise 8",
        protocol=PROTOCOL,
        claims=[*starting(begun), *climbing(steps, [still(i).item() for i in (0, epochs - 1)])],
        tables={
            "Recipe and naive start: mean ± standard deviation over seeds": table(
                {f"{arm}: {name}": x for arm, rows in begun.items() for name, x in rows.items()}
            ),
            f"The ladder, {deep} layers": table(steps),
        },
        figure=draw(begun, steps, deep, args.seeds),
        studies=[*starts.values(), cooked, ladder, cycles],
    )


def starting(begun: dict[str, dict[str, Values]]) -> list[Claim]:
    """Judge the chapter's guidelines."""

    def against(name: str) -> dict[str, Contrast]:
        contrasts = {}
        for arm, rows in begun.items():
            naive = max(("naive, SGD", "naive, Adam"), key=lambda name: rows[name]["valid"].mean())
            contrasts[f"there are {arm}"] = Contrast(
                name, rows[name]["accuracy"], naive, rows[naive]["accuracy"]
            )
        return contrasts

    return [
        contrast(
            "The guidelines make a better start than none: the recipe as it is, no rate chosen, "
            "against the better of the naive starts at its best rate. (No figures printed.)",
            against("recipe as it is"),
            delta=DELTA,
        ),
        contrast(
            "So do they if the recipe's rate is chosen as well.",
            against("recipe, rate chosen"),
            delta=DELTA,
        ),
    ]


def climbing(steps: dict[str, Values], still: list[float]) -> list[Claim]:
    """Judge each rung of the ladder against the one before."""
    said = {
        ("batch norm", "SiLU, He"): "Batch norm makes the deep net better (validation accuracy on "
        "CIFAR-10, one run, PyTorch: .380 to .401; Keras: .468 to .507).",
        ("SELU, LeCun", "batch norm"): "SELU, LeCun's initialization and standardized pixels are "
        "better than batch norm (.401 to .456; .507 to .503).",
        ("alpha dropout", "SELU, LeCun"): "Alpha dropout of 0.1 adds to it (.456 to .477; .503 to "
        ".498).",
        (MC, "alpha dropout"): f"Averaging {SAMPLES} samples with alpha dropout on adds to it (not "
        "done; .498 to .498).",
        (CYCLE, "alpha dropout"): "1cycle makes training better (.477 to .463; .498 to .524).",
        (STILL, "alpha dropout"): "The PyTorch notebook's 1cycle, stepped once an epoch, was one "
        f"(.463). Its rate goes from {still[0]:.3g} to {still[1]:.3g} at a peak of {PEAKS[-1]:g}; "
        "held to be so if it is better than the constant rate.",
        (CYCLE, STILL): "A 1cycle as long as the run is better than that.",
    }
    on, off = (-steps[name]["loss"] for name in (MC, "alpha dropout"))
    likelihood = contrast(
        "Averaged samples give better probabilities (no figure printed; log-likelihood of a test "
        "image).",
        {"": Contrast("on", on, "off", off)},
        delta=0.005,
        points=False,
    )
    pairs = {
        text: Contrast(a, steps[a]["accuracy"], b, steps[b]["accuracy"])
        for (a, b), text in said.items()
    }
    return [*family(pairs, delta=DELTA), likelihood]


def table(rows: dict[str, Values]) -> list[list[str]]:
    head = ["", "rate", "test accuracy, %", "min to max", "test loss"]
    found = [head]
    for name, x in rows.items():
        accuracy, loss = 100 * x["accuracy"], x["loss"]
        found.append(
            [
                name,
                f"{x['lr']:g}" + (" times its own" if x["swept"] == "step_size" else ""),
                f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}",
                f"{accuracy.min():.2f} to {accuracy.max():.2f}",
                f"{loss.mean():.3f} ± {loss.std(ddof=1):.3f}",
            ]
        )
    return found


def draw(
    begun: dict[str, dict[str, Values]], steps: dict[str, Values], deep: int, seeds: int
) -> plt.Figure:
    """Draw the test accuracy of every seed, start by start and rung by rung."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    panels = {**begun, f"the ladder, {deep} layers": steps}
    for ax, (title, rows) in zip(axes, panels.items(), strict=True):
        for i, x in enumerate(rows.values()):
            values = 100 * x["accuracy"]
            ax.plot(values, np.full(len(values), i), ".", color=f"C{i}", alpha=0.6)
            mean = study.summarize(values)
            reach = np.abs(np.array(mean.t_interval) - mean.mean)[:, None]
            ax.errorbar(mean.mean, i, xerr=reach, fmt="|", color="k", capsize=4, markersize=12)
        ax.set_yticks(range(len(rows)), [f"{n} ({x['lr']:g})" for n, x in rows.items()])
        ax.invert_yaxis()
        ax.set(title=title, xlabel="test accuracy, %")
    figure.suptitle(
        f"Fashion-MNIST, {seeds} seeds (dots), mean and its 95 % interval; in brackets the "
        "learning rate chosen (of the recipe: times its own)"
    )
    return figure


if __name__ == "__main__":
    main()
