"""Checks of a schedule's arguments, made when it is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

from torch import Tensor

__all__ = ["at_least_0", "check", "check_choice", "check_milestones", "check_steps", "in_0_1"]

Rule = tuple[str, Callable[[float], bool]]
"""The words after "must be", and the test."""

at_least_0: Rule = ("at least 0", lambda x: x >= 0)
in_0_1: Rule = ("in [0, 1]", lambda x: 0 <= x <= 1)


def check(rule: Rule, **values: Any) -> None:
    """Raise unless every value is a finite number that keeps the rule, or a 0-d tensor.

    Args:
        rule: what is asked of a number. A tensor passes: its value may not be known yet.
        **values: by argument name.

    Raises:
        TypeError: a value is neither a number nor a 0-d tensor.
        ValueError: a number breaks the rule; the message names the argument, the rule, the value.
    """
    words, holds = rule
    for name, value in values.items():
        if isinstance(value, Tensor) and value.ndim == 0:
            continue
        if not isinstance(value, Real):
            raise TypeError(f"`{name}` must be a number or a 0-d tensor, got {value!r}")
        if not (math.isfinite(value) and holds(float(value))):
            raise ValueError(f"`{name}` must be {words}, got {value}")


def check_steps(least: int, *, tensors: bool = False, **values: Any) -> None:
    """Raise unless every value is a whole number of steps, `least` or more.

    Args:
        least: the smallest number allowed.
        tensors: let 0-d tensors pass.
        **values: by argument name.

    Raises:
        ValueError: a value is not; the message names the argument, the rule and the value.
    """
    for name, value in values.items():
        if tensors and isinstance(value, Tensor) and value.ndim == 0:
            continue
        if not isinstance(value, int) or value < least:
            also = ", or a 0-d tensor" if tensors else ""
            raise ValueError(f"`{name}` must be an int, at least {least}{also}, got {value!r}")


def check_milestones(milestones: Sequence[int], *, repeats: bool = False) -> None:
    """Raise unless milestones are whole numbers above 0 in rising order.

    Args:
        milestones: counts of steps.
        repeats: let a milestone occur several times.

    Raises:
        ValueError: they are not.
    """
    steps = [0, *milestones]
    whole = all(isinstance(step, int) for step in steps)
    if not whole or any(b < a or (b == a and not (repeats and a > 0)) for a, b in pairwise(steps)):
        raise ValueError(f"`milestones` must be rising ints above 0, got {list(milestones)}")


def check_choice(choices: Sequence[str], **values: str) -> None:
    """Raise unless every value is one of `choices`.

    Raises:
        ValueError: a value is not; the message lists the choices.
    """
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"`{name}` must be one of {list(choices)}, got {value!r}")
