"""The figure of H4."""

from __future__ import annotations

from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _initializations import ACTIVATIONS, BATCH_SIZE, HEALTHY, NAMES, RATE, USUAL, Runs


def draw(runs: Runs) -> plt.Figure:
    """Draw the accuracy of all combinations, and where they stood before the first step."""
    figure, axes = plt.subplots(2, len(runs.depths), figsize=(14, 9), layout="constrained")
    colors: Any = {"cmap": "viridis", "vmin": 0.1, "vmax": 0.9}
    markers = dict(zip(ACTIVATIONS, "osD^v", strict=True))
    for (above, below), depth in zip(axes.T, runs.depths, strict=True):
        grid = np.array([[runs.accuracy(depth, a, law).mean() for law in NAMES] for a in USUAL])
        image = above.imshow(grid, aspect="auto", **colors)
        for (i, j), value in np.ndenumerate(grid):
            usual = USUAL[list(ACTIVATIONS)[i]] == NAMES[j]
            ink = "white" if value < 0.6 else "black"
            weight = "bold" if usual else "normal"
            text = f"[{value:.1%}]" if usual else f"{value:.1%}"
            above.text(j, i, text, ha="center", va="center", color=ink, weight=weight)
        above.set_xticks(range(len(NAMES)), NAMES)
        above.set_yticks(range(len(ACTIVATIONS)), ACTIVATIONS)
        above.set(title=f"{depth} hidden layers", xlabel="initialization ([usual])")
        below.axvspan(*HEALTHY, color="grey", alpha=0.15, lw=0)
        below.axhspan(*HEALTHY, color="grey", alpha=0.15, lw=0)
        for name, law in product(ACTIVATIONS, NAMES):
            std, ratio = runs.signal(depth, name, law)
            score = runs.accuracy(depth, name, law).mean()
            below.scatter(ratio, std, c=score, marker=markers[name], s=70, edgecolor="k", **colors)
            below.annotate(law[0], (ratio, std), (5, 4), textcoords="offset points", fontsize=8)
        below.set(xscale="log", yscale="log")
        below.set_xlabel("gradient of the first layer / of the last, at step 0")
    axes[1, 0].set_ylabel("standard deviation of the last hidden layer, at step 0")
    for name, marker in markers.items():
        axes[1, 0].plot([], [], marker, color="grey", mec="k", label=name)
    title = "activation; the letter is the initialization: d(efault), G(lorot), H(e), L(eCun)"
    figure.legend(loc="outside lower center", ncols=len(markers), title=title)
    figure.colorbar(image, ax=axes, label="test accuracy", shrink=0.6)
    figure.suptitle(
        f"Fashion-MNIST, SGD at {RATE}, batches of {BATCH_SIZE}: test accuracy, mean of "
        f"{runs.seeds} seeds, and signal and gradient before the first step (grey: 0.01 to 100)"
    )
    return figure
