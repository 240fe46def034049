"""Kill processes that save, at random moments and at every call of the system; look what is left.

Run by test_checkpoint_kill.py in a process of its own, since it forks: a victim is a copy of this
process, which has no other threads and has not differentiated anything.
"""

from __future__ import annotations

import builtins
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn, vmap

import fdnn
from fdnn import optim, train, tree
from fdnn.train import checkpoint_file

LIKE = {"a": torch.zeros(30_000), "b": (torch.tensor(0), torch.zeros(1000, dtype=torch.int16))}
KILLS = 15
Report = Callable[[int], Any]


def state(n: int) -> Any:
    return tree.map(lambda leaf: torch.full_like(leaf, n), LIKE)


def number(state: Any) -> int:
    """Which state it is; a mixture of two is none."""
    tree.assert_same_structure(LIKE, state)
    found = {int(value) for leaf in tree.leaves(state) for value in leaf.unique()}
    assert len(found) == 1, found
    return found.pop()


def victim(
    child: Callable[[Report], None], after: int | None = None, seconds: float = 0
) -> tuple[list[int], bool]:
    """Run `child(report)` in a process of its own; kill it some time after so many reports.

    Returns what it reported, and whether it came to its end before that.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(lambda n: os.write(write, b"%d\n" % n))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        reports = list(itertools.islice(file, after))
        if after is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
        reports += list(file)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL), status
    return [int(line) for line in reports], status == 0


def kill_save(folder: Path, delays: random.Random) -> None:
    """One path, saved to again and again."""
    path, last = folder / "x.safetensors", 0
    train.save(path, state(0))

    def child(report: Report) -> None:
        for n in itertools.count(last + 1):
            train.save(path, state(n))
            report(n)

    for _ in range(KILLS):
        done, _ = victim(child, 1, delays.uniform(0, 0.02))
        found = number(train.load(path, LIKE))
        acknowledged = done[-1]
        assert found in (acknowledged, acknowledged + 1), (found, acknowledged)
        last = found
    train.save(path, state(1))
    assert os.listdir(folder) == [path.name], "leftovers"


def kill_checkpoints(folder: Path, delays: random.Random, asynchronous: bool) -> None:
    """A folder, in which what is old is deleted all the time; each way gets half of the kills."""

    def kept() -> train.Checkpoints:
        return train.Checkpoints(folder, keep_last=2, asynchronous=asynchronous)

    def child(report: Report) -> None:
        checkpoints = kept()
        for n in itertools.count(last + 1):
            checkpoints.save(state(n), n, metric=n % 5)
            report(n - asynchronous)  # this one may still be on its way

    last = 0
    first = kept()
    first.save(state(0), 0, metric=-1)
    first.wait()
    for _ in range(KILLS // 2):
        done, _ = victim(child, 1, delays.uniform(0, 0.02))
        left = kept()
        steps = left.steps()
        assert [number(train.load(left.path(step), LIKE)) for step in steps] == steps
        acknowledged = done[-1]
        assert acknowledged <= steps[-1] <= acknowledged + 1 + asynchronous, (steps, acknowledged)
        assert number(train.load(str(left.best()), LIKE)) == 0, "the best stays"
        last = steps[-1]
    left.save(state(last), last)
    left.wait()
    assert all(name[:12].isdigit() for name in os.listdir(folder)), "leftovers"


class Halting:
    """A file that is written to in two parts, and a clock that ticks at every call."""

    def __init__(self, file: Any, tick: Callable[[], None]):
        self.file, self.tick = file, tick

    def __enter__(self) -> Halting:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: Any) -> None:
        half = len(data) // 2
        for part in (data[:half], data[half:]):
            self.file.write(part)
            self.file.flush()
            self.tick()


def dies_at(moment: int, path: Path, n: int) -> None:
    """Save, but for a death at one of the calls that touch the disk: before, in or after it."""
    left = iter(range(moment))

    def tick() -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def ticking(fn: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            tick()
            result = fn(*args, **kwargs)
            tick()
            return result

        return call

    for owner, name in ((os, "fsync"), (os, "replace"), (Path, "unlink")):
        setattr(owner, name, ticking(getattr(owner, name)))
    checkpoint_file.open = lambda *args: Halting(  # type: ignore[attr-defined]
        ticking(builtins.open)(*args), tick
    )
    train.save(path, state(n))


def kill_at_every_call(folder: Path) -> None:
    """The old state until the rename, the new one from then on."""
    path, seen, finished = folder / "x.safetensors", [], False
    while not finished:
        train.save(path, state(1))
        moment = len(seen)
        _, finished = victim(lambda report, moment=moment: dies_at(moment, path, 2))
        seen.append(number(train.load(path, LIKE)))
    assert seen == sorted(seen) and seen.count(1) > 10 and seen.count(2) > 3, seen
    train.save(path, state(1))
    assert os.listdir(folder) == [path.name], "leftovers"


def kill_fit(folder: Path, delays: random.Random, lanes: int | None) -> None:
    """A run that is killed again and again ends as one that is not, to the bit."""
    model = fdnn.functionalize(
        nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Dropout(0.1), nn.Linear(16, 3))
    )
    tx = optim.adamw()
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    inputs = fdnn.random.normal(fdnn.random.key(1), (50, 5))
    data = inputs, (inputs @ fdnn.random.normal(fdnn.random.key(2), (5, 3))).argmax(1)
    options: Any = {"epochs": 40, "batch_size": 8, "compile": False, "progress": False}

    def trainer(where: Path) -> Callable[[Report], None]:
        def child(report: Report) -> None:
            key = fdnn.random.key(0)
            begun = train.init(model, tx, key)
            if lanes is not None:
                keys = fdnn.random.split(key, lanes)
                begun = vmap(lambda key: train.init(model, tx, key))(keys)
                options["chunk_size"] = 2
            checkpoints = train.Checkpoints(where, asynchronous=lanes is not None)
            started = checkpoints.load(begun) if checkpoints.latest() else begun

            def evaluate(state: Any) -> Any:
                checkpoints.save(state, int(state.count.max()))
                report(0)
                return {}

            train.fit(step, started, data, evaluate=evaluate, **options)
            checkpoints.wait()

        return child

    victim(trainer(folder / "whole"))
    kills, finished = 0, False
    while not finished:
        killer = delays.randint(1, 3), delays.uniform(0, 0.02)
        _, finished = victim(trainer(folder / "killed"), *killer)
        kills += not finished
    assert kills > 1, kills
    whole, killed = (train.Checkpoints(folder / name) for name in ("whole", "killed"))
    assert whole.steps()[-1] == killed.steps()[-1] == 40 * 7
    wanted, found = whole.load(), killed.load()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[path], wanted[path]) for path in wanted)


if __name__ == "__main__":
    delays = random.Random(0)
    for scenario, arguments in (
        (kill_at_every_call, ()),
        (kill_save, (delays,)),
        (kill_checkpoints, (delays, False)),
        (kill_checkpoints, (delays, True)),
        (kill_fit, (delays, None)),
        (kill_fit, (delays, 3)),
    ):
        folder = Path(sys.argv[1], f"{scenario.__name__}-{arguments[-1:]}")
        folder.mkdir()
        begun = time.perf_counter()
        scenario(folder, *arguments)
        print(scenario.__name__, f"{time.perf_counter() - begun:.1f} s")
