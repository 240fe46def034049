"""torch's schedulers as traces of numbers, shared by the tests of schedules."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fdnn.schedules import Schedule

Build = Callable[[torch.optim.Optimizer], Any]
"""Makes a torch scheduler."""


class Compare:
    """A schedule against torch's scheduler, which sets the rate that each step uses."""

    def __call__(
        self, schedule: Schedule, build: Build, lr: float, steps: int = 40, scale: float = 1.0
    ) -> None:
        """Assert that they agree at every step, by torch's recursion and its closed form."""
        found = torch.stack([schedule(count) for count in range(steps)])
        recursive, closed = self.trace(build, lr, steps)
        bound = 1e-12 * max(scale, lr)
        torch.testing.assert_close(found, recursive, rtol=0, atol=bound)
        if closed is not None:
            torch.testing.assert_close(found, closed, rtol=0, atol=bound)
        assert found.dtype == torch.float64
        counts = torch.arange(steps)
        torch.testing.assert_close(torch.vmap(schedule)(counts), found, rtol=0, atol=bound)
        torch.testing.assert_close(schedule(counts), found, rtol=0, atol=bound)

    def trace(
        self, build: Build, lr: float, steps: int, key: str = "lr"
    ) -> tuple[Tensor, Tensor | None]:
        """List what is in use at each step, and the closed form where torch has one."""
        used, closed = [], []
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr, momentum=0.5)
        scheduler = build(optimizer)
        for _ in range(steps):
            used.append(optimizer.param_groups[0][key])
            if hasattr(scheduler, "_get_closed_form_lr"):
                closed.append(scheduler._get_closed_form_lr()[0])
            optimizer.step()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # deprecated `epoch`, torch's own use
                if len(used) < steps:
                    scheduler.step()
        as_tensor = torch.tensor(used, dtype=torch.float64)
        return as_tensor, torch.tensor(closed, dtype=torch.float64) if closed else None


@pytest.fixture(scope="session")
def compare() -> Compare:
    return Compare()
