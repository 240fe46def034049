"""`python -m fdnn.study`: what it prints, its exit status, and what a user's mistake looks like."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fdnn import study
from fdnn.study.__main__ import main

FILE = """
import time
import torch
from fdnn import random, study

PAUSE = 0

def experiment(mean, epochs=2):
    def init(key, size=1.0):
        return {"key": key, "x": torch.zeros(()), "size": size}

    def step(s):
        return {**s, "x": s["x"] + 1}, {"x": s["x"]}

    def evaluate(s):
        return {"loss": mean + s["size"] * random.uniform(s["key"])}

    found = study.from_functions(init, step, evaluate, num_steps=epochs, evaluate_every=1)

    def slowly(state):
        time.sleep(PAUSE if epochs > 2 else 0)
        return found.evaluate(state)

    return found._replace(evaluate=slowly)

arms = {"low": {"mean": 0.0}, "high": {"mean": 3.0}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("exp.py").write_text(FILE)
    return tmp_path


def run(*argv: str) -> int:
    return main(["run", "exp.py", "--store", "store", "--no-jit", *argv])


def refused(capsys: Any, *argv: str, file: str | None = None) -> str:
    """What is said of a mistake that the arguments show: status 2, and no traceback."""
    if file is not None:
        Path("exp.py").write_text(file)
    with pytest.raises(SystemExit) as left:
        main(list(argv))
    assert left.value.code == 2
    return str(capsys.readouterr().err)


def test_run_show_compare_and_report(capsys: Any) -> None:
    assert run("--seeds", "4", "--report", "page.html") == 0
    found = study.Study.read(study.Store("store"))
    assert found.table() in capsys.readouterr().out
    assert found.seeds == [0, 1, 2, 3] and list(found.arms) == ["low", "high"]
    assert "<h1>exp</h1>" in Path("page.html").read_text()

    assert main(["show", "store", "--metric", "loss"]) == 0
    assert capsys.readouterr().out == found.table("loss") + "\n"

    assert main(["compare", "store", "low", "high", "--metric", "loss", "--delta", "0.5"]) == 0
    said = capsys.readouterr().out
    assert found.compare("loss", "low", "high").verdict("low", "high") in said
    assert f"power to find 0.5  {'':12}" in said
    assert main(["compare", "store", "low", "high"]) == 0  # there is one metric
    assert "low is below high" in capsys.readouterr().out

    assert main(["report", "store", "again.html", "--baseline", "low"]) == 0
    assert "high - low" in Path("again.html").read_text()


def test_arms_sweep_and_more_seeds() -> None:
    assert run("--seeds", "2", "--arms", "high", "--sweep", "size=1,0.5", "--chunk-size", "1") == 0
    assert run("--seeds", "3", "--arms", "high", "--sweep", "size=0.5") == 0
    found = study.Study.read(study.Store("store"))
    assert list(found.arms) == ["high"]
    assert found.cells == [{"size": 0.5}, {"size": 1.0}]
    assert found.arms["high"].finished.tolist() == [[True] * 3, [True, True, False]]
    assert [call.seconds is not None for call in found.calls] == [True, True]
    Path("exp.py").write_text(FILE + "\nsweep = {'size': [2.0]}")
    assert run("--seeds", "1", "--arms", "low") == 0
    assert study.Study.read(study.Store("store")).cells[-1] == {"size": 2.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arms = {'a': {}}", "exp.py lacks `experiment`, a function"),
        (FILE.replace("arms =", "arm ="), "exp.py lacks `arms`, a dict of dicts, at least one"),
        ("experiment, arms = 3, {'a': {}}", "`experiment` in exp.py must be a function, got 3"),
        (FILE + "\narms = {}", "`arms` in exp.py must be a dict of dicts, at least one, got {}"),
        (FILE + "\nsweep = {'lr': ['x']}", "`sweep` in exp.py must be a dict of lists of numbers"),
        (FILE.replace("mean,", "means,"), "arm 'low' in exp.py does not fit `experiment`: missing"),
    ],
)
def test_what_the_file_lacks_is_named(text: str, said: str, capsys: Any) -> None:
    assert said in refused(capsys, "run", "exp.py", "--seeds", "1", "--store", "s", file=text)
    assert not Path("s").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("run other.py --seeds 2 --store s", "must be a file of Python, got 'other.py'"),
        ("run exp.py --seeds 0 --store s", "--seeds: must be a positive integer, got '0'"),
        ("run exp.py --seeds 2", "required: --store"),
        ("run exp.py --seeds 2 --store s --arms x", "there is no 'x' in exp.py, but ['low'"),
        ("run exp.py --seeds 2 --store s --sweep lr", "such as lr=0.1,0.01, got 'lr'"),
        ("run exp.py --seeds 2 --store s --sweep lr=", "such as lr=0.1,0.01, got 'lr='"),
        ("run exp.py --seeds 2 --store s --report no/p.html", "there is no folder 'no'"),
        ("", "required: COMMAND"),
    ],
)
def test_wrong_arguments(argv: str, said: str, capsys: Any) -> None:
    assert said in refused(capsys, *argv.split())


def failed(capsys: Any, *argv: str) -> str:
    """What is said where it could not be done: status 1, one line."""
    assert main(list(argv)) == 1
    said = str(capsys.readouterr().err)
    assert said.count("\n") == 1 and f"python -m fdnn.study {argv[0]}: error: " in said
    return said


def test_what_cannot_be_done_is_said_in_a_line(capsys: Any) -> None:
    assert "there is no study in 'store'" in failed(capsys, "show", "store")
    study.Store("empty")
    assert "has no finished run yet" in failed(capsys, "show", "empty")
    run("--seeds", "2")
    capsys.readouterr()
    assert "there is no metric 'los', but ['loss']" in failed(
        capsys, "show", "store", "--metric", "los"
    )
    assert "there is no arm 'x'" in failed(capsys, "compare", "store", "low", "x")
    assert "nowhere/p.html" in failed(capsys, "report", "store", "nowhere/p.html")
    Path("exp.py").write_text(FILE.replace("3.0", "4.0"))
    again = ("run", "exp.py", "--store", "store", "--seeds", "2")
    assert "an arm 'high' with other settings" in failed(capsys, *again)
    Path("exp.py").write_text(FILE + "\n)")
    assert "unmatched ')' (exp.py, line" in failed(capsys, *again)
    Path("exp.py").write_text(FILE + "\ndef experiment(mean): pass")
    assert "`experiment` in exp.py must return" in failed(capsys, *again[:3], "s", *again[4:])
    Path("store/results.sqlite").write_bytes(b"no database, but long enough to be looked at" * 99)
    assert "file is not a database" in failed(capsys, "show", "store")


def test_an_error_in_the_file_keeps_its_traceback() -> None:
    Path("exp.py").write_text(FILE.replace("def init(key", "def init(none"))
    with pytest.raises(NameError, match="key"):
        run("--seeds", "1")
    Path("exp.py").write_text("raise ValueError('mine')")
    with pytest.raises(ValueError, match="mine"):
        run("--seeds", "1")
    Path("exp.py").write_text(FILE.replace('{"x": s["x"]}', '{"x": 1.0}'))
    with pytest.raises(ValueError, match="must only return Tensors"):  # says torch, of `step`
        run("--seeds", "1")


def test_interrupted_it_ends_cleanly_and_goes_on(here: Path, capsys: Any) -> None:
    """Ctrl-C in another process, with an arm finished and one under way."""
    file = FILE.replace('"mean": 3.0', '"mean": 3.0, "epochs": 30')
    Path("exp.py").write_text(file.replace("PAUSE = 0", "PAUSE = 0.2"))
    command = [sys.executable, "-m", "fdnn.study", "run", "exp.py", "--store", "store", "--no-jit"]
    command += ["--seeds", "3"]
    # A child inherits that a signal is ignored, as it is where tests run in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not list(here.glob("store/checkpoints/*/0000*3.safetensors")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip() == "interrupted: run the same command again to go on"
    found = study.Study.read(study.Store("store"))
    assert found.arms["low"].finished.all() and not found.arms["high"].finished.any()
    (call,) = found.calls
    assert call.command.endswith("fdnn.study run exp.py --store store --no-jit --seeds 3")
    assert call.seconds is not None and call.seconds < 60

    Path("exp.py").write_text(file)
    assert run("--seeds", "3") == 0
    found = study.Study.read(study.Store("store"))
    assert (found.arms["high"].steps == 30).all()
    assert len(found.calls) == 2
