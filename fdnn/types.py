"""The vocabulary of fdnn: type aliases and protocols, nothing that runs.

Every other module speaks in these terms. A *tree* is a nesting of dicts, tuples, lists and
named tuples whose leaves are tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

__all__ = [
    "Buffers",
    "GradientTransformation",
    "Initializer",
    "Key",
    "Params",
    "Scalar",
    "ScalarOrSchedule",
    "Schedule",
    "Shape",
    "Tree",
    "Where",
]

Tree: TypeAlias = Any
"""A nesting of containers with tensors at its leaves."""

Where: TypeAlias = str | Sequence[str] | Callable[[str, Any], bool]
"""Which leaves: a glob on the path, several globs, or a predicate of path and leaf."""

Params: TypeAlias = dict[str, Tensor]
"""Trainable tensors under the module's dotted names: `dict(module.named_parameters())`."""

Buffers: TypeAlias = dict[str, Tensor]
"""State that a model carries but does not train (running statistics), under dotted names."""

Key: TypeAlias = Tensor
"""A random key: two 32-bit words held in an int64 tensor of shape `(2,)`."""

Shape: TypeAlias = Sequence[int]
"""The shape of a tensor."""

Scalar: TypeAlias = float | Tensor
"""A number, or a 0-d tensor (so that it can be differentiated, batched and changed)."""

Schedule: TypeAlias = Callable[[Any], Any]
"""A pure function from the number of steps taken (an int or a 0-d tensor) to a scalar."""

ScalarOrSchedule: TypeAlias = Scalar | Schedule
"""A hyperparameter: constant, or a function of the step count."""


class Initializer(Protocol):
    """Draws the first value of a tensor from a key."""

    def __call__(
        self,
        key: Key,
        shape: Shape,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return a fresh tensor of `shape`, `dtype` and `device`, a function of `key` alone."""
        ...


class GradientTransformation(NamedTuple):
    """An optimizer, or a stage of one: a pair of pure functions.

    Attributes:
        init: `init(params) -> opt_state`.
        update: `update(grads, opt_state, params=None, **extra) -> (updates, opt_state)`, where
            `updates` are what is *added* to the parameters (negative steps).
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]
