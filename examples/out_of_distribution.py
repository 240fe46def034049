"""Ask what confidence is worth on images unlike those of training: turned, noisy, of digits.

    python examples/out_of_distribution.py            # 6 seeds, each with an ensemble of 5
    python examples/out_of_distribution.py --fast

Networks 784-100-100-10 learn Fashion-MNIST, and then see its test images rotated by up to 180
degrees or with noise, and handwritten digits. Four ways to predict:

- deterministic: one network, trained without dropout;
- temperature: the same one, its logits divided by what suits the validation images best;
- ensemble: it and four others;
- MC dropout: another network, trained with dropout 0.2 before each linear layer, sampled.

Draws accuracy, negative log-likelihood and calibration error against the shift, and AUROC: the
chance that a shifted image has a higher predictive entropy than an untouched one. Prints AUROC of
the digits by entropy and by mutual information, with the paired difference to the deterministic
network and its 95 % interval (Student's t). Writes `out_of_distribution.json` and
`out_of_distribution.png`. `examples/chapter/h03b_shift.py` is the longer study.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from _classifiers import head, trained, with_dropout
from _fashion_mnist import add_arguments, console, load, parse, spread
from _shift import ANGLES, NOISES, angle_name, foreign, noise_name, shifted
from rich.table import Table
from torch import Tensor, vmap

from fdnn import Model, data, random, study, train, uncertainty
from fdnn.uncertainty import Categorical

MEMBERS = 5
ALONE, SCALED, ENSEMBLE, DROPOUT = "deterministic", "temperature", "ensemble", "MC dropout"
CLEAN = angle_name(0)
Predictions = dict[str, Categorical]  # by way; each field is (seeds, images, ...)


class Networks(NamedTuple):
    """The networks of all seeds, and a temperature for each."""

    plain: tuple[Model, train.TrainState]
    dropout: tuple[Model, train.TrainState]
    temperature: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=6, epochs=10)
    parser.add_argument("--samples", type=int, default=50, help="predictions with dropout")
    parser.add_argument("--images", type=int, default=2000, help="of the test set, the first ones")
    args = parse(parser, fast_seeds=2)
    if args.fast:
        args.samples, args.images = min(args.samples, 10), min(args.images, 200)
    splits, name = load(args)
    if name != "Fashion-MNIST":
        raise SystemExit("this example needs Fashion-MNIST")
    test = head(splits.test, args.images)
    networks = train_all(splits, args)
    console.print("Temperatures:", ", ".join(f"{t:.2f}" for t in networks.temperature.tolist()))

    known = {name: predict(networks, images, args) for name, images in shifted(test.inputs).items()}
    digits = predict(networks, foreign(test.inputs)[: args.images], args)
    curves = {
        name: {way: score(one[way], known[CLEAN][way], test.targets) for way in one}
        for name, one in known.items()
    }
    detection = {way: detect(digits[way], known[CLEAN][way]) for way in digits}
    show(curves, detection)
    plot(curves, detection, known[CLEAN], digits, args)
    results = {
        "shift": {
            name: {way: {k: spread(v) for k, v in found.items()} for way, found in one.items()}
            for name, one in curves.items()
        },
        "digits": {
            way: {k: spread(v) for k, v in found.items()} for way, found in detection.items()
        },
        "temperature": spread(networks.temperature),
    }
    (args.out / "out_of_distribution.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Wrote {args.out}/out_of_distribution.json and .png.")


def train_all(splits: data.Splits, args: argparse.Namespace) -> Networks:
    """Train the ensembles' members and the networks with dropout, and fit the temperatures."""
    model, state = trained(splits, args, dropout=0.0, runs=MEMBERS * args.seeds)
    logits = train.predict(model, state, splits.valid.inputs)[::MEMBERS]
    fit = vmap(uncertainty.temperature_scaling, in_dims=(0, None))
    return Networks(
        (model, state),
        trained(splits, args, dropout=0.2, runs=args.seeds),
        fit(logits, splits.valid.targets),
    )


def predict(networks: Networks, images: Tensor, args: argparse.Namespace) -> Predictions:
    """Predict in every way, all seeds at once."""
    members = uncertainty.regroup(train.predict(*networks.plain, images), MEMBERS)
    alone, many = members[:, :1], vmap(uncertainty.categorical)
    return {
        ALONE: many(alone),
        SCALED: many(vmap(uncertainty.apply_temperature)(alone, networks.temperature)),
        ENSEMBLE: many(members),
        DROPOUT: with_dropout(
            *networks.dropout, images, key=random.key(1), num_samples=args.samples
        ),
    }


def entropy(predictive: Categorical) -> Tensor:
    return uncertainty.predictive_entropy(predictive.probs)


def told_apart(strange: Tensor, familiar: Tensor) -> Tensor:
    """Compute each seed's AUROC of an uncertainty, both `(seeds, images)`."""
    labels = torch.cat([torch.ones(strange.shape[1]), torch.zeros(familiar.shape[1])])
    return vmap(uncertainty.auroc, (0, None))(torch.cat([strange, familiar], 1), labels)


def score(found: Categorical, clean: Categorical, targets: Tensor) -> dict[str, Tensor]:
    """Score predictions of shifted images, by seed."""
    error = uncertainty.expected_calibration_error
    return {
        "accuracy": (found.probs.argmax(-1) == targets).float().mean(-1),
        "NLL": vmap(uncertainty.nll, (0, None))(found.probs, targets),
        "ECE": vmap(error, (0, None))(found.probs, targets),
        "AUROC": told_apart(entropy(found), entropy(clean)),
    }


def detect(digits: Categorical, clean: Categorical) -> dict[str, Tensor]:
    """Score how well digits are told from clothes, by seed."""
    by_entropy = told_apart(entropy(digits), entropy(clean))
    if clean.std.isnan().all():  # one network has nobody to disagree with
        return {"entropy": by_entropy}
    disagreement = (entropy(one) - one.expected_entropy for one in (digits, clean))
    return {"entropy": by_entropy, "mutual information": told_apart(*disagreement)}


def show(curves: dict[str, Any], detection: dict[str, dict[str, Tensor]]) -> None:
    table = Table("AUROC of digits", "by", "mean, 95 %", "minus deterministic, 95 %")
    for way, found in detection.items():
        for by, values in found.items():
            now, gain = spread(values), ""
            if way not in (ALONE, SCALED) and len(values) > 1:
                compared = study.compare(values, detection[ALONE]["entropy"])
                low, high = compared.t_interval
                gain = f"{compared.difference:+.3f} ({low:+.3f} to {high:+.3f})"
            table.add_row(
                way, by, f"{now['mean']:.3f} ({now['low']:.3f} to {now['high']:.3f})", gain
            )
    console.print(table)
    shown = [CLEAN, angle_name(45), angle_name(90), noise_name(NOISES[-1])]
    table = Table("accuracy, NLL, ECE", *shown)
    for way in curves[CLEAN]:
        cells = [
            [curves[name][way][k].mean() for k in ("accuracy", "NLL", "ECE")] for name in shown
        ]
        table.add_row(way, *("{:.3f}, {:.2f}, {:.3f}".format(*cell) for cell in cells))
    console.print(table)


def plot(
    curves: dict[str, Any],
    detection: dict[str, dict[str, Tensor]],
    clean: Predictions,
    digits: Predictions,
    args: argparse.Namespace,
) -> None:
    """Draw the scores against the shift, and the entropies of clothes and digits."""
    figure, axes = plt.subplots(3, 4, figsize=(16, 11), layout="constrained")
    levels = (
        ("rotation, degrees", ANGLES, [angle_name(x) for x in ANGLES]),
        ("standard deviation of noise", (0, *NOISES), [CLEAN, *map(noise_name, NOISES)]),
    )
    for row, (label, places, names) in zip(axes, levels, strict=False):
        for ax, metric in zip(row, curves[CLEAN][ALONE], strict=True):
            for way in clean:
                found = [spread(curves[name][way][metric]) for name in names]
                ax.fill_between(
                    places, [f["min"] for f in found], [f["max"] for f in found], alpha=0.2
                )
                style = "o--" if way == SCALED else "o-"
                ax.plot(places, [f["mean"] for f in found], style, ms=3, label=way)
            ax.set(xlabel=label, ylabel=metric)
    axes[0, 0].legend()
    for ax, way in zip(axes[2], clean, strict=True):
        entropies = {"clothes": entropy(clean[way]), "digits": entropy(digits[way])}
        uncertainty.plot_entropies(entropies, ax)
        ax.set_title(f"{way}: AUROC {detection[way]['entropy'].mean():.3f}")
    figure.suptitle(
        f"Unlike training: {args.seeds} seeds, their mean and range; AUROC by predictive entropy"
    )
    figure.savefig(args.out / "out_of_distribution.png", dpi=100)


if __name__ == "__main__":
    main()
