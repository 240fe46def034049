"""Every exported name is documented: what it means, what it takes, an example that runs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import Any

import pytest

import fdnn

PACKAGES = [
    fdnn,
    *(
        importlib.import_module(f"fdnn.{found.name}")
        for found in pkgutil.iter_modules(fdnn.__path__)
    ),
]
EXPORTS = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in PACKAGES
    if isinstance(package, ModuleType)
    for name in package.__all__
}
FUNCTIONS = {name: value for name, value in EXPORTS.items() if inspect.isfunction(value)}
CLASSES = {
    name: value
    for name, value in EXPORTS.items()
    if inspect.isclass(value) and value.__module__.startswith("fdnn")
}


def test_all_lists_are_true() -> None:
    for package in PACKAGES:
        names = list(package.__all__)
        assert len(names) == len(set(names)), package.__name__
        assert all(hasattr(package, name) for name in names), package.__name__


def test_something_is_exported() -> None:
    assert len(FUNCTIONS) > 60


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_function_is_documented(name: str) -> None:
    function = FUNCTIONS[name]
    doc = inspect.getdoc(function)
    assert doc, name
    first, *rest = doc.split("\n")
    assert first.endswith("."), first
    assert not rest or rest[0] == "", "one line, then a blank one"
    assert ">>> " in doc, "no example"
    parameters = [p for p in inspect.signature(function).parameters if p not in ("args", "kwargs")]
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", doc + "\n", re.M)
    assert section or len(parameters) <= 3, "no Args"
    if section:
        described = re.findall(r"^    \**(\w+):", section.group(1), re.M)
        assert described == parameters, "Args must name every argument, in order"


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_function_is_typed(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_class_is_documented(name: str) -> None:
    cls: Any = CLASSES[name]
    doc = inspect.getdoc(cls)
    assert doc and not doc.startswith(f"{cls.__name__}("), "generated docstring"
    fields = getattr(cls, "_fields", ())
    missing = [field for field in fields if f"{field}:" not in doc]
    assert not missing
