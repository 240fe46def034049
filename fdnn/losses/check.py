"""Checks of a loss's arguments: what can be known without looking at values."""

from __future__ import annotations

from torch import Tensor

from fdnn.types import Scalar

__all__ = ["above_0", "at_least_0", "in_0_1", "labels_fit", "same_shape"]


def above_0(**values: Scalar) -> None:
    """Raise unless every number is above 0. A tensor passes: its value may not be known yet."""
    for name, value in values.items():
        if not isinstance(value, Tensor) and not value > 0:
            raise ValueError(f"`{name}` must be positive, got {value}")


def at_least_0(**values: Scalar) -> None:
    """Raise unless every number is at least 0."""
    for name, value in values.items():
        if not isinstance(value, Tensor) and not value >= 0:
            raise ValueError(f"`{name}` must be at least 0, got {value}")


def in_0_1(**values: Scalar) -> None:
    """Raise unless every number is in [0, 1]."""
    for name, value in values.items():
        if not isinstance(value, Tensor) and not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be in [0, 1], got {value}")


def same_shape(first: str, expected: Tensor, **others: Tensor | None) -> None:
    """Raise unless all have the shape of the first; None passes."""
    for name, tensor in others.items():
        if tensor is not None and tensor.shape != expected.shape:
            raise ValueError(
                f"`{name}` must have the shape of `{first}`, {tuple(expected.shape)}, "
                f"got {tuple(tensor.shape)}"
            )


def labels_fit(target: Tensor, input1: Tensor) -> None:
    """Raise unless there is one label for each pair of embeddings."""
    if target.shape != input1.shape[:-1]:
        raise ValueError(
            f"`target` must have shape {tuple(input1.shape[:-1])}, that of `input1` "
            f"{tuple(input1.shape)} without its last dimension, got {tuple(target.shape)}"
        )
