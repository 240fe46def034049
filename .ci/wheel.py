"""Build the wheel, look into it, and use it where the repository is not.

    python .ci/wheel.py      # from an environment with the extra `dev`

The wheel goes to dist/. An environment of its own, which is removed in the end, gets the wheel and
what it asks for, nothing else. There, in an empty folder, fdnn is imported; with the extra
`examples` README's code runs, found by the tool that runs the documentation; and mypy, strictly,
checks the programs of tests/typed against the types that the wheel brings.
"""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

from markdown_it import MarkdownIt
from pytest_markdown_docs.plugin import extract_fence_tests

import fdnn

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CONSTRAINTS = ["--constraint", str(ROOT / "constraints.txt")]
IMPORTS = "import fdnn, fdnn.study, pathlib; print(pathlib.Path(fdnn.__file__).parent)"


def main() -> None:
    wheel = build()
    look_into(wheel)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python, empty = folder / "venv/bin/python", folder / "empty"
        empty.mkdir()
        install(python, str(wheel))
        run("imports", python, "-c", IMPORTS, at=empty)
        install(python, f"{wheel}[examples]")
        for i, fence in enumerate(extract_fence_tests(MarkdownIt(), README.read_text(), 0, README)):
            (empty / f"block{i}.py").write_text(fence.source)
            run(f"README.md, line {fence.start_line}", python, f"block{i}.py", at=empty)
        size = sum(path.lstat().st_size for path in (folder / "venv").rglob("*"))
        print(f"---- the environment takes {size / 1e9:.1f} GB", flush=True)
        shutil.copytree(ROOT / "tests/typed", empty / "typed")
        mypy = ["-m", "mypy", "--strict", "--config-file=", "--cache-dir", folder / "cache"]
        run("types", sys.executable, *mypy, "--python-executable", python, "typed", at=empty)


def build() -> Path:
    dist = ROOT / "dist"
    run("build", sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", dist, ROOT)
    return dist / f"fdnn_torch-{fdnn.__version__}-py3-none-any.whl"


def look_into(wheel: Path) -> None:
    """Hold the wheel to the files of fdnn/ and the metadata to what the project says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_string(archive.read(about).decode())
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fdnn").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name for name in names if ".dist-info/" not in name}
    check(found == files, f"the wheel must hold the files of fdnn/, differing: {found ^ files}")
    for needed in "fdnn/py.typed", "fdnn/random/threefry.c":
        check(needed in found, f"the wheel must hold {needed}")
    check(any(name.endswith("licenses/LICENSE") for name in names), "the wheel must hold LICENSE")
    check(metadata["Version"] == fdnn.__version__, f"its version is {metadata['Version']}")
    check(metadata["License-Expression"] == "Apache-2.0", "its license must be Apache-2.0")
    check(str(metadata.get_payload()).strip() == README.read_text().strip(), "README differs")


def install(python: Path, what: str) -> None:
    run(
        f"install {Path(what).name}",
        python,
        "-m",
        "pip",
        "install",
        "--no-compile",
        *CONSTRAINTS,
        what,
    )


def run(title: str, *command: str | Path, at: Path = ROOT) -> None:
    begun = time.perf_counter()
    subprocess.run(command, cwd=at, check=True)
    print(f"---- {time.perf_counter() - begun:.0f} s: {title}", flush=True)


def check(holds: bool, message: str) -> None:
    if not holds:
        raise SystemExit(message)


if __name__ == "__main__":
    main()
