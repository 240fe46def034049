"""A call of `run`: when, by which command, on which machine."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from importlib import metadata
from typing import NamedTuple

import torch

__all__ = ["Call", "command", "environment", "now"]


class Call(NamedTuple):
    """One call of `run` that had something to do.

    Attributes:
        started: when, in UTC.
        command: how this Python was called, for a shell.
        environment: versions and machine, by name.
        seconds: how long it took, start to end; None if it was killed, or still goes on.
    """

    started: str
    command: str
    environment: dict[str, str]
    seconds: float | None


def command() -> str:
    """Return how this Python was called, as one types it."""
    return shlex.join(sys.orig_argv)


def now() -> str:
    """Return the time in UTC, to the second."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S}"


def environment() -> dict[str, str]:
    """Return the versions and the machine that numbers may depend on."""
    found = {"Python": platform.python_version(), "torch": torch.__version__}
    for name, package in {"fdnn": "fdnn-torch", "NumPy": "numpy", "SciPy": "scipy"}.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["system"] = platform.platform()
    found["processor"] = f"{_processor()}, {os.cpu_count()} cores"
    found["threads of torch"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    """Name the processor, as Linux or Python know it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1] for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0].strip() if names else platform.processor() or platform.machine()
