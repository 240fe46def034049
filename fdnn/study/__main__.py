"""`python -m fdnn.study`: run a study, show it, compare its arms, write its report."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fdnn.study.ray_executor import RayExecutor
from fdnn.study.run import run
from fdnn.study.store import DATABASE, Store
from fdnn.study.study import Study
from fdnn.study.study_file import FileError, StudyFile, load
from fdnn.study.table import text_table

__all__ = ["main"]

_EPILOG = """
FILE.py defines
  experiment  a function: experiment(**arm) returns what `study.training` or
              `study.from_functions` returns
  arms        a dict: by name, the keyword arguments of `experiment`
  sweep       if wanted, a dict: by the name of a hyperparameter, its values

exit status: 0 done; 1 it could not be done; 2 the command is wrong; 130 interrupted (Ctrl-C)
"""

# Told without a traceback, if they explain themselves.
_MISTAKES = (FileError, ValueError, KeyError, ImportError, SyntaxError, OSError, sqlite3.Error)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit status.

    Args:
        argv: the arguments; those of this process, if left out.
    """
    args = _parser().parse_args(argv)
    try:
        args.do(args)
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to go on", file=sys.stderr)
        return 130
    except _MISTAKES as error:
        if not _explains_itself(error, args):
            raise
        said = error.args[0] if isinstance(error, KeyError) else error
        print(f"{args.parser.prog}: error: {said}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fdnn.study",
        description="Run experiments over many seeds, and say what they show.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, do: Any, text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=_EPILOG if do is _run else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        found.set_defaults(do=do, parser=found)
        return found

    this = command("run", _run, "run a study, or go on with one that was stopped")
    this.add_argument("file", type=Path, metavar="FILE.py", help="defines experiment and arms")
    this.add_argument(
        "--seeds", type=_positive, required=True, metavar="N", help="run the seeds 0 to N - 1"
    )
    this.add_argument(
        "--store",
        type=Path,
        required=True,
        metavar="DIR",
        help="keeps the results, and what is under way; what is there is not computed again",
    )
    this.add_argument("--arms", nargs="+", metavar="ARM", help="of FILE.py; all if left out")
    this.add_argument(
        "--sweep",
        nargs="+",
        type=_values,
        action="extend",
        default=[],
        metavar="NAME=X,Y",
        help="values of hyperparameters, in place of those of that name in FILE.py: "
        "--sweep lr=0.1,0.01 weight_decay=0,1e-4",
    )
    this.add_argument(
        "--chunk-size",
        type=_positive,
        metavar="N",
        help="runs at once; as many as fit into memory, if left out",
    )
    this.add_argument("--no-jit", action="store_true", help="do not compile")
    this.add_argument(
        "--ray",
        action="store_true",
        help="run on the Ray cluster that RAY_ADDRESS names, or on the processes of this machine",
    )
    this.add_argument("--report", type=Path, metavar="PAGE.html", help="write the report too")

    this = command("show", _show, "print the results of a store, finished or not")
    _add_store(this)
    this.add_argument("--metric", metavar="M", help="all if left out")

    this = command("compare", _compare, "compare two arms of a store, seed by seed: A - B")
    _add_store(this)
    this.add_argument("a", metavar="A", help="an arm, or a cell as `show` names it: 'adam lr=0.1'")
    this.add_argument("b", metavar="B", help="likewise")
    this.add_argument("--metric", metavar="M", help="needed if there are several")
    this.add_argument(
        "--delta",
        type=float,
        metavar="D",
        help="the smallest difference that matters, for how many seeds would find it; the one "
        "observed, if left out",
    )

    this = command("report", _report, "write the results of a store into one HTML page")
    _add_store(this)
    this.add_argument("page", type=Path, metavar="PAGE.html", help="the file to write")
    this.add_argument("--baseline", metavar="ARM", help="what the other arms are compared with")
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, metavar="DIR", help="the store of a study")


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return number


def _values(text: str) -> tuple[str, list[float]]:
    name, sign, numbers = text.partition("=")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    if not (name.isidentifier() and sign and values):
        raise argparse.ArgumentTypeError(
            f"must be a name and numbers, such as lr=0.1,0.01, got {text!r}"
        )
    return name, values


def _run(args: argparse.Namespace) -> None:
    wrong = args.parser.error
    folder = None if args.report is None else args.report.parent
    if folder is not None and not folder.is_dir() and folder != args.store:  # `run` makes that
        wrong(f"argument --report: there is no folder {str(folder)!r}")
    try:
        file = load(args.file)
    except FileError as error:
        wrong(f"argument FILE.py: {error}")
    for name in args.arms or []:
        if name not in file.arms:
            wrong(f"argument --arms: there is no {name!r} in {args.file}, but {list(file.arms)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "interrupted: ", RuntimeWarning)  # of `fit`; see `main`
        found = run(
            file.experiment,
            arms={name: file.arms[name] for name in args.arms or file.arms},
            seeds=args.seeds,
            sweep={**file.sweep, **dict(args.sweep)},
            chunk_size=args.chunk_size or "auto",
            jit=not args.no_jit,
            store=args.store,
            executor=_cluster(file) if args.ray else None,
        )
    print(found.table())
    if args.report is not None:
        found.report(args.report, title=args.file.stem)
        print(f"\nThe report is {args.report}.")


def _cluster(file: StudyFile) -> RayExecutor:
    """Run on Ray, whose workers do not have the file: what it defines goes to them by value."""
    executor = RayExecutor()
    import ray

    ray.cloudpickle.register_pickle_by_value(file.module)  # type: ignore[no-untyped-call]
    return executor


def _show(args: argparse.Namespace) -> None:
    print(_read(args.store).table(args.metric))


def _compare(args: argparse.Namespace) -> None:
    found = _read(args.store)
    metrics = found.metrics()
    if args.metric is None and len(metrics) > 1:
        args.parser.error(f"argument --metric: must be one of {metrics}")
    metric = metrics[0] if args.metric is None else args.metric
    one = found.compare(metric, args.a, args.b)
    percent = f"{100 * one.confidence:g} %"
    rows = [
        ["mean of A", f"{one.mean_a:.6g}"],
        ["mean of B", f"{one.mean_b:.6g}"],
        ["A - B", f"{one.difference:.4g}"],
        [f"{percent} t interval", _interval(one.t_interval)],
        [f"{percent} bootstrap interval", _interval(one.bootstrap_interval)],
        ["effect size (d_z)", f"{one.effect_size:.3g}"],
        ["correlation of the pairs", f"{one.correlation:.3g}"],
        ["probability that A is above B", f"{one.probability_above:.4g}"],
    ]
    if args.delta is not None or one.difference:
        plan = found.power(metric, args.a, args.b, args.delta)
        rows.append([f"power to find {abs(plan.delta):.3g}", f"{plan.power:.3g}"])
        rows.append([f"more seeds for {100 * plan.wanted_power:g} %", f"{plan.more_seeds:,}"])
    print(f"{metric}: {one.verdict(args.a, args.b)}\n\n{text_table(rows)}")


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"


def _report(args: argparse.Namespace) -> None:
    found = _read(args.store)
    found.report(args.page, title=args.store.resolve().name, baseline=args.baseline)
    print(f"The report is {args.page}.")


def _read(folder: Path) -> Study:
    """Read a store, which must be there and hold something."""
    if not (folder / DATABASE).is_file():
        raise ValueError(f"there is no study in {str(folder)!r}: expected the file {DATABASE}")
    found = Study.read(Store(folder))
    if not found.metrics():
        raise ValueError(f"the study in {str(folder)!r} has no finished run yet")
    return found


def _explains_itself(error: BaseException, args: argparse.Namespace) -> bool:
    """Whether fdnn or the system refuses something, and not the code of FILE.py or below it."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    file = str(args.file.resolve()) if "file" in args else None
    if isinstance(error, SyntaxError):
        return error.filename == file
    ours = Path(frames[-1]).is_relative_to(Path(__file__).parents[1])
    return file not in frames and (ours or not isinstance(error, ValueError | KeyError))


if __name__ == "__main__":
    sys.exit(main())
