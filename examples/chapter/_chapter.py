"""What the studies of the chapter share: their arguments, how a claim is judged, and their page."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1]))  # where `_fashion_mnist` is

from fdnn import study

console = Console(soft_wrap=True)
Name = TypeVar("Name")

HOLDS, ONLY_WHEN, DOES_NOT, OPEN = "holds", "holds only when", "does not hold", "not settled"


class Claim(NamedTuple):
    """What the chapter says, what was measured, and what follows.

    Attributes:
        claimed: in our words, with the figures printed.
        measured: numbers, with how many runs, interval and test.
        verdict: `HOLDS`, `DOES_NOT`, `OPEN`, or `ONLY_WHEN` followed by when.
    """

    claimed: str
    measured: str
    verdict: str


def parse(description: str | None, *, seeds: int, fast_seeds: int = 2) -> argparse.Namespace:
    """Read the arguments that all studies take; `--fast` cuts them down to see that it runs."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=seeds, help="of every arm")
    parser.add_argument("--data-dir", type=Path, help="folder with Fashion-MNIST's four files")
    parser.add_argument(
        "--store", type=Path, default=Path("out/chapter"), help="keeps the runs, to go on with"
    )
    parser.add_argument("--out", type=Path, default=Path("out/chapter"), help="folder of the page")
    parser.add_argument("--no-compile", action="store_true", help="run eagerly")
    parser.add_argument("--fast", action="store_true", help="a small part, to see that it runs")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds must be at least 2, got {args.seeds}")
    if args.fast:
        args.seeds, args.store, args.no_compile = min(args.seeds, fast_seeds), None, True
    args.name = Path(sys.argv[0]).stem
    args.out.mkdir(parents=True, exist_ok=True)
    return args


def run(
    args: argparse.Namespace, part: str, experiment: Callable[..., study.Experiment], **options: Any
) -> study.Study:
    """Run one study of a script, or go on with it; `options` are those of `study.run`."""
    console.print(f"[bold]{args.name}, {part}[/bold]")
    return study.run(
        experiment,
        store=None if args.store is None else args.store / args.name / part,
        **{"seeds": args.seeds, "jit": not args.no_compile, **options},
    )


def corrected(found: Mapping[Name, study.Comparison]) -> dict[Name, study.Comparison]:
    """Correct a family of comparisons by Holm."""
    p_values = study.holm([one.t_test_p for one in found.values()])
    return {
        name: one._replace(p_holm=float(p))
        for (name, one), p in zip(found.items(), p_values, strict=True)
    }


def judge(found: study.Comparison, a: str, b: str, *, points: bool = True) -> tuple[str, str]:
    """Say what a comparison measured, and whether "A is above B" holds.

    It is settled, one way or the other, if the test, corrected if it is one of several, rejects at
    5 %; else it is open.
    """
    scale, unit = (100, " points") if points else (1, "")
    low, high = (scale * end for end in found.t_interval)
    p = found.t_test_p if found.p_holm is None else found.p_holm
    runs = f"{found.n_a} pairs" if found.paired else f"{found.n_a} and {found.n_b} runs"
    measured = (
        f"{a} − {b}: {scale * found.difference:+.3g}{unit} "
        f"(95 % {low:+.3g} to {high:+.3g}, {runs}, "
        f"{'p' if found.p_holm is None else 'Holm-corrected p'} = {p:.2g})"
    )
    if found.left_out:
        measured += f", {found.left_out} left out that diverged"
    if not p < 0.05:
        return measured, OPEN
    return measured, HOLDS if found.difference > 0 else DOES_NOT


def publish(
    args: argparse.Namespace,
    *,
    title: str,
    protocol: str,
    claims: Sequence[Any],
    tables: dict[str, list[list[str]]],
    figure: Figure,
    studies: Sequence[study.Study],
    seconds: float = 0.0,
    numbers: dict[str, Any] | None = None,
    head: Sequence[str] = ("the chapter's claim", "measured", "verdict"),
) -> None:
    """Print what was found, and write the page with its figure, and all numbers as JSON.

    Args:
        args: from `parse`.
        title: of the page.
        protocol: what was done, in Markdown.
        claims: of the chapter, judged: a `Claim` each, or a named tuple with other fields.
        tables: by caption; the first row is the head.
        figure: drawn with matplotlib.
        studies: whose runs these are.
        seconds: of what was computed outside of the studies.
        numbers: more to write as JSON.
        head: what the fields of a claim are called; the last is its verdict.
    """
    shown = Table(*head)
    for claim in claims:
        shown.add_row(*claim)
    console.print(shown)
    for caption, (columns, *rows) in tables.items():
        table = Table(*columns, title=caption)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    seconds += sum(arm.seconds for one in studies for arm in one.arms.values())
    runs = sum(int(arm.finished.sum()) for one in studies for arm in one.arms.values())
    figure.savefig(args.out / f"{args.name}.png", dpi=110)
    plt.close(figure)
    command = f"python examples/chapter/{args.name}.py" + (" --fast" if args.fast else "")
    threads = torch.get_num_threads()
    found = {
        "title": title,
        "command": command,
        "seconds": seconds,
        "runs": runs,
        "claims": [claim._asdict() for claim in claims],
        "tables": tables,
        **(numbers or {}),
    }
    (args.out / f"{args.name}.json").write_text(json.dumps(found, indent=2) + "\n")
    lines = [
        f"# {title}",
        protocol.strip(),
        "\n".join(_listed(i, head, claim) for i, claim in enumerate(claims, 1)),
        f"![{title}]({args.name}.png)",
        *(f"**{caption}**\n\n{markdown_table(rows)}" for caption, rows in tables.items()),
        f"`{command}`: {runs:,} runs, {seconds / 60:.0f} minutes of computing on "
        f"{threads} thread{'s' * (threads > 1)} of a machine that did other things beside, torch "
        f"{torch.__version__}, {datetime.date.today()}. All numbers: [{args.name}.json]"
        f"({args.name}.json).",
    ]
    (args.out / f"{args.name}.md").write_text("\n\n".join(lines) + "\n")
    console.print(f"Wrote {args.out}/{args.name}.md, .png and .json.")


def _listed(number: int, head: Sequence[str], claim: Sequence[str]) -> str:
    """Write a claim as an item of a list: its verdict, then what lies between."""
    claimed, *between, verdict = claim
    lines = [f"{number}. **{claimed}**", f"    - Verdict: **{verdict}**"]
    lines += [
        f"    - {name.capitalize()}: {text}" for name, text in zip(head[1:-1], between, strict=True)
    ]
    return "\n".join(lines)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows, the first being the head, as a table in Markdown."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary_rows(found: study.Study, metric: str, *, points: bool = True) -> list[list[str]]:
    """Summarize a metric by arm and cell: n, mean with its 95 % interval, sd, range."""
    scale, digits = (100, ".2f") if points else (1, ".4f")
    head = ["arm", "n", "diverged", "mean", "95 % of the mean", "sd", "min", "max"]
    rows = [head]
    for name, s in found.summary(metric).items():
        low, high = (scale * end for end in s.t_interval)
        spread = [f"{scale * x:{digits}}" for x in (s.sd, s.min, s.max)]
        interval = f"{low:{digits}} to {high:{digits}}"
        diverged = str(s.diverged)
        rows.append([name, str(s.n), diverged, f"{scale * s.mean:{digits}}", interval, *spread])
    return rows
