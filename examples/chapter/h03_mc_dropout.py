"""H3: is a net with MC dropout more accurate and better calibrated, and what should be averaged?

    python examples/chapter/h03_mc_dropout.py            # 2 training sets, 10 x 5 nets of 2 kinds
    python examples/chapter/h03_mc_dropout.py --fast

Trains the net 784-100-100-10, with dropout and without, on many images for few epochs and on few
images for many. Then measures it with dropout off, with 100 random masks of which probabilities or
logits are averaged, and as an ensemble, each before and after temperature scaling.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from _chapter import parse, publish
from _fashion_mnist import load
from _mc_dropout_findings import (
    ENSEMBLE,
    ENSEMBLE_OFF,
    MC,
    MC_LOGITS,
    NONE,
    OFF,
    PREDICTORS,
    SCALED,
    Units,
    by_unit,
    claims,
)
from _uncertain_nets import (
    FEW,
    MANY,
    MEMBERS,
    RATE,
    SEED,
    Nets,
    at_temperature,
    logits,
    network,
    probabilities,
    remembered,
    sampler,
    scores,
    together,
    trained,
)

from fdnn import data, random, study, tree, uncertainty
from fdnn.types import Key

PROTOCOL = f"""
The net 784-100-100-10 (ReLU, He, biases 0) on Fashion-MNIST, with dropout of rate {RATE} before
each of its three linear layers, the inputs too, and without; SGD with momentum 0.9, learning rate
0.01, batches of 32, cross-entropy. Once on 55,000 images for 10 epochs, which is the chapter's way,
once on the first 5,000 for 100 epochs, where it overfits; the last epoch counts. Unit i of the
evaluation has the single nets of seed i, with dropout and without, which began equal and saw their
batches in the same order; and of both kinds an ensemble of {MEMBERS} nets, of which that net is one
and no net is in two. All comparisons are paired by unit. MC dropout averages 100 passes of the
single net with random masks: their probabilities, or their logits. Ensembles average probabilities,
with dropout off. The temperature is fitted to the 5,000 validation images, for an average of
probabilities to its logarithm. ECE has 15 equally wide bins; the Brier score is the sum over
classes. Units differ in start, batches and masks; the images are the same for all.
"""


def main() -> None:
    args = parse(__doc__, seeds=10)
    splits, _ = load(args)
    passes = 10 if args.fast else 100
    if args.fast:
        few = [data.Batch(*(x[:250] for x in part)) for part in (splits.valid, splits.test)]
        splits = splits._replace(valid=few[0], test=few[1])
    nets = {regime: trained(args, splits, regime) for regime in (MANY, FEW)}
    found = {regime: measure(args, splits, regime, nets[regime], passes) for regime in nets}
    publish(
        args,
        title="H3. MC dropout, averages and ensembles",
        protocol=PROTOCOL,
        claims=claims(found),
        tables={
            f"{regime}: test set, mean ± standard deviation of {args.seeds} units": table(units)
            for regime, units in found.items()
        },
        figure=draw(found),
        studies=[one.found for one in nets.values()],
        seconds=sum(unit["seconds"] for units in found.values() for unit in units),
        numbers={"units": found},
    )


def measure(
    args: argparse.Namespace, splits: data.Splits, regime: str, nets: Nets, passes: int
) -> Units:
    """Measure all predictors of each unit."""
    model = network(splits, RATE)
    sample = sampler(model, args)

    def unit(i: int) -> dict[str, Any]:
        valid, test = (
            predict(i, random.fold_in(random.key(SEED + i), number), part.inputs)
            for number, part in enumerate((splits.valid, splits.test))
        )
        unscaled = {name: scores(test[name], splits.test.targets) for name in PREDICTORS}
        scaled = {
            name + SCALED: scores(
                at_temperature(test[name], valid[name], splits.valid.targets), splits.test.targets
            )
            for name in PREDICTORS
        }
        bins = {name: plain(test[name], splits.test.targets) for name in (OFF, MC, ENSEMBLE)}
        excess = scores(valid[OFF], splits.valid.targets)["excess"]
        return {"scores": unscaled | scaled, "reliability": bins, "valid_excess": excess}

    def predict(i: int, key: Key, images: torch.Tensor) -> dict[str, torch.Tensor]:
        dropout, none = nets.ensemble("dropout", i), nets.ensemble("none", i)
        state = sample(*tree.map(lambda x: x[0], dropout), images, key=key, passes=passes)
        found = {
            OFF: together(model, tree.map(lambda x: x[:1], dropout), images),
            MC: probabilities(state),
            MC_LOGITS: logits(state),
            NONE: together(model, tree.map(lambda x: x[:1], none), images),
            ENSEMBLE: together(model, none, images),
            ENSEMBLE_OFF: together(model, dropout, images),
        }
        return {name: one.probs for name, one in found.items()}

    def about(i: int) -> Any:
        sizes = [len(splits.valid.targets), len(splits.test.targets)]
        return [nets.ensemble("dropout", i)[0], nets.ensemble("none", i)[0], passes, sizes]

    return [
        remembered(args, f"{regime}, unit {i}", about(i), lambda i=i: unit(i))
        for i in range(nets.units)
    ]


def plain(probs: torch.Tensor, targets: torch.Tensor) -> list[list[float | None]]:
    """Bin by confidence, as JSON can write it: None is what an empty bin has."""
    found = uncertainty.reliability(probs, targets)
    return [[x if x == x else None for x in field.tolist()] for field in found]


def table(units: Units) -> list[list[str]]:
    shown = {"accuracy": "accuracy, %", "nll": "NLL", "brier": "Brier", "ece": "ECE"}
    rows = [["predictor", *shown.values(), "confidence − accuracy"]]
    for name in (*PREDICTORS, *(name + SCALED for name in PREDICTORS)):
        cells = []
        for score in (*shown, "excess"):
            x = by_unit(units, name, score) * (100 if score == "accuracy" else 1)
            digits = ".2f" if score == "accuracy" else "+.4f" if score == "excess" else ".4f"
            cells.append(f"{x.mean():{digits}} ± {x.std(ddof=1):{digits.strip('+')}}")
        rows.append([name, *cells])
    return rows


def draw(found: dict[str, Units]) -> plt.Figure:
    """Draw NLL and ECE of all predictors, and three reliability diagrams, for each regime."""
    figure, axes = plt.subplots(
        2, 3, figsize=(14, 8), layout="constrained", width_ratios=[1, 1, 0.9]
    )
    for row, (regime, units) in zip(axes, found.items(), strict=True):
        for ax, score in zip(row, ("nll", "ece"), strict=False):
            for kind, suffix in enumerate(("", SCALED)):
                values = [by_unit(units, name + suffix, score) for name in PREDICTORS]
                known = [study.summarize(x) for x in values]
                mean = np.array([one.mean for one in known])
                reach = np.abs(np.array([one.t_interval for one in known]).T - mean)
                place = np.arange(len(values)) + 0.3 * kind - 0.15
                color = f"C{kind}"
                name = ("as it is", "with a temperature")[kind]
                ax.errorbar(
                    mean, place, xerr=reach, fmt="o", color=color, capsize=3, ms=4, label=name
                )
                ax.plot(np.array(values), place, ".", color=color, alpha=0.25, ms=4)
            ax.set_yticks(range(len(PREDICTORS)), PREDICTORS if ax is row[0] else [])
            ax.invert_yaxis()
            ax.set(xlabel=f"{score.upper()} of the test set (lower is better)", title=regime)
            ax.grid(axis="x", alpha=0.3)
        for name in (OFF, MC, ENSEMBLE):
            fields = zip(*(unit["reliability"][name] for unit in units), strict=True)
            stacked = [torch.tensor(np.array(field, dtype=float)) for field in fields]
            uncertainty.plot_reliability(uncertainty.Reliability(*stacked), row[2], label=name)
        row[2].set(title=f"{regime} (bars: share)", xlim=(0.2, 1), aspect="auto")
        row[2].set(xlabel="confidence (below the diagonal: overconfident)")
        row[2].legend(loc="lower right", bbox_to_anchor=(1, 0.1))
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower left", ncols=2)
    count = len(next(iter(found.values())))
    figure.suptitle(
        f"Fashion-MNIST, 784-100-100-10, {count} units; dots: units; bars: 95 % of the mean"
    )
    return figure


if __name__ == "__main__":
    main()
