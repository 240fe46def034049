"""The report of a study: all that it says, on one HTML page."""

from __future__ import annotations

import datetime
import functools
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fdnn.study import page, plotting, statistics
from fdnn.study.call import command, now
from fdnn.study.columns import Column, columns, labels
from fdnn.study.comparisons import Comparisons, compared, summaries, together

if TYPE_CHECKING:
    from fdnn.study.study import Study

__all__ = ["write"]

_ALL_PAIRS = 10  # more comparisons than that are made with one baseline only
_DIFFERENCES = 6  # drawn, of one metric
_SEEDS = 20  # named, of diverged runs


def write(
    study: Study,
    path: str | os.PathLike[str],
    title: str,
    baseline: str | None,
    confidence: float,
) -> None:
    """Write the page, as `Study.report` says."""
    names = list(labels(study))
    if baseline is not None and baseline not in names:
        raise ValueError(f"`baseline` must be one of the arms {names}, got {baseline!r}")
    metrics = study.metrics()
    parts = [
        *_overview(study),
        page.section("Arms", _arms(study)),
        *(page.section(metric, _metric(study, metric, baseline, confidence)) for metric in metrics),
    ]
    rest = dict.fromkeys(
        name for arm in study.arms.values() for name in arm.curves if name not in metrics
    )
    if history := [_curves(study, name) for name in rest if _epochs(study, name) > 1]:
        parts.append(page.section("History", [page.figures(history)]))
    parts += [
        page.section("How it was run", _calls(study)),
        page.section("How to read it", [page.paragraph(text) for text in _reading(confidence)]),
    ]
    page.write(path, page.render(title, parts))


def _overview(study: Study) -> list[str]:
    finished = sum(int(arm.finished.sum()) for arm in study.arms.values())
    diverged = sum(int(arm.diverged.sum()) for arm in study.arms.values())
    wanted = len(study.arms) * len(study.cells) * len(study.seeds)
    text = f"{_count(len(study.arms), 'arm')}, "
    if study.cells != [{}]:
        text += f"{_count(len(study.cells), 'cell')} of a sweep, "
    text += f"{_count(len(study.seeds), 'seed')}: {_count(finished, 'run')}, {diverged} diverged"
    text += f"; of {wanted} possible runs {wanted - finished} are not there." * (wanted > finished)
    seconds = sum(arm.seconds for arm in study.arms.values())
    parts = [page.paragraph(f"{text.rstrip('.')}. The runs took {_duration(seconds)}.")]
    if study.calls:
        last = study.calls[-1]
        parts.append(page.paragraph(f"Last run on {last.started} (UTC), by"))
        parts.append(page.paragraph(last.command, "pre"))
    return parts


def _arms(study: Study) -> list[str]:
    rows = [
        [
            name,
            arm.settings,
            int(arm.finished.sum()),
            int(arm.diverged.sum()),
            _duration(arm.seconds),
        ]
        for name, arm in study.arms.items()
    ]
    parts = [page.table(["arm", "settings", "runs", "diverged", "computing time"], rows, "text")]
    lost = {
        text: [seed for seed, d in zip(study.seeds, study.arms[name].diverged[i], strict=True) if d]
        for text, (name, i) in labels(study).items()
    }
    if any(lost.values()):
        rows = [[text, len(seeds), _listed(seeds)] for text, seeds in lost.items() if seeds]
        parts.append(page.paragraph("Diverged: a parameter became nan or infinite.", "h3"))
        parts.append(page.table(["arm", "runs", "seeds"], rows, "text"))
    return parts


def _metric(study: Study, metric: str, baseline: str | None, confidence: float) -> list[str]:
    found = columns(study, metric)
    several, left_out = summaries(found, confidence)
    parts = [_summary_table(found, several, confidence)]
    parts += [page.paragraph(f"{sentence}: no statistics.") for sentence in left_out]
    pictures = [
        page.figure(
            functools.partial(study.plot, metric, "arms", confidence=confidence),
            f"{metric}: every run, the mean and its {100 * confidence:g} % interval",
            1.5 + 0.4 * len(found),
        )
    ]
    if _epochs(study, metric) > 1:
        pictures.append(_curves(study, metric))
    pictures += [
        page.figure(
            functools.partial(study.plot, metric, "response", hyper=name),
            f"{metric} against {name}: median, 10 % to 90 % of the runs",
        )
        for name in plotting.swept(study)
    ]
    parts.append(page.figures(pictures))
    if len(several) > 1:
        parts += _comparisons(study, metric, found, _baseline(baseline, several), confidence)
    return parts


def _summary_table(
    found: Mapping[str, Column], several: Mapping[str, statistics.Summary], confidence: float
) -> str:
    interval = f"{100 * confidence:g} % interval"
    head = ["", "n", "diverged", "mean", f"{interval}, low", "high", "sd"]
    head += ["min", "5 %", "25 %", "median", "75 %", "95 %", "max"]
    rows: list[list[Any]] = []
    for name, column in found.items():
        n = len(column.finite)
        row = [name, n, len(column.runs) - n]
        if name in several:
            s = several[name]
            row += [s.mean, *s.t_interval, s.sd, s.min, s.q05, s.q25, s.median, s.q75, s.q95, s.max]
        else:
            row += [float(column.finite[0]) if n else None, *[None] * 10]
        rows.append(row)
    return page.table(head, rows)


def _baseline(baseline: str | None, several: Mapping[str, Any]) -> str | None:
    """With what to compare: the first, if that was not said and there are many."""
    if baseline is None and math.comb(len(several), 2) > _ALL_PAIRS:
        return next(iter(several))
    return baseline


def _comparisons(
    study: Study,
    metric: str,
    found: Mapping[str, Column],
    baseline: str | None,
    confidence: float,
) -> list[str]:
    """A table of the comparisons, and pictures of the first."""
    if baseline is not None and baseline not in found:
        return [page.paragraph(f"No comparisons: {baseline!r} has no {metric!r}.")]
    # The page shows no bootstrap.
    results, left_out = compared(found, baseline, confidence=confidence, n_resamples=99)
    parts = [
        page.paragraph("Comparisons", "h3"),
        _comparison_table(results, found, confidence) if results else "",
        *(page.paragraph(f"Not compared: {sentence}.") for sentence in left_out),
    ]
    pictures = [
        page.figure(
            functools.partial(study.plot, metric, "difference", a=a, b=b, confidence=confidence),
            f"{metric}: {a} - {b}, seed by seed",
        )
        for a, b in list(results)[:_DIFFERENCES]
    ]
    return [*parts, page.figures(pictures)]


def _comparison_table(results: Comparisons, found: Mapping[str, Column], confidence: float) -> str:
    head = ["A - B", "pairs", "difference", f"{100 * confidence:g} % interval, low", "high"]
    head += ["p (t test)", "p (Holm)", "effect size", "P(A above B)", "", "more seeds needed"]
    level, rows = (1 - confidence) / len(results), []
    for (a, b), one in results.items():
        assert one.p_holm is not None
        settled, more = one.p_holm < 1 - confidence, None
        if not settled and one.difference:
            more = statistics.power(*together(found[a], found[b]), alpha=level).more_seeds
        side = "above" if one.difference > 0 else "below"
        rows.append(
            [
                f"{a} - {b}",
                one.n_a,
                one.difference,
                *one.t_interval,
                one.t_test_p,
                one.p_holm,
                one.effect_size,
                one.probability_above,
                f"{a} is {side} {b}" if settled else "not settled",
                more,
            ]
        )
    return page.table(head, rows)


def _curves(study: Study, metric: str) -> str:
    return page.figure(
        functools.partial(study.plot, metric, "curves"),
        f"{metric} by epoch: median, 10 % to 90 % of the runs that still go on",
    )


def _epochs(study: Study, metric: str) -> int:
    """How many epochs of the metric are in the history."""
    found = [arm.curves[metric] for arm in study.arms.values() if metric in arm.curves]
    return max((int(np.isfinite(rows).any((1, 2)).sum()) for rows in found), default=0)


def _calls(study: Study) -> list[str]:
    rows = [
        [
            call.started,
            "unknown: killed, or under way" if call.seconds is None else _duration(call.seconds),
            call.command,
        ]
        for call in study.calls
    ]
    parts = [page.table(["started (UTC)", "took", "command"], rows, "text")] if rows else []
    around: list[dict[str, str]] = []
    for call in study.calls:
        if call.environment not in around:
            around.append(call.environment)
    if around:
        lines = [[key, *(one.get(key) for one in around)] for key in around[-1]]
        parts.append(page.table(["environment", *[""] * len(around)], lines, "text"))
    parts.append(page.paragraph(f"This page was made on {now()} (UTC), by"))
    parts.append(page.paragraph(command(), "pre"))
    return parts


def _reading(confidence: float) -> list[str]:
    percent = f"{100 * confidence:g} %"
    return [
        "n counts the runs whose number is finite; the others diverged, and are left out of the "
        f"rest. The interval, by the t distribution, holds the true mean in {percent} of such "
        "studies. It is about seeds: a finite test set, the same for all runs, is a chance that "
        "no number of seeds shows.",
        "Arms are compared seed by seed, by the paired t test; the effect size is Cohen's d_z. "
        f"Settled is what it rejects at the level {1 - confidence:.2g}, after Holm's correction "
        "for all comparisons of the table.",
        "More seeds needed: beyond those there are, for a power of 80 % to settle a difference as "
        "large as the one observed, at that level divided by the number of comparisons. To add "
        "seeds until something is settled is no test: choose their number, then run them all.",
    ]


def _listed(seeds: list[int]) -> str:
    more = f" and {len(seeds) - _SEEDS} more" if len(seeds) > _SEEDS else ""
    return ", ".join(map(str, seeds[:_SEEDS])) + more


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + "s" * (number != 1)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{datetime.timedelta(seconds=round(seconds))} h"
