"""Checks of a score's arguments: what can be known without looking at values."""

from __future__ import annotations

from torch import Tensor

__all__ = ["at_least_1", "labels_fit", "one_dimension", "one_for_each", "two_dimensions"]


def labels_fit(name: str, probs: Tensor, targets: Tensor) -> None:
    """Raise unless there is one label for each distribution over classes."""
    if probs.ndim == 0 or targets.shape != probs.shape[:-1]:
        raise ValueError(
            f"`targets` must have shape {tuple(probs.shape[:-1])}, that of `{name}` "
            f"{tuple(probs.shape)} without its classes, got {tuple(targets.shape)}"
        )


def one_dimension(**values: Tensor) -> None:
    """Raise unless every tensor holds one number for each example."""
    for name, value in values.items():
        if value.ndim != 1:
            raise ValueError(f"`{name}` must have shape (batch,), got {tuple(value.shape)}")


def one_for_each(**values: Tensor) -> None:
    """Raise unless the first tensor holds one number for each example, and the second as many."""
    (name, first), (other, second) = values.items()
    one_dimension(**{name: first})
    if second.shape != first.shape:
        raise ValueError(
            f"`{other}` must have the shape of `{name}`, {tuple(first.shape)}, "
            f"got {tuple(second.shape)}"
        )


def two_dimensions(**values: Tensor) -> None:
    """Raise unless every tensor holds one number for each example and class."""
    for name, value in values.items():
        if value.ndim != 2:
            raise ValueError(f"`{name}` must have shape (batch, classes), got {tuple(value.shape)}")


def at_least_1(**values: int) -> None:
    """Raise unless every number is a positive whole one."""
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value}")
