"""Mistakes of the source material, D1 to D17, each with a check that runs.

    python examples/chapter/source_errors.py           # 2 minutes
    python examples/chapter/source_errors.py --fast

What is wrong or misleading in the chapter's notebooks and in notes on it. Arithmetic, names and
shapes are in `_source_numbers.py`, learning rates in `_source_rates.py`, small runs in
`_source_runs.py`.
"""

from __future__ import annotations

import time

import _source_numbers
import _source_rates
import _source_runs
from _chapter import parse, publish
from _fashion_mnist import load
from _finding import BY_READING, CONFIRMED, Finding

PROTOCOL = f"""
What is wrong or misleading in the source of these studies: three public runs of the chapter's
notebook (of May 2025, of March 2026, and its Keras twin), and notes on the chapter. Code checks
each and decides the verdict: "{CONFIRMED}" says that the mistake is one; "{BY_READING}", that a
text was read and the check can only show what the mistake does. Runs are small, on Fashion-MNIST.
Where a study of the chapter has the same question it is linked, and once it has run it decides.
"""


def main() -> None:
    args = parse(__doc__, seeds=4)
    splits, _ = load(args, fast_images=55_000)
    studies, found = [], [*_source_numbers.findings()]
    traces = _source_rates.trace()
    found += _source_rates.findings(traces)
    seconds, clock = 0.0, time.perf_counter()
    for finding, runs in _source_runs.findings(args, splits):
        now = time.perf_counter()
        seconds, clock = seconds + (0.0 if runs else now - clock), now
        found.append(finding)
        studies += runs
    publish(
        args,
        title="Mistakes of the source material",
        protocol=PROTOCOL,
        claims=sorted(found, key=number),
        tables={},
        figure=_source_rates.draw(traces),
        studies=studies,
        seconds=seconds,
        head=("what is wrong", "the check", "measured", "verdict"),
    )


def number(finding: Finding) -> int:
    """The 4 of "D4. ..."."""
    return int(finding.claimed.split(".")[0][1:])


if __name__ == "__main__":
    main()
