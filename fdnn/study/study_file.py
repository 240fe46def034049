"""The file of Python that defines a study for the command line."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from fdnn.study.experiment import Experiment

__all__ = ["FileError", "StudyFile", "load"]


class FileError(Exception):
    """The file lacks something, or has it wrong."""


class StudyFile(NamedTuple):
    """What the file defines.

    Attributes:
        experiment: `experiment(**arm) -> Experiment`.
        arms: by name, its keyword arguments.
        sweep: by the name of a hyperparameter, its values; empty if the file has none.
        module: the file, imported.
    """

    experiment: Callable[..., Experiment]
    arms: Mapping[str, Mapping[str, Any]]
    sweep: Mapping[str, Sequence[float]]
    module: ModuleType


def load(path: Path) -> StudyFile:
    """Import a file, with the modules beside it, and see that it has what it must.

    Raises:
        FileError: it is no file of Python, lacks `experiment` or `arms`, or has them wrong.
    """
    if not path.is_file() or path.suffix != ".py":
        raise FileError(f"must be a file of Python, got {str(path)!r}")
    module = _imported(path.resolve())
    wanted: dict[str, tuple[Callable[[Any], bool], str]] = {
        "experiment": (callable, "a function"),
        "arms": (_has_dicts, "a dict of dicts, at least one"),
    }
    for name, (_, what) in wanted.items():
        if not hasattr(module, name):
            raise FileError(f"{path} lacks `{name}`, {what}")
    found = StudyFile(module.experiment, module.arms, getattr(module, "sweep", {}), module)
    wanted["sweep"] = (_has_numbers, "a dict of lists of numbers")
    for name, (is_right, what) in wanted.items():
        value = getattr(found, name)
        if not is_right(value):
            raise FileError(f"`{name}` in {path} must be {what}, got {value!r}")
    for name, arm in found.arms.items():
        try:
            inspect.signature(found.experiment).bind(**arm)
        except TypeError as error:
            raise FileError(f"arm {name!r} in {path} does not fit `experiment`: {error}") from error

    def experiment(**arm: Any) -> Experiment:
        built = found.experiment(**arm)
        if not isinstance(built, Experiment):
            raise FileError(
                f"`experiment` in {path} must return what `study.training` or "
                f"`study.from_functions` returns, got {built!r}"
            )
        return built

    return found._replace(experiment=experiment)


def _imported(path: Path) -> ModuleType:
    name = f"study_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def _has_dicts(arms: Any) -> bool:
    if not isinstance(arms, Mapping):
        return False
    return bool(arms) and all(isinstance(arm, Mapping) for arm in arms.values())


def _has_numbers(sweep: Any) -> bool:
    try:
        return all([float(number) for number in numbers] for numbers in sweep.values())
    except (AttributeError, TypeError, ValueError):
        return False
