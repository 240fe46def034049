"""Means and sums of squared deviations of samples that come in parts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Moments", "merge", "moments", "none", "variance"]


class Moments(NamedTuple):
    """What is remembered of samples to know their mean and variance.

    Attributes:
        number: how many samples, 0-d, int64.
        mean: of the samples, of the shape of one.
        m2: sum of squared deviations from the mean, of the same shape.
    """

    number: Tensor
    mean: Tensor
    m2: Tensor


def none(like: Tensor) -> Moments:
    """Return the moments of no samples; `like` is one of the samples to come."""
    zeros = torch.zeros_like(like)
    return Moments(torch.zeros((), dtype=torch.int64, device=like.device), zeros, zeros.clone())


def moments(samples: Tensor) -> Moments:
    """Compute the moments of samples of shape `(samples, ...)`, in two passes."""
    mean = samples.mean(0)
    number = torch.full((), len(samples), dtype=torch.int64, device=samples.device)
    return Moments(number, mean, (samples - mean).square().sum(0))


def merge(a: Moments, b: Moments) -> Moments:
    """Return the moments of the samples of both."""
    number = a.number + b.number
    share = b.number.to(a.mean.dtype) / number.clamp(min=1)
    apart = b.mean - a.mean
    return Moments(number, a.mean + apart * share, a.m2 + b.m2 + apart.square() * share * a.number)


def variance(of: Moments, correction: int = 0) -> Tensor:
    """Return the mean squared deviation; torch's `correction` is taken off the count."""
    return of.m2 / (of.number - correction).clamp(min=0)
