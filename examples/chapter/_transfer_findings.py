"""What h01 found: the chapter's claims on transfer, tables and a figure."""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from _chapter import DOES_NOT, HOLDS, ONLY_WHEN, OPEN, Claim, corrected, judge
from numpy.typing import NDArray

from fdnn import study

PRINTED = {  # the figure, of which arm, after how many steps
    "book, scratch": (0.716, "scratch", 20),
    "notebook of May 2025, scratch": (0.7162, "scratch", 20),
    "notebook of March 2026 (same code, same seeds), scratch": (0.8860, "scratch", 20),
    "book, transfer": (0.925, "transfer", 30),
    "notebook of May 2025, transfer": (0.9301, "transfer", 30),
    "notebook of March 2026, transfer": (0.9312, "transfer", 30),
}
BOOK, BOOK_GAIN = 0.716, 0.925 - 0.716
MARGIN = 0.005  # what does not matter
COUNTS = 30, 60, 200, 1000  # the steps that claims are judged at: both arms have had these
ByCount = dict[int, dict[str, NDArray[Any]]]  # accuracies by steps or labels, arm, seed


class Findings(NamedTuple):
    """Test accuracies.

    Attributes:
        bodies: how many there are; that of seed s has number s modulo this.
        by_steps: of 20 images, "first" or "drawn", at the chapter's rate.
        by_labels: each arm at its best rate.
        at_book: the same at the chapter's rate.
        rates: the best, by labels and arm.
    """

    bodies: int
    by_steps: dict[str, ByCount]
    by_labels: ByCount
    at_book: ByCount
    rates: dict[int, dict[str, float]]

    def mean(self, values: NDArray[Any]) -> NDArray[Any]:
        """Average the seeds of each body."""
        return np.array([values[i :: self.bodies].mean() for i in range(self.bodies)])

    def compare(self, a: NDArray[Any], b: NDArray[Any]) -> study.Comparison:
        """Compare over bodies."""
        return study.compare(self.mean(a), self.mean(b))

    def gains(self, counts: ByCount, a: str, b: str = "scratch") -> dict[int, study.Comparison]:
        """Compare two arms at every count, with Holm's correction."""
        results = {n: self.compare(arms[a], arms[b]) for n, arms in counts.items()}
        return corrected(results)


def claims(found: Findings) -> list[Claim]:
    """Judge what the chapter says, and what it leaves open."""
    book, drawn = found.by_steps["first"], found.by_steps["drawn"]
    long_book, long_drawn = ({n: x for n, x in y.items() if n in COUNTS} for y in (book, drawn))
    labels = found.by_labels
    return [
        *printed(found, book[20]["scratch"], book[30]["transfer"]),
        over(
            found.gains(long_book, "transfer"),
            ("transfer", "scratch", "steps"),
            "The reused layers do it: with as many steps as well, on the chapter's 20 images.",
        ),
        over(
            found.gains(long_drawn, "transfer"),
            ("transfer", "scratch", "steps"),
            "The same on 20 images drawn anew for each seed.",
        ),
        equal(found, book, "on the chapter's images"),
        equal(found, drawn, "on drawn images"),
        over(
            found.gains(labels, "transfer"),
            ("transfer", "scratch", "labels"),
            "Transfer helps where labels are few (drawn images, 200 steps, best rates).",
        ),
        trend(found),
        over(
            found.gains(labels, "autoencoder"),
            ("autoencoder", "scratch", "labels"),
            "Where there are many images without labels, pretrain an autoencoder and reuse its "
            "encoder (no figure printed).",
        ),
        over(
            found.gains(labels, "transfer", "autoencoder"),
            ("transfer", "autoencoder", "labels"),
            "A network trained on a similar labelled task is the better start, if there is one.",
        ),
    ]


def printed(found: Findings, scratch: NDArray[Any], moved: NDArray[Any]) -> list[Claim]:
    """Judge the figures that are printed."""
    one = found.compare(moved, scratch)
    low, high = one.t_interval
    lucky, where = study.where(moved - scratch, BOOK_GAIN), study.where(scratch, BOOK)
    size = DOES_NOT if not low <= BOOK_GAIN <= high else HOLDS if high - low < 0.1 else OPEN
    rare = HOLDS if where.interval.high < 0.05 else OPEN
    if where.interval.low > 0.05:
        rare = DOES_NOT
    return [
        Claim(
            "Transfer (30 steps) beats training from scratch (20 steps) on 20 images (printed, one "
            "seed: 92.5 % against 71.6 %).",
            *judge(one, "transfer", "scratch"),
        ),
        Claim(
            f"The gain is some {100 * BOOK_GAIN:.0f} points.",
            f"{100 * one.difference:.1f} on average (95 % {100 * low:.1f} to {100 * high:.1f}); "
            f"{1 - lucky.share:.1%} of {lucky.n} pairs gain as much",
            size,
        ),
        Claim(
            "Such a contrast is found by trying seeds (the chapter's own warning). Judged: whether "
            "fewer than 5 % of runs from scratch are as bad as the one printed.",
            f"{where.share:.1%} of {where.n} are below 71.6 % (95 % {where.interval.low:.1%} to "
            f"{where.interval.high:.1%}); mean {scratch.mean():.1%}",
            rare,
        ),
        elsewhere(scratch),
    ]


def elsewhere(scratch: NDArray[Any]) -> Claim:
    """Say what two devices made of the same code and seeds."""
    (_, a, b), spread_ = (figure for figure, *_ in list(PRINTED.values())[:3]), scratch.std(ddof=1)
    first, second = (study.where(scratch, x).share for x in (a, b))
    apart = abs(b - a) / spread_
    return Claim(
        f"A fixed seed makes a result that can be had again. (Printed, the same code and seeds run "
        f"twice: {a:.2%} and {b:.2%}.)",
        f"{100 * abs(b - a):.1f} points apart, {apart:.1f} standard deviations of our "
        f"{len(scratch)} seeds, of which {first:.0%} are below the one and {second:.0%} below the "
        "other",
        DOES_NOT if apart > 1 else HOLDS,
    )


def over(gains: dict[int, study.Comparison], names: tuple[str, str, str], text: str) -> Claim:
    """Judge "A is above B" at several counts: it holds, does not, or does at some of them."""
    a, b, unit = names
    sides = {n: side(one, a, b) for n, one in gains.items()}
    there, others = (
        ", ".join(str(n) for n in gains if (sides[n] == "above") is wanted)
        for wanted in (True, False)
    )
    if not others:
        verdict = HOLDS
    elif there:
        verdict = f"{ONLY_WHEN} there are {there} {unit}; not shown at {others}"
    else:
        verdict = OPEN if any(x.startswith("open") for x in sides.values()) else DOES_NOT
    shown = "; ".join(
        f"{n}: {interval(one)}, p = {one.p_holm:.2g}, {sides[n]}" for n, one in gains.items()
    )
    pairs = next(iter(gains.values())).n_a
    return Claim(
        text, f"{a} − {b} in points, {pairs} bodies, Holm-corrected, by {unit}: {shown}", verdict
    )


def side(one: study.Comparison, a: str, b: str) -> str:
    """Say on which side A is of B, or that they tie, or how many bodies would tell."""
    verdict = judge(one, a, b)[1]
    if verdict == HOLDS:
        return "above"
    low, high = one.t_interval
    if low > -MARGIN and high < MARGIN:
        return f"equal within {100 * MARGIN:g} points"
    if verdict == DOES_NOT:
        return "below"
    needed = study.seeds_needed(one.sd_difference, MARGIN)
    return f"open ({needed} bodies would find {100 * MARGIN:g} points)"


def equal(found: Findings, counts: ByCount, where: str) -> Claim:
    """Say whether a frozen body and a new head reach scratch in the end."""
    most = max(counts)
    head, scratch = (found.mean(counts[most][arm]) for arm in ("head only", "scratch"))
    measured, verdict = judge(study.compare(head, scratch), "head only", "scratch")
    same = study.equivalence(head, scratch, MARGIN)
    measured += f"; equal within {100 * MARGIN:g} points: p = {same.p_value:.2g}"
    if same.p_value < 0.05:
        verdict = HOLDS
    elif verdict == OPEN:
        plan = study.power(head, scratch, MARGIN)
        measured += f"; {plan.more_seeds} more bodies would find {100 * MARGIN:g} points"
    text = f"A frozen body with a new head does as well as scratch after {most} steps, {where}."
    return Claim(text, measured, verdict)


def trend(found: Findings) -> Claim:
    """Say whether transfer gains more with fewer labels."""
    few, many = min(found.by_labels), max(found.by_labels)
    gain = {
        n: found.mean(found.by_labels[n]["transfer"]) - found.mean(found.by_labels[n]["scratch"])
        for n in (few, many)
    }
    names = f"gain with {few} labels", f"gain with {many}"
    return Claim(
        "It helps the more, the fewer labels there are.",
        *judge(study.compare(gain[few], gain[many]), *names),
    )


def tables(found: Findings) -> dict[str, list[list[str]]]:
    """Lay out the numbers."""
    where = [["printed", "per cent", "arm", "seeds", "mean", "sd", "seeds below it, 95 %"]]
    for text, (figure, arm, count) in PRINTED.items():
        values = found.by_steps["first"][count][arm]
        one = study.where(values, figure)
        share = f"{one.share:.1%} ({one.interval.low:.1%} to {one.interval.high:.1%})"
        row = [text, f"{100 * figure:g}", f"{arm}, {count} steps", str(one.n), *spread(values)]
        where.append([*row, share])
    names = list(found.by_steps["first"][20])
    head = [f"{name}: mean, sd" for name in names] + [f"{x} − scratch, 95 %" for x in names[1:]]
    by_steps = [["images", "steps", *head]]
    for images, counts in found.by_steps.items():
        both = [found.gains(counts, name) for name in names[1:]]
        for n, arms in counts.items():
            shown = [", ".join(spread(values)) for values in arms.values()]
            by_steps.append([images, str(n), *shown, *(interval(one[n]) for one in both)])
    over_scratch = ["gain over scratch, 95 %", "the same at 0.005"]
    by_labels = [["labels", "arm", "seeds", "best rate", "mean", "sd", *over_scratch]]
    for n, arms in found.by_labels.items():
        for name, values in arms.items():
            both = [found.gains(x, name)[n] for x in (found.by_labels, found.at_book)]
            gains = [interval(one) if name != "scratch" else "" for one in both]
            rate = f"{found.rates[n][name]:g}"
            by_labels.append([str(n), name, str(len(values)), rate, *spread(values), *gains])
    return {
        "Where the printed figures lie among the seeds": where,
        "Test accuracy by steps, per cent: 20 images, rate 0.005": by_steps,
        "Test accuracy by labels, per cent: drawn images, each arm at its best rate": by_labels,
    }


def spread(values: NDArray[Any]) -> list[str]:
    return [f"{100 * x:.2f}" for x in (np.nanmean(values), np.nanstd(values, ddof=1))]


def interval(one: study.Comparison) -> str:
    low, high = one.t_interval
    return f"{100 * one.difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def draw(found: Findings) -> plt.Figure:
    """Draw the chapter's two distributions, the gain by steps, the gain by labels."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(17, 5), layout="constrained")
    book = found.by_steps["first"]
    for color, (arm, n, said) in enumerate((("scratch", 20, 71.6), ("transfer", 30, 92.5))):
        values = 100 * book[n][arm]
        left.hist(
            values,
            np.linspace(40, 100, 61),
            alpha=0.6,
            color=f"C{color}",
            label=f"{arm}, {n} steps",
        )
        left.axvline(said, color=f"C{color}", ls="--", label=f"printed: {said} %")
    left.set(xlabel="test accuracy, per cent", ylabel=f"seeds, of {len(values)}")
    left.set_title("the chapter's 20 images and steps")
    for images, whose, style in (("first", "the chapter's", "-"), ("drawn", "drawn", "--")):
        for color, arm in (("C1", "transfer"), ("C2", "head only")):
            label = f"{arm}, {whose} images"
            counts = {n: arms for n, arms in found.by_steps[images].items() if n >= min(COUNTS)}
            band(middle, found.gains(counts, arm), color, style, label)
    middle.set(xlabel="steps (of scratch as many)", title="20 images, rate 0.005")
    for color, arm in zip(("C1", "C2", "C4", "C3"), list(found.by_labels[20])[1:], strict=True):
        style = "--" if "head" in arm else "-"
        band(right, found.gains(found.by_labels, arm), color, style, arm)
    right.set(xlabel="labelled images, drawn", title="200 steps, each arm at its best rate")
    for ax in (middle, right):
        ax.axhline(0, color="grey")
        ax.set(
            xscale="log", ylabel=f"gain over scratch, points: mean, 95 % ({found.bodies} bodies)"
        )
    for ax, places in ((middle, COUNTS), (right, list(found.by_labels))):
        ax.set_xticks(places, [str(n) for n in places])
        ax.minorticks_off()
    for ax in (left, middle, right):
        ax.legend()
    return figure


def band(ax: Any, gains: dict[int, study.Comparison], color: str, style: str, label: str) -> None:
    low, high = 100 * np.array([one.t_interval for one in gains.values()]).T
    middle = [100 * one.difference for one in gains.values()]
    ax.fill_between(list(gains), low, high, color=color, alpha=0.15, linewidth=0)
    ax.plot(list(gains), middle, "o", ls=style, color=color, label=label)
