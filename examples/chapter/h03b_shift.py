"""H3b: what is a net's confidence worth on images unlike those it was trained on?

    python examples/chapter/h03b_shift.py            # the nets of h03, 12 test sets and digits
    python examples/chapter/h03b_shift.py --fast

Takes the nets of h03_mc_dropout.py (55,000 images, 10 epochs; trained if they are not in the store)
and shows them the test images rotated, or with noise, and handwritten digits.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from _chapter import parse, publish
from _fashion_mnist import load
from _mc_dropout_findings import ENSEMBLE, MC, NONE, OFF, SCALED, Units
from _shift import ANGLES, NOISES, angle_name, foreign, noise_name, shifted
from _shift_findings import PLAIN, PREDICTORS, SETS, by_uncertainty, claims, mean_of
from _uncertain_nets import (
    MANY,
    MEMBERS,
    OWNER,
    RATE,
    SEED,
    Nets,
    network,
    probabilities,
    remembered,
    sampler,
    scores,
    together,
    trained,
)

from fdnn import data, random, study, tree, uncertainty
from fdnn.uncertainty import Categorical

PROTOCOL = f"""
The nets of [H3]({OWNER}.md), trained on 55,000 images of Fashion-MNIST for 10 epochs; none is
trained for this page. Single nets with dropout of rate {RATE} and without, MC dropout of 100
passes (probabilities averaged), ensembles of {MEMBERS} nets without dropout, one of which is the
single one; temperatures are fitted to the 5,000 validation images as they are. They predict the
10,000 test images rotated about their center by up to 180° (bilinear, black outside), or with
normal noise added to each pixel, whose standard deviation is given as a share of white (cut off at
black and white; the same noise for all). Foreign images are scikit-learn's 1,797 digits, enlarged
to 28 x 28; AUROC is the chance that one of them gets a higher uncertainty than a test image.
Averages over a kind of shift are over its levels, 0 left out. All comparisons are paired by unit as
in H3. What is said here of shift is what is commonly quoted from Ovadia et al. (2019), "Can you
trust your model's uncertainty?"; we had no copy to check the words by.
"""


def main() -> None:
    args = parse(__doc__, seeds=10)
    splits, _ = load(args)
    passes = 10 if args.fast else 100
    if args.fast:
        few = [data.Batch(*(x[:250] for x in part)) for part in (splits.valid, splits.test)]
        splits = splits._replace(valid=few[0], test=few[1])
    units = measure(args, splits, trained(args, splits, MANY), passes)
    publish(
        args,
        title="H3b. Uncertainty under shift",
        protocol=PROTOCOL,
        claims=claims(units),
        tables={
            f"Mean of {args.seeds} units": table(units),
            "AUROC of foreign images, mean ± standard deviation": auroc_table(units),
        },
        figure=draw(units),
        studies=[],
        seconds=sum(unit["seconds"] for unit in units),
        numbers={"units": units},
    )


def measure(args: argparse.Namespace, splits: data.Splits, nets: Nets, passes: int) -> Units:
    """Measure all predictors of each unit on all sets."""
    model = network(splits, RATE)
    sample = sampler(model, args)
    sets, strange = shifted(splits.test.inputs), foreign(splits.test.inputs)

    def unit(i: int) -> dict[str, Any]:
        dropout, none = nets.ensemble("dropout", i), nets.ensemble("none", i)
        alone = {OFF: dropout, NONE: none}
        alone = {name: tree.map(lambda x: x[:1], nets) for name, nets in alone.items()}
        fitted = {
            name: uncertainty.temperature_scaling(
                together(model, one, splits.valid.inputs).probs.log(), splits.valid.targets
            )
            for name, one in alone.items()
        }

        def predict(images: torch.Tensor) -> dict[str, Categorical]:
            found = {name: together(model, one, images) for name, one in alone.items()}
            for name, temperature in fitted.items():
                scaled = uncertainty.apply_temperature(found[name].probs.log(), temperature)
                found[name + SCALED] = uncertainty.categorical(scaled.unsqueeze(0))
            params, buffers = tree.map(lambda x: x[0], dropout)
            key = random.key(SEED + i)
            state = sample(params, buffers, images, key=key, passes=passes)
            return found | {MC: probabilities(state), ENSEMBLE: together(model, none, images)}

        known = {name: predict(images) for name, images in sets.items()}
        away = predict(strange)
        measured = {
            name: {p: scores(one[p].probs, splits.test.targets) for p in PREDICTORS}
            for name, one in known.items()
        }
        return {"scores": measured, "auroc": {p: told(known[PLAIN[0]][p], away[p]) for p in away}}

    def about(i: int) -> Any:
        members = [nets.ensemble(arm, i)[0] for arm in ("dropout", "none")]
        return [*members, passes, list(sets), len(splits.valid.targets), len(splits.test.targets)]

    return [remembered(args, f"unit {i}", about(i), lambda i=i: unit(i)) for i in range(nets.units)]


def told(known: Categorical, away: Categorical) -> dict[str, float]:
    """Measure how well uncertainty tells foreign images from test images."""
    labels = torch.cat([torch.zeros(len(known.probs)), torch.ones(len(away.probs))])
    total = torch.cat([uncertainty.predictive_entropy(one.probs) for one in (known, away)])
    agreed = torch.cat([one.expected_entropy for one in (known, away)])
    return {
        "entropy": uncertainty.auroc(total, labels).item(),
        "mutual information": uncertainty.auroc(total - agreed, labels).item(),
    }


def table(units: Units) -> list[list[str]]:
    """Average scores over units, and over the levels of a shift; by level they are in the JSON."""
    shown = {"accuracy": "accuracy, %", "nll": "NLL", "brier": "Brier", "ece": "ECE"}
    rows = [["test images", "score", *PREDICTORS]]
    for when, names in SETS.items():
        for score, label in shown.items():
            scale, digits = (100, ".2f") if score == "accuracy" else (1, ".4f")
            means = [scale * mean_of(units, names, p, score).mean() for p in PREDICTORS]
            rows.append([when, label, *(f"{mean:{digits}}" for mean in means)])
    return rows


def auroc_table(units: Units) -> list[list[str]]:
    def spread(p: str, kind: str) -> str:
        x = by_uncertainty(units, p, kind)
        return f"{x.mean():.4f} ± {x.std(ddof=1):.4f}"

    rows = [["predictor", "by predictive entropy", "by mutual information"]]
    for p in PREDICTORS:
        informed = spread(p, "mutual information") if p in (MC, ENSEMBLE) else "has none"
        rows.append([p, spread(p, "entropy"), informed])
    return rows


def draw(units: Units) -> plt.Figure:
    """Draw scores against the shift, and how well foreign images are told."""
    figure, axes = plt.subplot_mosaic(
        [["a0", "b0", "c0", "auroc"], ["a1", "b1", "c1", "auroc"]],
        figsize=(16, 7.5),
        layout="constrained",
    )
    levels = (
        ("rotation, degrees", ANGLES, [angle_name(x) for x in ANGLES]),
        ("standard deviation of noise", (0, *NOISES), [noise_name(x) for x in (0, *NOISES)]),
    )
    for row, (label, x, names) in enumerate(levels):
        for column, score in zip("abc", ("accuracy", "brier", "ece"), strict=True):
            ax = axes[f"{column}{row}"]
            for predictor in PREDICTORS:
                seen = np.array([mean_of(units, [name], predictor, score) for name in names])
                known = [study.summarize(one) for one in seen]
                low, high = np.array([one.t_interval for one in known]).T
                style = "--" if predictor.endswith(SCALED) else "-"
                color = f"C{[OFF, MC, NONE, ENSEMBLE].index(predictor.removesuffix(SCALED))}"
                ax.plot(x, seen.mean(1), f"o{style}", ms=3, color=color, label=predictor)
                ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            name = {"accuracy": "accuracy", "brier": "Brier score", "ece": "ECE"}[score]
            ax.set(xlabel=label, ylabel=name, ylim=(0, 1) if score == "accuracy" else (0, None))
    axes["a0"].legend()
    ax, shown = axes["auroc"], []
    for predictor in PREDICTORS:
        for kind in ("entropy", "mutual information"):
            if kind == "entropy" or predictor in (MC, ENSEMBLE):
                values = by_uncertainty(units, predictor, kind)
                found = study.summarize(values)
                reach = [[abs(end - found.mean)] for end in found.t_interval]
                color = "C0" if kind == "entropy" else "C1"
                ax.errorbar(found.mean, len(shown), xerr=reach, fmt="o", color=color, capsize=4)
                ax.plot(values, [len(shown)] * len(values), ".", color=color, alpha=0.3)
                shown.append(f"{predictor},\nby {kind}")
    ax.set_yticks(range(len(shown)), shown)
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
    ax.set(xlabel="AUROC, digits against clothes", title="telling foreign images")
    figure.suptitle(
        f"Nets trained on upright Fashion-MNIST without noise; mean of {len(units)} units, "
        "bands and bars: its 95 % interval"
    )
    return figure


if __name__ == "__main__":
    main()
