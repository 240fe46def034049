"""Studies made by hand, without training, for the tests of what they show."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fdnn.study import Arm, Call, Experiment, Study

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


class Died(Exception):
    """Stands for the death of a process."""


def dying(experiment: Callable[..., Experiment], after: int) -> Callable[..., Experiment]:
    """Return the experiment, whose process dies at that evaluation."""
    calls = 0

    def build(**settings: Any) -> Experiment:
        inner = experiment(**settings)

        def evaluate(state: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == after:
                raise Died
            return inner.evaluate(state)

        return inner._replace(evaluate=evaluate)

    return build


def counting(experiment: Callable[..., Experiment]) -> tuple[Callable[..., Experiment], list[int]]:
    """Return the experiment, and how often it has evaluated, in a list of one number."""
    calls = [0]

    def build(**settings: Any) -> Experiment:
        inner = experiment(**settings)

        def evaluate(state: Any) -> Any:
            calls[0] += 1
            return inner.evaluate(state)

        return inner._replace(evaluate=evaluate)

    return build, calls


def assert_same(a: Study, b: Study, rtol: float = 0.0, atol: float = 0.0) -> None:
    """The same arms, and all that was measured equal, to the bit unless told otherwise."""
    assert a.arms.keys() == b.arms.keys()
    for name, arm in a.arms.items():
        other = b.arms[name]
        for mine, theirs in ((arm.results, other.results), (arm.curves, other.curves)):
            assert mine.keys() == theirs.keys()
            for key, values in mine.items():
                np.testing.assert_allclose(
                    values, theirs[key], rtol=rtol, atol=atol, err_msg=f"{name} {key}"
                )
        np.testing.assert_array_equal(arm.steps, other.steps)
