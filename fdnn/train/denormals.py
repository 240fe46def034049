"""Numbers too small for the processor's fast path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["flushed"]


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Let numbers below the smallest normal one (1e-38 in float32) be 0 while it lasts.

    A unit that has died gets no gradient any more. Its momentum decays until it is denormal, and
    stays so: 0.9 times the smallest such number is rounded to the smallest. Each costs a processor
    some 100 cycles, so that dead lanes made a step up to 25 times as slow. XLA does the same on
    CPUs.
    """
    before = bool(torch.tensor(1e-38) * 0.1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
