"""H9: how much of a network can be pruned, how, and what helps?

    python examples/chapter/h09_pruning.py            # 2 ways to train, 10 seeds, 6 amounts
    python examples/chapter/h09_pruning.py --fast

Trains the net 784-100-100-100-10 with and without an l1 penalty, prunes it layer by layer or by one
threshold for all, and trains what is left for one more epoch.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _chapter import (
    DOES_NOT,
    HOLDS,
    OPEN,
    Claim,
    corrected,
    parse,
    publish,
    summary_rows,
)
from _contrast import Contrast, contrast, together
from _fashion_mnist import load
from _pruning_runs import AMOUNTS, PRUNE, TRAINED, Found, runs

from fdnn import study

MARGIN = 0.003  # a loss below it does not matter: the standard error of 10,000 test images
HOW = {"layer-wise": "layer by layer", "global": "by one threshold"}
NET = {"plain": "the plainly trained net", "l1": "the net trained with l1"}
PROTOCOL = f"""
The net 784-100-100-100-10 (ReLU, He) on Fashion-MNIST, plain SGD at 0.05 for 10 epochs in batches
of 32, cross-entropy; "l1" adds 1e-4 times the sum of the sizes of all weights to the loss. Then a
share of the weights, those of smallest absolute value, is set to 0 (biases stay): of each layer
(`compress.l1_unstructured`, the masks of torch's), or of all layers by one threshold
(`compress.global_unstructured`). "Tuned": one more epoch of the same training, pruned weights kept
at 0; it is compared with the net that nothing was pruned of after the same epoch, so that the epoch
as such is no gain. All is paired: arms of a seed share their start and their batches, all amounts
the trained net. Test accuracy, no choice by validation. "No loss" means: less than
{100 * MARGIN:g} points, the standard error of 10,000 test images, chosen before any run.
"""


def main() -> None:
    args = parse(__doc__, seeds=10)
    splits, _ = load(args)
    found = runs(args, splits)
    publish(
        args,
        title="H9. Pruning",
        protocol=PROTOCOL,
        claims=claims(found),
        tables={
            "Test accuracy before pruning, per cent": summary_rows(found.trained, "test_accuracy"),
            "Loss by pruning, points, with its 95 % interval": losses_table(found.pruned),
            "Loss left after one more epoch, points": losses_table(found.after),
            "Pruned of each layer by one threshold, per cent": zeros_table(found),
        },
        figure=draw(found),
        studies=[found.trained, found.tuned],
        numbers={
            "amounts": AMOUNTS,
            "pruned": {name: values.tolist() for name, values in found.pruned.items()},
            "tuned": {name: values.tolist() for name, values in found.after.items()},
            "below_0.001": {name: values.tolist() for name, values in found.near_zero.items()},
        },
    )


def claims(found: Found) -> list[Claim]:
    """Judge what is said of pruning."""
    pruned, after = found.pruned, found.after
    change = {name: values - values[0] for name, values in pruned.items()}

    def above(claimed: str, values: dict[str, Any], a: str, b: str, *names: str) -> Claim:
        by_amount = {
            when(amount): Contrast(names[0], values[a][i], names[1], values[b][i])
            for i, amount in enumerate(AMOUNTS)
            if amount
        }
        return contrast(claimed, by_amount, delta=MARGIN)

    rows = [
        no_loss(
            "30 % of the weights can be pruned at no loss (the chapter prunes layer by layer, and "
            "prints no figure).",
            {
                f"{NET[start]} is pruned {how}": (pruned[f"{start}, {prune}"], AMOUNTS.index(0.3))
                for start in TRAINED
                for prune, how in HOW.items()
            },
        )
    ]
    said = "One threshold for all layers loses less than the same share of each"
    for values, text in ((pruned, f"{said}."), (after, f"{said}, fine-tuned.")):
        pair = ("plain, global", "plain, layer-wise")
        rows.append(above(text, values, *pair, "one threshold", "layer by layer"))
    first = [
        f"{shares[0]:.1%} when {when(amount)}"
        for amount, shares in zip(AMOUNTS, found.zeros["plain, global"], strict=True)
        if amount
    ]
    taken = f"{rows[1].measured}. Of the first layer it takes {', '.join(first)}"
    rows[1] = rows[1]._replace(measured=taken)
    share = {name: f"{values.mean():.1%}" for name, values in found.near_zero.items()}
    small = f"Of the weights {share['l1']} are below 0.001, without l1 {share['plain']}: "
    for prune, how in HOW.items():
        row = above(
            f"A net trained with an l1 penalty loses less, pruned {how}.",
            change,
            f"l1, {prune}",
            f"plain, {prune}",
            "l1",
            "plain",
        )
        rows.append(row._replace(measured=small + row.measured))
    said = "It is the more accurate net as well, pruned by one threshold"
    for values, text in ((pruned, f"{said}."), (after, f"{said} and fine-tuned.")):
        rows.append(above(text, values, "l1, global", "plain, global", "l1", "plain"))
    for prune, how in HOW.items():
        values = after[f"plain, {prune}"]
        by_amount = {when(amount): (values, i) for i, amount in enumerate(AMOUNTS) if amount}
        said = f"One epoch of fine-tuning wins back what pruning {how} lost."
        rows.append(no_loss(said, by_amount))
    return rows


def when(amount: float) -> str:
    """Name the condition that so much is pruned."""
    return f"{100 * amount:g} % are pruned"


def no_loss(claimed: str, conditions: dict[str, tuple[Any, int]]) -> Claim:
    """Judge "pruning costs less than `MARGIN`" under every condition, with Holm's correction.

    It holds where the loss is shown to be below the margin, does not where there is a loss and that
    is not shown, and is open otherwise.

    Args:
        claimed: in our words.
        conditions: as they read after "when", accuracies (amounts, seeds) and the amount's index.
    """
    pairs = {case: (values[i], values[0]) for case, (values, i) in conditions.items()}
    plain = {case: study.compare(x, y) for case, (x, y) in pairs.items()}
    shifted = {case: study.compare(x + MARGIN, y) for case, (x, y) in pairs.items()}
    p_loss, p_none = (
        {case: one.p_holm for case, one in corrected(tests).items()} for tests in (plain, shifted)
    )
    texts, verdicts = [], {}
    for case, one in plain.items():
        low, high = (100 * end for end in one.t_interval)
        text = f"when {case}, {100 * one.difference:+.2f} points ({low:+.2f} to {high:+.2f})"
        if shifted[case].difference > 0 and p_none[case] < 0.05:
            verdicts[case] = HOLDS
        elif one.difference < 0 and p_loss[case] < 0.05:
            verdicts[case] = DOES_NOT
        else:
            verdicts[case] = OPEN
            more = study.power(*pairs[case], MARGIN).more_seeds
            text += f", which {more} more seeds would settle" if more else ", not settled"
        texts.append(text)
    runs = next(iter(plain.values())).n_a
    return Claim(claimed, f"Change, 95 % of {runs} pairs: {'; '.join(texts)}", together(verdicts))


def losses_table(accuracy: dict[str, Any]) -> list[list[str]]:
    """Tabulate what each amount costs, against the same nets with nothing pruned."""
    rows = [["trained, pruned", *(f"{100 * amount:g} %" for amount in AMOUNTS[1:])]]
    for name, values in accuracy.items():
        cells = []
        for pruned in values[1:]:
            one = study.compare(values[0], pruned)
            low, high = (100 * end for end in one.t_interval)
            cells.append(f"{100 * one.difference:.2f} ({low:.2f} to {high:.2f})")
        rows.append([name, *cells])
    return rows


def zeros_table(found: Found) -> list[list[str]]:
    """Tabulate what one threshold for all takes of each layer."""
    layers = found.zeros["plain, global"].shape[1]
    rows = [["trained", "amount", *(f"layer {i + 1}" for i in range(layers))]]
    for start in TRAINED:
        for amount, shares in zip(AMOUNTS[1:], found.zeros[f"{start}, global"][1:], strict=True):
            rows.append([start, f"{100 * amount:g} %", *(f"{100 * share:.1f}" for share in shares)])
    return rows


def draw(found: Found) -> plt.Figure:
    """Draw accuracy against the share that is pruned: all of it, and the upper end."""
    figure, axes = plt.subplots(
        2, 2, figsize=(12, 8), sharex=True, sharey="row", layout="constrained"
    )
    colors = dict(zip(PRUNE, ("tab:orange", "tab:blue"), strict=True))
    x = 100 * np.array(AMOUNTS)
    for column, start in zip(axes.T, TRAINED, strict=True):
        for ax in column:
            for prune, how in HOW.items():
                name = f"{start}, {prune}"
                for values, style, tuned in (
                    (found.pruned[name], "--", ""),
                    (found.after[name], "-", ", and one more epoch"),
                ):
                    every = [study.summarize(100 * amount) for amount in values]
                    band = np.array([one.t_interval for one in every]).T
                    means = [one.mean for one in every]
                    color = colors[prune]
                    ax.plot(x, means, style, color=color, marker="o", ms=3, label=how + tuned)
                    ax.fill_between(x, *band, color=color, alpha=0.15, lw=0)
            ax.grid(alpha=0.3)
            ax.set_xticks(x, [f"{share:g}" for share in x])
    top = max(values.max() for values in [*found.pruned.values(), *found.after.values()])
    for ax, start in zip(axes[0], TRAINED, strict=True):
        ax.set_title(f"Pruning {NET[start]}")
        ax.set_ylim(0, 100)
    for ax in axes[1]:
        ax.set_ylim(100 * top - 10, 100 * top + 0.5)
        ax.set_xlabel("weights pruned, per cent")
    axes[0, 0].set_ylabel("test accuracy, per cent")
    axes[1, 0].set_ylabel("the same, the upper 10 points")
    axes[0, 0].legend(loc="lower left", title="pruned ...")
    seeds = len(found.trained.seeds)
    figure.suptitle(
        f"Mean of {seeds} seeds and its 95 % interval; Fashion-MNIST, 784-100-100-100-10"
    )
    return figure


if __name__ == "__main__":
    main()
