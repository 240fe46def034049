"""Turn probabilities into sets, and predictions into intervals, that hold the truth 9 times in 10.

    python examples/conformal.py            # 5 networks x 40 splits, 200 splits of diabetes
    python examples/conformal.py --fast

Clothes: networks 784-100-100-10, MC dropout, split conformal prediction. Of the 15 000 images that
no network was trained on, 1000 drawn at random calibrate, the others are predicted, over and over.
LAC takes every class that is probable enough: the smallest sets. APS takes the likeliest classes
until they have enough probability: larger sets where the network is unsure, and a coverage that
differs less from class to class. The promise is the average over all classes, not each of them.

Diabetes: for each split a network of its own, all trained at once, on 221 patients; 110 calibrate
intervals, 111 are predicted. Compared are the interval that the model itself gives (MC dropout and
the noise of the training data), conformal ones of equal width, and ones in proportion to what MC
dropout says. Paired differences have 95 % intervals (Student's t).

Prints coverage and size; writes `conformal.json` and `conformal.png`.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import matplotlib.pyplot as plt
import torch
from _classifiers import head, trained, with_dropout
from _fashion_mnist import add_arguments, console, load, parse, spread
from rich.table import Table
from torch import Tensor, nn, vmap

import fdnn
from fdnn import data, functionalize, losses, optim, random, study, train, uncertainty

ALPHA, CALIBRATION = 0.1, 1000
RATE, DECAY = 0.1, 1e-3  # of the regression's dropout and weight decay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, seeds=5, epochs=10)
    parser.add_argument("--splits", type=int, default=40, help="of the images, for each seed")
    parser.add_argument("--patients", type=int, default=200, help="splits of the diabetes data")
    parser.add_argument("--samples", type=int, default=50, help="predictions with dropout")
    parser.add_argument("--steps", type=int, default=200, help="of each regression")
    args = parse(parser, fast_seeds=2)
    splits, name = load(args)
    if name != "Fashion-MNIST":
        raise SystemExit("this example needs Fashion-MNIST")
    if args.fast:
        args.splits, args.patients, args.samples, args.steps = 5, 10, 10, 100
        splits = splits._replace(valid=head(splits.valid, 1000), test=head(splits.test, 1000))
    sets = clothes(splits, args)
    intervals = patients(args)
    show(sets, intervals)
    plot(sets, intervals, args)
    results = {
        "clothes": {
            method: {k: found[k].flatten(0, 1).mean(0).tolist() for k in found}
            | {"coverage over calibrations": spread(found["coverage"].flatten())}
            for method, found in sets.items()
        },
        "diabetes": {
            method: {k: spread(v) for k, v in found.items()} for method, found in intervals.items()
        },
    }
    (args.out / "conformal.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Wrote {args.out}/conformal.json and .png.")


def clothes(splits: data.Splits, args: argparse.Namespace) -> dict[str, dict[str, Tensor]]:
    """Predict sets of classes: by method, numbers of shape (seeds, splits, ...)."""
    model, state = trained(splits, args, dropout=0.2, runs=args.seeds)
    held = data.Batch(*(torch.cat(both) for both in zip(splits.valid, splits.test, strict=True)))
    options = {"key": random.key(1), "num_samples": args.samples}
    probs = with_dropout(model, state, held.inputs, **options).probs
    keys = random.split(random.key(2), args.splits)
    found = [vmap(lambda key, p=p: one_split(key, p, held.targets))(keys) for p in probs]
    return fdnn.tree.map(lambda *seeds: torch.stack(seeds), *found)


def one_split(key: Any, probs: Tensor, targets: Tensor) -> dict[str, dict[str, Tensor]]:
    """Calibrate on a thousand images, and predict the others."""
    order, first, second = random.split(key, 3)
    places = random.permutation(order, len(targets))
    held, new = places[:CALIBRATION], places[CALIBRATION:]
    scores = uncertainty.lac_scores(probs[held], targets[held])
    lac = uncertainty.lac_sets(probs[new], uncertainty.conformal_quantile(scores, ALPHA))
    scores = uncertainty.aps_scores(probs[held], targets[held], key=first)
    threshold = uncertainty.conformal_quantile(scores, ALPHA)
    aps = uncertainty.aps_sets(probs[new], threshold, key=second)
    return {"LAC": describe(lac, targets[new]), "APS": describe(aps, targets[new])}


def describe(sets: Tensor, targets: Tensor) -> dict[str, Tensor]:
    size = sets.sum(-1).float()
    hit = sets.gather(1, targets[:, None])[:, 0].float()
    of_class = nn.functional.one_hot(targets, sets.shape[1]).float()
    return {
        "coverage": uncertainty.set_coverage(sets, targets),
        "size": size.mean(),
        "empty": (size == 0).float().mean(),
        "class_coverage": hit @ of_class / of_class.sum(0),
        "class_size": size @ of_class / of_class.sum(0),
    }


def patients(args: argparse.Namespace) -> dict[str, dict[str, Tensor]]:
    """Train a network for each split of the patients, and predict intervals in three ways."""
    parts = data.diabetes()
    x, y = (torch.cat(both) for both in zip(*parts, strict=True))
    keys = random.split(random.key(3), args.patients)
    order = vmap(lambda key: random.permutation(key, len(y)))(keys)
    fit, held, new = order.tensor_split([221, 331], 1)
    dropout = nn.Dropout(RATE)
    net = nn.Sequential(nn.Linear(10, 50), nn.ReLU(), dropout, nn.Linear(50, 1))
    model, tx = functionalize(net), optim.adam(lr=0.01, weight_decay=DECAY)
    step = vmap(train.make_step(train.supervised(model, losses.mse_loss), tx))
    step = step if args.no_compile or args.fast else fdnn.jit(step)
    state = vmap(lambda key: train.init(model, tx, key))(keys)
    for _ in range(args.steps):
        state, _ = step(state, (x[fit], y[fit]))

    def one(params: Any, buffers: Any, key: Any, fit: Any, held: Any, new: Any) -> Any:
        outputs = uncertainty.mc_dropout(
            model, params, buffers, x, key=key, num_samples=args.samples, chunk_size=None
        )
        mean, spread_of_weights = uncertainty.gaussian(outputs[..., 0])
        noise = (mean[fit] - y[fit, 0]).square().mean()
        scale = (spread_of_weights + noise).sqrt()
        own = uncertainty.gaussian_interval(mean[new], scale[new].square(), 1 - ALPHA)
        found = {"the model's own": own}
        for name, width in (("conformal", torch.ones_like(mean)), ("conformal, scaled", scale)):
            scores = uncertainty.residual_scores(mean[held], y[held, 0], scale=width[held])
            threshold = uncertainty.conformal_quantile(scores, ALPHA)
            found[name] = uncertainty.residual_interval(mean[new], threshold, scale=width[new])
        return {
            name: {
                "coverage": uncertainty.coverage(*interval, y[new, 0]),
                "width": uncertainty.interval_width(*interval),
            }
            for name, interval in found.items()
        }

    found: dict[str, dict[str, Tensor]] = vmap(one)(
        state.params, state.buffers, state.key, fit, held, new
    )
    return found


def show(sets: dict[str, dict[str, Tensor]], intervals: dict[str, dict[str, Tensor]]) -> None:
    table = Table("clothes", "coverage, sd", "classes a set", "empty sets", "coverage by class")
    for method, found in sets.items():
        by_class = found["class_coverage"].mean((0, 1))
        table.add_row(
            method,
            f"{found['coverage'].mean():.4f}, {found['coverage'].std():.4f}",
            f"{found['size'].mean():.3f}",
            f"{found['empty'].mean():.1%}",
            f"{by_class.min():.3f} to {by_class.max():.3f}",
        )
    console.print(table)
    exact = math.sqrt(ALPHA * (1 - ALPHA) / CALIBRATION)
    console.print(
        f"Promised: {1 - ALPHA:.3f} to {1 - ALPHA + 1 / (CALIBRATION + 1):.3f} on average; "
        f"from one calibration to the next it varies by about {exact:.4f}."
    )
    table = Table("diabetes", "coverage, 95 %", "width", "width minus equal ones', 95 %")
    for method, found in intervals.items():
        now, gain = spread(found["coverage"]), ""
        if method != "conformal":
            compared = study.compare(found["width"], intervals["conformal"]["width"])
            low, high = compared.t_interval
            gain = f"{compared.difference:+.3f} ({low:+.3f} to {high:+.3f})"
        table.add_row(
            method,
            f"{now['mean']:.4f} ({now['low']:.4f} to {now['high']:.4f})",
            f"{found['width'].mean():.3f}",
            gain,
        )
    console.print(table)


def plot(
    sets: dict[str, dict[str, Tensor]],
    intervals: dict[str, dict[str, Tensor]],
    args: argparse.Namespace,
) -> None:
    """Draw coverage over calibrations, coverage and size by class, and the patients' intervals."""
    figure, axes = plt.subplots(2, 2, figsize=(13, 9), layout="constrained")
    classes = data.FASHION_MNIST_CLASSES
    for method, found in sets.items():
        axes[0, 0].hist(found["coverage"].flatten().tolist(), "auto", alpha=0.6, label=method)
    axes[0, 0].set(xlabel="coverage", ylabel="calibrations", title="clothes, over calibrations")
    for ax, kind in ((axes[0, 1], "coverage"), (axes[1, 0], "size")):
        for i, (method, found) in enumerate(sets.items()):
            values = found[f"class_{kind}"].mean((0, 1)).tolist()
            ax.bar([k + 0.4 * i - 0.2 for k in range(len(classes))], values, 0.4, label=method)
        ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        ax.set(ylabel=f"mean {kind}", title="clothes, by class")
    axes[0, 1].set_ylim(0.5, 1.0)
    for method, found in intervals.items():
        axes[1, 1].plot(
            found["width"].tolist(), found["coverage"].tolist(), ".", alpha=0.6, label=method
        )
    axes[1, 1].set(xlabel="width, hundreds of points", ylabel="coverage", title="diabetes, splits")
    axes[0, 0].axvline(1 - ALPHA, color="black", ls=":")
    for ax in (axes[0, 1], axes[1, 1]):
        ax.axhline(1 - ALPHA, color="black", ls=":")
    for ax in axes.flat:
        ax.legend(loc="lower right" if ax is axes[0, 1] else "best", framealpha=0.9)
    figure.suptitle(f"Split conformal prediction at {1 - ALPHA:.0%} (dotted)")
    figure.savefig(args.out / "conformal.png", dpi=100)


if __name__ == "__main__":
    main()
