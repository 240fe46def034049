"""Run all studies of the chapter, one after the other, and write an index of their verdicts.

    python examples/chapter/all.py --store DIR --out docs/chapter   # hours; the same call goes on
    python examples/chapter/all.py --fast

Each script gets the same arguments. What is in `--store` is not computed again, so Ctrl-C and a
second call lose an epoch at most. A study that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _chapter import console, markdown_table

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, default=Path("out/chapter"), help="keeps the runs")
    parser.add_argument("--out", type=Path, default=Path("out/chapter"), help="folder of the pages")
    parser.add_argument("--seeds", type=int, help="of every arm, instead of each study's own")
    parser.add_argument("--data-dir", type=Path, help="folder with Fashion-MNIST's four files")
    parser.add_argument("--no-compile", action="store_true", help="run eagerly")
    parser.add_argument("--fast", action="store_true", help="a small part, to see that they run")
    args = parser.parse_args()
    options = []
    for name, value in vars(args).items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            options.append(flag)
        elif value is not None and value is not False:
            options += [flag, str(value)]
    args.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    scripts = [*sorted(HERE.glob("h*.py")), HERE / "source_errors.py"]  # which reads their results
    failed = []
    try:
        for script in scripts:
            began = time.perf_counter()
            if code := call([sys.executable, str(script), *options]):
                failed.append(script.stem)
            how = f"failed with status {code}" if code else "done"
            console.print(f"[bold]{script.stem}: {how}, {time.perf_counter() - began:.0f} s[/bold]")
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on") from None
    finally:
        write_index(args.out, [script.stem for script in scripts], failed)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def call(command: list[str]) -> int:
    """Run a command to its end; take it along if this process is stopped.

    It has a group of its own, so that Ctrl-C does not reach it by itself as well. What it has
    stored outlives any end.
    """
    process = subprocess.Popen(command, process_group=0)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def write_index(out: Path, names: list[str], failed: list[str]) -> None:
    """Write README.md: every claim with its verdict, from the files that the scripts left."""
    pages = {name: read(out / f"{name}.json") for name in names}
    there = {name: page for name, page in pages.items() if page}
    rows = [["claim, or what is wrong in the source", "verdict", "page"]]
    rows += [
        [claim["claimed"], claim["verdict"], f"[{page['title']}]({name}.md)"]
        for name, page in there.items()
        for claim in page["claims"]
    ]
    runs = sum(page["runs"] for page in there.values())
    minutes = sum(page["seconds"] for page in there.values()) / 60
    lines = [
        "# The chapter, measured",
        "What the chapter says, and what many seeds say. Each page has the protocol, the numbers "
        "with their intervals and tests, a figure and the command.",
        markdown_table(rows),
        f"{len(there)} pages, {runs:,} runs, {minutes:,.0f} minutes of computing; "
        f"`examples/chapter/all.py`, {datetime.date.today()}.",
    ]
    short = [name for name, page in there.items() if page["command"].endswith("--fast")]
    for text, some in (
        ("Short runs, which only show that the scripts run", short),
        ("Not run yet", [name for name in names if name not in there and name not in failed]),
        ("Failed, so that its page is missing or an old one", failed),
    ):
        if some:
            lines.append(f"{text}: {', '.join(some)}.")
    (out / "README.md").write_text("\n\n".join(lines) + "\n")
    console.print(f"Wrote {out}/README.md.")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    main()
