"""Several comparisons at once: Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from fdnn.study.statistics.comparison import Comparison, compare_named
from fdnn.study.statistics.sample import Floats, Values, as_sample

__all__ = ["compare_all", "holm"]


def holm(p_values: Values) -> Floats:
    r"""Adjust p-values for their number, so that even one false rejection is rare.

    With the $m$ `p_values` sorted, $p_{(1)} \le \dots \le p_{(m)}$, the adjusted ones are
    $\tilde p_{(i)} = \min(1, \max_{j \le i} (m - j + 1)\, p_{(j)})$. To reject those at or below
    $\alpha$ makes one false rejection or more with probability $\alpha$ at most, however the tests
    depend on each other.

    Args:
        p_values: of the tests of one family, shape `(m,)`, in any order.

    Returns:
        Adjusted p-values in the order given, float64.

    Raises:
        ValueError: a p-value is not in [0, 1], or there is not one dimension.

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005])
        array([0.03, 0.06, 0.06, 0.02])

    References:
        S. Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
    """
    p = as_sample("p_values", p_values)
    wrong = p[~((p >= 0) & (p <= 1))]
    if len(wrong):
        raise ValueError(f"`p_values` must be in [0, 1], got {wrong[0]}")
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def compare_all(
    values_by_arm: Mapping[str, Values],
    baseline: str | None = None,
    *,
    paired: bool = True,
    confidence: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> dict[tuple[str, str], Comparison]:
    """Compare every pair of arms, or every arm with a baseline, with Holm's correction.

    Args:
        values_by_arm: for each arm one number per run, as in `compare`. Two arms or more.
        baseline: the arm that the others are compared with. None compares each with each.
        paired: whether runs with the same position share seed, start or data.
        confidence: of each interval by itself; and 1 minus the level at which `verdict()` calls a
            difference settled, all comparisons taken together.
        n_resamples: how often the bootstrap draws runs anew, 99 or more.
        seed: of these draws.

    Returns:
        For each `(a, b)` the comparison of a - b, in the order of the arms; with a baseline it is
        b. Their `p_holm` are the p-values of all t tests, corrected together.

    Raises:
        ValueError: there are fewer than 2 arms, `baseline` is none of them, or two arms cannot be
            compared (see `compare`).

    Example:
        >>> sgd, adam, adamw = [0.87, 0.88, 0.86], [0.84, 0.86, 0.83], [0.85, 0.85, 0.84]
        >>> found = compare_all({"sgd": sgd, "adam": adam, "adamw": adamw}, baseline="sgd")
        >>> for pair, one in found.items():
        ...     print(pair, round(one.difference, 3), round(one.t_test_p, 3), round(one.p_holm, 3))
        ('adam', 'sgd') -0.027 0.015 0.031
        ('adamw', 'sgd') -0.023 0.02 0.031
    """
    arms = list(values_by_arm)
    if len(arms) < 2:
        raise ValueError(f"`values_by_arm` must have at least 2 arms, got {len(arms)}")
    if baseline is not None and baseline not in arms:
        raise ValueError(f"`baseline` must be one of the arms {arms}, got {baseline!r}")
    pairs = (
        list(combinations(arms, 2))
        if baseline is None
        else [(arm, baseline) for arm in arms if arm != baseline]
    )
    found = [
        compare_named(
            (f"values_by_arm[{a!r}]", f"values_by_arm[{b!r}]"),
            values_by_arm[a],
            values_by_arm[b],
            paired,
            confidence,
            n_resamples,
            seed,
        )
        for a, b in pairs
    ]
    corrected = holm([one.t_test_p for one in found])
    return {
        pair: one._replace(p_holm=float(p))
        for pair, one, p in zip(pairs, found, corrected, strict=True)
    }
