"""Denormal numbers are 0 while `fit` runs, and what they were before and after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdnn import functionalize, optim, random, train
from fdnn.train.denormals import flushed


def flushes() -> bool:
    return not (torch.tensor([1e-37]) / 1e3).view(torch.int32).item()


@pytest.mark.parametrize("before", [False, True])
def test_it_ends_as_it_began(before: bool) -> None:
    torch.set_flush_denormal(before)
    try:
        assert flushes() == before
        with pytest.raises(ZeroDivisionError), flushed():
            assert flushes()
            raise ZeroDivisionError
        assert flushes() == before
    finally:
        torch.set_flush_denormal(False)


def test_the_momentum_of_dead_units_ends() -> None:
    """0.9 times the smallest denormal number would be rounded to the smallest for ever."""
    model, tx = functionalize(nn.Linear(3, 2)), optim.sgd(lr=0.1, momentum=0.9)
    step = train.make_step(train.supervised(model, lambda y, t: 0 * F.mse_loss(y, t)), tx)
    state = train.init(model, tx, random.key(0))

    def small(leaf: Tensor) -> Any:
        return torch.full_like(leaf, 1e-36) if leaf.ndim else leaf

    state = state._replace(
        opt_state=torch.utils._pytree.tree_map(small, state.opt_state),
        count=torch.tensor(80),  # 10 of 60 epochs
    )
    data = torch.ones(8, 3), torch.ones(8, 2)
    state, _ = train.fit(step, state, data, epochs=90, batch_size=1, compile=False, progress=False)
    assert not flushes()
    slots = [leaf for leaf in torch.utils._pytree.tree_leaves(state.opt_state) if leaf.ndim]
    assert slots and not any(leaf.any() for leaf in slots)
