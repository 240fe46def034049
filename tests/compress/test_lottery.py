"""Lottery tickets: Frankle and Carbin's loop, written out in torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_equal
from torch import Tensor, nn, vmap
from torch.nn.utils import prune

from fdnn import compress, functionalize, optim, random, train, tree

X = random.normal(random.key(5), (16, 4), torch.float64)
Y = torch.arange(16) % 3
MODEL = functionalize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double())
LOSS = train.supervised(MODEL, F.cross_entropy)


def fit(params: Any, masks: Any) -> Any:
    tx = compress.keep_masked(optim.sgd(0.2), masks)
    state = train.TrainState(
        params, {}, tx.init(params), random.key(0), torch.zeros((), dtype=torch.int64)
    )
    step = train.make_step(LOSS, tx)
    for _ in range(5):
        state, _ = step(state, (X, Y))
    return state.params


@pytest.mark.parametrize("is_global", [False, True])
def test_tickets_are_those_of_torchs_loop(is_global: bool) -> None:
    params, _ = MODEL.init(random.key(1))
    by = compress.global_unstructured if is_global else compress.l1_unstructured
    tickets = compress.lottery_tickets(fit, params, 0.3, rounds=3, prune=by)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    net.load_state_dict(params)
    places = [(net[i], "weight") for i in (0, 2)]
    for layer, name in places:
        prune.identity(layer, name)
    for ticket in tickets:
        with torch.no_grad():  # rewind
            for i in (0, 2):
                net[i].weight_orig.copy_(params[f"{i}.weight"])
                net[i].bias.copy_(params[f"{i}.bias"])
        optimizer = torch.optim.SGD(net.parameters(), 0.2)
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(net(X), Y).backward()
            optimizer.step()
        net(X)
        if is_global:
            prune.global_unstructured(places, prune.L1Unstructured, amount=0.3)
        else:
            for layer, name in places:
                prune.l1_unstructured(layer, name, 0.3)
        assert_equal(ticket, {f"{i}.weight": net[i].weight_mask.bool() for i in (0, 2)})


def test_amounts_and_seeds_are_lanes() -> None:
    amounts, keys = torch.tensor([0.2, 0.5], dtype=torch.float64), random.split(random.key(0))

    def tickets(key: Tensor, amount: Any) -> Any:
        return compress.lottery_tickets(fit, MODEL.init(key)[0], amount, rounds=2)

    swept = vmap(tickets)(keys, amounts)
    for i, lane in enumerate(tree.unstack(swept)):
        assert_equal(lane, tickets(keys[i], amounts[i].item()))


def test_errors() -> None:
    with pytest.raises(ValueError, match="`rounds` must be at least 1, got 0"):
        compress.lottery_tickets(fit, MODEL.params, 0.5, rounds=0)
