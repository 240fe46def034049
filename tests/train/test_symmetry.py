"""Equal weights stay equal: why a hidden layer is drawn at random."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdnn import functionalize, initializers, optim, random, train
from fdnn.types import GradientTransformation, Initializer

HIDDEN = 8
X = random.normal(random.key(1), (40, 5), torch.float64)
Y = (X @ random.normal(random.key(2), (5, 3), torch.float64)).argmax(1)


def trained(weight: Initializer, tx: GradientTransformation) -> tuple[Tensor, Tensor, float]:
    """The weights around a hidden layer after 20 steps, and the loss over what it was."""
    model = functionalize(
        nn.Sequential(nn.Linear(5, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 3)).double()
    )
    params, buffers = model.init(random.key(0), weight=weight, bias=initializers.zeros)
    state = train.TrainState(params, buffers, tx.init(params), random.key(3), torch.tensor(0))
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    losses = []
    for _ in range(20):
        state, info = step(state, (X, Y))
        losses.append(info["loss"].item())
    return state.params["0.weight"], state.params["2.weight"], losses[-1] / losses[0]


@pytest.mark.parametrize("tx", [optim.sgd(0.5), optim.sgd(0.5, momentum=0.9), optim.adam(0.05)])
def test_equal_weights_stay_equal(tx: GradientTransformation) -> None:
    into, out, fell = trained(initializers.constant(0.1), tx)
    assert fell < 0.95, "it does train"
    torch.testing.assert_close(into, into[:1].expand_as(into), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(out, out[:, :1].expand_as(out), rtol=1e-9, atol=1e-12)
    hidden = torch.tanh(X @ into.T)
    assert torch.linalg.matrix_rank(hidden, rtol=1e-9) == 1
    # Drawn ones become features of their own, and fit better.
    into, _, fell_further = trained(initializers.for_activation("tanh"), tx)
    assert torch.linalg.matrix_rank(torch.tanh(X @ into.T), rtol=1e-9) == HIDDEN
    assert fell_further < fell
