"""H5: what do batch and layer normalization buy, in epochs and in time?

python examples/chapter/h05_normalization.py            # 3 arms x 5 learning rates, 5 seeds
python examples/chapter/h05_normalization.py --fast
"""

from __future__ import annotations

import functools
import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _chapter import DOES_NOT, HOLDS, ONLY_WHEN, Claim, parse, publish, run
from _contrast import Contrast, contrast, family, together
from _fashion_mnist import load
from _initializations import shorten
from _normalized import (
    ARMS,
    RATES,
    Arm,
    at_best,
    experiment,
    flat,
    reached,
    slower,
    step_times,
)
from matplotlib.ticker import MaxNLocator

from fdnn import study

PROTOCOL = """
20 hidden layers of 100 SiLU units (He) on Fashion-MNIST, NAdam in batches of 128, cross-entropy:
plain, with batch norm, with layer norm, both before the activation. Five learning rates, all rates
and seeds lanes of one program. At most 15 epochs; a run ends after 4 without a new lowest
validation loss, and has the parameters of its best epoch back, of which test accuracy is. Each arm
at the rate with the lowest mean of these losses over seeds. The mark to reach is the plain net's
lowest validation loss, seed by seed. By this definition the plain net gets there at the last
moment; so the epochs to a loss within 5 % of the mark are shown as well. A run that never gets
there counts as 16 epochs, one more than there are, in means and tests.

Time: not of the runs above, which had other work beside them. Afterwards, in one process, one run
of each arm takes 50 steps of its compiled step in turn (plain, batch norm, layer norm, plain, ...),
15 rounds after one that is not counted, so that what else the machine does slows all three; the
factor is the median over rounds of the ratio within a round. Time to the mark: epochs times this
factor, in units of an epoch of the plain net. The same without the compiler, as torch is mostly
used, is beside it.
"""

DELTA = 1.0  # epochs; chosen before any run


def main() -> None:
    args = parse(__doc__, seeds=5)
    splits, _ = load(args)
    splits = splits._replace(**{k: flat(part) for k, part in splits._asdict().items()})
    rates, arm = RATES, {"depth": 20, "epochs": 15, "patience": 4}
    if args.fast:
        splits, rates = shorten(splits), RATES[1:3]
        arm = {"depth": 4, "epochs": 2, "patience": 1}
    found = run(
        args,
        "runs",
        functools.partial(experiment, splits),
        arms={name: {"norm": norm} | arm for name, norm in ARMS.items()},
        sweep={"lr": rates},
        chunk_size=args.seeds,  # so that runs that have ended cost nothing
    )
    clock = time.perf_counter()
    factors = {
        how: step_times(splits, arm["depth"], compiled, rounds=3 if args.fast else 15)
        for how, compiled in (("compiled", True), ("eager", False))
        if not (compiled and args.no_compile)
    }
    seconds = time.perf_counter() - clock
    arms = at_best(found, arm["epochs"])
    publish(
        args,
        title="H5. Batch and layer normalization",
        protocol=PROTOCOL,
        claims=claims(arms, factors, arm["epochs"]),
        tables=tables(found, arms, factors, arm["epochs"]),
        figure=draw(arms, factors),
        studies=[found],
        seconds=seconds,
        numbers={"milliseconds_a_step": factors},
    )


def claims(arms: dict[str, Arm], factors: dict[str, Any], epochs: int) -> list[Claim]:
    """Judge what the chapter says of batch norm, and of layer norm beside it."""
    plain, how = arms["plain"], next(iter(factors))
    names = ("batch norm", "layer norm")
    fewer = {
        "Batch norm reaches the plain net's best loss in fewer epochs (printed, CIFAR-10, one run: "
        "12 against 29).": "batch norm",
        "So does layer norm (no figure printed).": "layer norm",
    }
    faster = {
        "An epoch with batch norm takes longer (printed: 1.5 times), yet the mark is reached "
        "sooner.": "batch norm",
        "The same of layer norm.": "layer norm",
    }
    factor = {name: slower(factors[how], name) for name in names}
    in_epochs, in_time = (
        family(
            {
                said: Contrast("plain", plain.epochs, name, times * arms[name].epochs)
                for said, name in claimed.items()
                for times in [factor[name][0] if timed else 1.0]
            },
            delta=DELTA,
            points=False,
        )
        for claimed, timed in ((fewer, False), (faster, True))
    )
    rows = []
    for name, claim in zip(names, in_epochs, strict=True):
        own = arms[name].epochs
        never = int((own > epochs).sum())
        text = f"epochs to the mark: plain {mean(plain.epochs)}, {name} {mean(own)}"
        text += f", {never} of {len(own)} runs never" if never else ""
        rows.append(claim._replace(measured=f"{text}; {claim.measured}"))
    for name, claim in zip(names, in_time, strict=True):
        middle, low, high = factor[name]
        text = f"a step takes {middle:.2f} times as long (quartiles {low:.2f}, {high:.2f}; {how})"
        if claim.verdict == HOLDS and low <= 1:
            claim = claim._replace(verdict=f"{ONLY_WHEN} it is said of time, not of an epoch")
        text += f"; in epochs of the plain net, {claim.measured}"
        rows.append(claim._replace(measured=text))
    rows.append(
        contrast(
            "The net gets better (printed: .468 to .507 and .380 to .401).",
            {
                f"it is {name}": Contrast(name, arms[name].test, "plain", plain.test)
                for name in names
            },
            delta=0.005,
        )
    )
    higher = {
        f"it is {name}": HOLDS if arms[name].largest > plain.largest else DOES_NOT for name in names
    }
    rows.append(
        Claim(
            "Normalization allows larger learning rates. (Held to be so if the largest rate whose "
            "loss is within 10 % of the arm's best is larger.)",
            "; ".join(f"{name}: best {x.lr:g}, largest {x.largest:g}" for name, x in arms.items()),
            together(higher),
        )
    )
    return rows


def mean(values: Any) -> str:
    return f"{values.mean():.1f} ({values.min():.0f} to {values.max():.0f})"


def tables(
    found: study.Study, arms: dict[str, Arm], factors: dict[str, Any], epochs: int
) -> dict[str, list[list[str]]]:
    plain = arms["plain"]
    head = ["arm", "best lr", "epochs to the mark", "never", "epochs to within 5 %"]
    head += [f"step, {how}, of plain" for how in factors]
    head += [f"time to the mark, {how}, of plain" for how in factors]
    rows = [[*head, "test accuracy, per cent"]]
    for name, arm in arms.items():
        times = [slower(own, name)[0] for own in factors.values()]
        ratio = arm.epochs.mean() / plain.epochs.mean()
        rows.append(
            [
                name,
                f"{arm.lr:g}",
                mean(arm.epochs),
                str(int((arm.epochs > epochs).sum())),
                mean(arm.near),
                *(f"{factor:.2f}" for factor in times),
                *(f"{factor * ratio:.2f}" for factor in times),
                f"{100 * arm.test.mean():.2f} ± {100 * arm.test.std(ddof=1):.2f}",
            ]
        )
    mark = np.nanmin(plain.loss, 0)
    rates = [["arm", *(f"lr {cell['lr']:g}" for cell in found.cells)]]
    for name in ARMS:
        cells = [name]
        for i in range(len(found.cells)):
            loss = found.arms[name].curves["valid_loss"][:, i]
            lowest = np.nanmin(np.where(np.isnan(loss), np.inf, loss), 0).mean()
            cells.append(f"{lowest:.3f}; {mean(reached(loss, mark, epochs))}")
        rates.append(cells)
    return {
        "At the best rates: means, with smallest and largest": rows,
        "All rates: mean of the lowest validation loss; epochs to the mark": rates,
    }


def draw(arms: dict[str, Arm], factors: dict[str, Any]) -> plt.Figure:
    """Draw the validation loss of each arm at its best rate, by epoch and by time."""
    how = next(iter(factors))
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), sharey=True, layout="constrained")
    for i, (name, arm) in enumerate(arms.items()):
        kept = ~np.isnan(arm.loss).all(1)
        loss, epochs = arm.loss[kept], np.arange(1, len(arm.loss) + 1)[kept]
        levels = np.nanmin(loss, 1), np.nanmedian(loss, 1), np.nanmax(loss, 1)
        for axis, unit in zip(axes, (1.0, slower(factors[how], name)[0]), strict=True):
            axis.fill_between(unit * epochs, levels[0], levels[2], color=f"C{i}", alpha=0.2, lw=0)
            axis.plot(unit * epochs, levels[1], ".-", color=f"C{i}", label=f"{name}, lr {arm.lr:g}")
    for axis, label in zip(
        axes, ("epoch", f"time, in epochs of the plain net ({how})"), strict=True
    ):
        axis.axhline(np.nanmin(arms["plain"].loss, 0).mean(), color="grey", ls=":",
                     label="the plain net's best, mean over seeds")  # fmt: skip
        axis.set_xlabel(label)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("validation loss: median, range")
    axes[0].legend()
    seeds = len(arms["plain"].test)
    figure.suptitle(
        f"Fashion-MNIST, hidden layers of 100 SiLU, {seeds} seeds, each arm at its best rate"
    )
    return figure


if __name__ == "__main__":
    main()
