"""What h02 found: the chapter's claims on optimizers, tables and a figure."""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from _chapter import DOES_NOT, HOLDS, ONLY_WHEN, OPEN, Claim, corrected, judge
from numpy.typing import NDArray

from fdnn import study

RATE = 0.05  # the chapter's, for all
POINTS, LOSS = 0.003, 0.01  # margins: what does not matter
NEAR = 0.01  # of the best validation accuracy: the rates that are good enough
PLAIN = ["SGD", "momentum", "Nesterov"]
PRINTED = {  # validation accuracy after 10 epochs at 0.05: May 2025, March 2026; Keras at 0.001
    "SGD": (0.8724, 0.8710, None),  # Keras' figure for SGD is that of momentum, so left out
    "momentum": (0.8614, 0.8582, 0.8672),
    "Nesterov": (0.8620, 0.8566, 0.8708),
    "AdaGrad": (0.8798, 0.8864, 0.8424),
    "RMSProp": (0.4086, 0.2708, 0.8636),
    "Adam": (0.4170, 0.2960, 0.8696),
    "AdaMax": (0.8544, 0.8546, 0.8780),
    "NAdam": (0.1912, 0.1042, 0.8740),
    "AdamW": (0.2026, 0.1042, 0.8702),
}
Values = NDArray[Any]


class At(NamedTuple):
    """An arm at one rate, by seed.

    Attributes:
        rate: the learning rate.
        test: test accuracy after the last epoch.
        valid: validation accuracy likewise.
        early: training loss, averaged over the first three epochs.
    """

    rate: float
    test: Values
    valid: Values
    early: Values

    @classmethod
    def read(cls, found: study.Study, name: str, rate: float) -> At:
        """Take it out of a study; a run that diverged guesses."""
        cell, arm = found.cells.index({"lr": rate}), found.arms[name]
        test, valid = (
            np.where(arm.diverged[cell], 0.1, arm.results[f"{part}_accuracy"][cell])
            for part in ("test", "valid")
        )
        return cls(rate, test, valid, arm.curves["loss"][:3, cell].mean(0))


def tuned(tuning: study.Study) -> dict[str, Values]:
    """Return validation accuracy by arm, rate and seed."""
    return {
        name: np.where(arm.diverged, 0.1, arm.results["valid_accuracy"])
        for name, arm in tuning.arms.items()
    }


def best_rate(tuning: study.Study, name: str) -> float:
    """Choose by the mean over seeds."""
    return tuning.cells[int(tuned(tuning)[name].mean(1).argmax())]["lr"]


def widths(tuning: study.Study) -> dict[str, Values]:
    """Count, for each arm and seed, the rates within a point of its best."""
    return {name: (x > x.max(0) - NEAR).sum(0) for name, x in tuned(tuning).items()}


def claims(tuning: study.Study, best: dict[str, At], book: dict[str, At]) -> list[Claim]:
    """Judge what the chapter and its notebook say of optimizers."""
    adaptive = [name for name in best if name not in PLAIN]
    others = [name for name in best if name != "SGD"]
    return [
        family(
            "All others are faster than plain SGD (the chapter's table). Each at its best rate: a "
            "lower early loss.",
            {name: (best["SGD"].early, best[name].early) for name in others},
            LOSS,
        ),
        family(
            "All others end above plain SGD, each at its best rate.",
            {name: (best[name].test, best["SGD"].test) for name in others},
            POINTS,
        ),
        family(
            "And at 0.05, the one rate that the notebook has for all (printed, validation: SGD "
            ".872, momentum .861, Adam .417, NAdam .191).",
            {name: (book[name].test, book["SGD"].test) for name in others},
            POINTS,
        ),
        tolerance(tuning, adaptive),
        default_rate(tuning),
        *pairs(best, adaptive),
    ]


def pairs(best: dict[str, At], adaptive: list[str]) -> list[Claim]:
    """Judge what is said of two optimizers, by test accuracy or by the loss of the first epochs."""
    late = {name: at.test for name, at in best.items()}
    late |= {
        "momentum and Nesterov": (late["momentum"] + late["Nesterov"]) / 2,
        "adaptive ones": np.mean([late[name] for name in adaptive], 0),
    }
    early = {name: at.early for name, at in best.items()}
    said = {
        "Adaptive optimizers may generalize worse, then Nesterov's is worth a try.": (
            "momentum and Nesterov",
            "adaptive ones",
        ),
        "RMSProp nearly always does much better than AdaGrad.": ("RMSProp", "AdaGrad"),
        "Adam generally does better than AdaMax.": ("Adam", "AdaMax"),
        "NAdam generally does better than Adam.": ("NAdam", "Adam"),
        "AdamW generalizes better than Adam.": ("AdamW", "Adam"),
        "RAdam, without a warm-up, does better than Adam.": ("RAdam", "Adam"),
    }
    fast = {
        "Nesterov's is generally faster than plain momentum.": ("Nesterov", "momentum"),
        "NAdam converges slightly faster than Adam.": ("NAdam", "Adam"),
    }
    rows = [(text, a, b, late[a], late[b], POINTS) for text, (a, b) in said.items()]
    rows += [(text, a, b, early[b], early[a], LOSS) for text, (a, b) in fast.items()]
    found = corrected({text: study.compare(x, y) for text, *_, x, y, _ in rows})
    results = []
    for text, a, b, x, y, margin in rows:
        one = found[text]
        names = (a, b) if margin == POINTS else (f"early loss of {b}", f"that of {a}")
        measured, verdict = judge(one, *names, points=margin == POINTS)
        tie, verdict = settle(one, verdict, x, y, margin)
        results.append(Claim(text, measured + tie, verdict))
    return results


def settle(
    one: study.Comparison, verdict: str, a: Values, b: Values, margin: float
) -> tuple[str, str]:
    """Say of what is open whether it is a tie, or how many seeds would tell."""
    if verdict != OPEN:
        return "", verdict
    unit = f"{100 * margin:g} points" if margin == POINTS else f"{margin:g}"
    same = study.equivalence(a, b, margin)
    if same.p_value < 0.05:
        return f", a tie within {unit} (p = {same.p_value:.2g})", DOES_NOT
    needed = study.seeds_needed(one.sd_difference, margin)
    return f", {needed} seeds would find {unit}", OPEN


def family(text: str, values: dict[str, tuple[Values, Values]], margin: float) -> Claim:
    """Judge "A is above B" for several A: of all, of some, or of none."""
    scale = 100 if margin == POINTS else 1
    found = corrected({name: study.compare(a, b) for name, (a, b) in values.items()})
    verdicts, shown = {}, []
    for name, (a, b) in values.items():
        one = found[name]
        tie, verdicts[name] = settle(one, judge(one, "", "")[1], a, b, margin)
        low, high = (scale * end for end in one.t_interval)
        shown.append(
            f"{name} {scale * one.difference:+.3g} ({low:+.3g} to {high:+.3g}), "
            f"{verdicts[name]}{tie}"
        )
    there = [name for name, verdict in verdicts.items() if verdict == HOLDS]
    if len(there) == len(verdicts):
        verdict = HOLDS
    elif there:
        unsure = [name for name, verdict in verdicts.items() if verdict == OPEN]
        verdict = f"{ONLY_WHEN} it is {', '.join(there)}"
        verdict += f" ({', '.join(unsure)} not settled)" if unsure else ""
    else:
        verdict = DOES_NOT if DOES_NOT in verdicts.values() else OPEN
    unit = "points" if margin == POINTS else "early loss of SGD − that of the other"
    pairs = next(iter(found.values())).n_a
    measured = f"{unit}, 95 %, {pairs} pairs, Holm-corrected: {'; '.join(shown)}"
    return Claim(text, measured, verdict)


def tolerance(tuning: study.Study, adaptive: list[str]) -> Claim:
    """Say whether adaptive optimizers have more good rates."""
    counts = widths(tuning)
    a, b = (np.mean([counts[name] for name in names], 0) for names in (adaptive, PLAIN))
    names = "rates of the adaptive ones", f"of {', '.join(PLAIN)}"
    measured, verdict = judge(study.compare(a, b), *names, points=False)
    by_arm = ", ".join(f"{name} {x.mean():.1f}" for name, x in counts.items())
    return Claim(
        f"Adaptive optimizers need less tuning. Judged: how many of {len(tuning.cells)} rates end "
        f"within {100 * NEAR:g} point of the best.",
        f"{measured}. By optimizer: {by_arm}",
        verdict,
    )


def default_rate(tuning: study.Study) -> Claim:
    """Say what Adam's default rate loses."""
    at = tuning.cells.index({"lr": 0.001})
    adam = tuned(tuning)["Adam"]
    most = int(adam.mean(1).argmax())
    lost, best = (adam[most] - adam[at]).mean(), tuning.cells[most]["lr"]
    return Claim(
        "Adam needs no tuning of its rate: 0.001 mostly does.",
        f"its best of {len(tuning.cells)} rates is {best:g}; at 0.001 validation accuracy is "
        f"{100 * lost:.2f} points lower ({adam.shape[1]} seeds)",
        HOLDS if lost < NEAR else DOES_NOT,
    )


def tables(
    tuning: study.Study, best: dict[str, At], book: dict[str, At]
) -> dict[str, list[list[str]]]:
    """Lay out the numbers."""
    head = ["n", "mean", "95 % of the mean", "sd", "min", "max"]
    at_best = [["optimizer", "rate", *head, "early loss, ± sd"]]
    at_book = [["optimizer", *head, "below 50 %", "printed: 2025, 2026", "Keras at 0.001"]]
    for name, at in best.items():
        early = f"{at.early.mean():.4f} ± {at.early.std(ddof=1):.4f}"
        at_best.append([name, f"{at.rate:g}", *numbers(at.test), early])
        *printed, keras = PRINTED.get(name, (None, None, None))
        lost = f"{(book[name].valid < 0.5).sum()} of {len(book[name].valid)}"
        shown = ", ".join(f"{100 * x:.1f}" for x in printed if x is not None)
        keras_ = "" if keras is None else f"{100 * keras:.1f}"
        at_book.append([name, *numbers(book[name].valid), lost, shown, keras_])
    rates = [f"{cell['lr']:g}" for cell in tuning.cells]
    by_rate = [["optimizer", *rates, f"rates within {100 * NEAR:g} point"]]
    counts = widths(tuning)
    for name, x in tuned(tuning).items():
        accuracies = [f"{100 * y:.1f}" for y in x.mean(1)]
        by_rate.append([name, *accuracies, f"{counts[name].mean():.1f}"])
    return {
        "Test accuracy at the best rate, per cent": at_best,
        f"Validation accuracy at {RATE:g}, per cent, and what is printed": at_book,
        f"Validation accuracy by rate, per cent, mean of {len(tuning.seeds)} seeds": by_rate,
    }


def numbers(values: Values) -> list[str]:
    s = study.summarize(values)
    low, high = (f"{100 * end:.2f}" for end in s.t_interval)
    spread = [f"{100 * x:.2f}" for x in (s.sd, s.min, s.max)]
    return [str(s.n), f"{100 * s.mean:.2f}", f"{low} to {high}", *spread]


def draw(tuning: study.Study, best: dict[str, At], book: dict[str, At]) -> plt.Figure:
    """Draw accuracy by rate, and every run at the best rate and at the chapter's."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5.5), layout="constrained")
    rates = [cell["lr"] for cell in tuning.cells]
    for i, (name, x) in enumerate(tuned(tuning).items()):
        marker = "s" if name in PLAIN else "o"
        left.plot(rates, 100 * x.mean(1), marker, ls="-", color=f"C{i}", label=name)
    left.axvline(RATE, color="grey", ls="--", label=f"the chapter's, {RATE:g}")
    left.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy, per cent")
    left.set_title(f"by rate: mean of {len(tuning.seeds)} seeds")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    for i, (name, at) in enumerate(best.items()):
        heights = i + np.linspace(-0.25, 0.25, len(at.test))
        right.plot(100 * book[name].test, heights, "x", color="grey", alpha=0.6)
        right.plot(100 * at.test, heights, "o", color=f"C{i}", alpha=0.6)
    right.plot([], [], "x", color="grey", label=f"at {RATE:g}")
    right.plot([], [], "o", color="black", label="at its best rate")
    right.set_yticks(range(len(best)), [f"{name}, {at.rate:g}" for name, at in best.items()])
    right.invert_yaxis()
    lowest = min(at.test.min() for at in best.values())
    highest = max(max(best[name].test.max(), book[name].test.max()) for name in best)
    right.set_xlim(100 * lowest - 4, 100 * highest + 0.5)
    hidden = sum(int((at.test < lowest - 0.04).sum()) for at in book.values())
    right.set(xlabel="test accuracy, per cent", ylabel="optimizer, its best rate")
    right.set_title(f"{len(at.test)} seeds each ({hidden} runs at {RATE:g} lie further left)")
    right.legend(loc="lower left")
    return figure
