"""Studies made by hand, without training, for the tests of what they show."""

from __future__ import annotations

import math

import numpy as np

from fdnn.study import Arm, Call, Study

CALL = Call("2026-11-25 12:00:00", "python 'my <file>.py' --seeds 6", {"torch": "2.13.0"}, 61.0)


def made(
    means: dict[str, float],
    *,
    seeds: int = 6,
    cells: tuple[dict[str, float], ...] = ({},),
    epochs: int = 3,
    spread: float = 0.1,
) -> Study:
    """Return a study whose arms share the luck of each seed; a mean of nan has diverged."""
    rng = np.random.default_rng(0)
    luck = rng.normal(size=(len(cells), seeds))
    arms = {}
    for name, mean in means.items():
        loss = mean + spread * (luck + 0.3 * rng.normal(size=luck.shape))
        curves = loss + 1 / np.arange(1, epochs + 1)[:, None, None]
        arms[name] = Arm(
            {"loss": loss, "accuracy": 1 - loss / 10},
            {"loss": curves, "step_loss": curves + 0.1},
            np.full(loss.shape, 12),
            np.full(loss.shape, math.isnan(mean)),
            np.full(loss.shape, True),
            2.5,
            f"{{'name': '{name}'}}",
        )
    return Study(arms, list(range(seeds)), list(cells), [CALL])
