"""fdnn's optimizers under TorchOpt's signature, and under libraries that stand on TorchOpt."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from torch import Tensor

from fdnn import optim, tree
from fdnn.types import Params

START = {"w": torch.tensor([[0.5, -1.0]]), "b": torch.tensor([0.1])}
X = torch.tensor([[1.0, 2.0], [0.5, -1.0], [2.0, 0.0]])
BATCH = (X, X.sum(1, keepdim=True) + 1)


def loss(params: Params, batch: Any) -> tuple[Tensor, Tensor]:
    x, y = batch
    out = x @ params["w"].T + params["b"]
    return ((out - y) ** 2).mean(), out


def gradient(params: Params) -> Params:
    return torch.func.grad(loss, has_aux=True)(params, BATCH)[0]


def walk(tx: Any, steps: int) -> Params:
    params, state = START, tx.init(START)
    for _ in range(steps):
        params, state = optim.step(tx, params, gradient(params), state)
    return params


def test_pure_unless_asked() -> None:
    """TorchOpt's own default writes into what it is given."""
    tx = optim.adam(0.1)
    adapted = optim.as_torchopt(tx)
    given = (gradient(START), adapted.init(START), START)
    copies = tree.map(torch.clone, given)
    for how in ({}, {"inplace": False}):
        found = adapted.update(given[0], given[1], params=given[2], **how)
        assert_equal(found, tx.update(*copies))
        assert_equal(given, copies)


@pytest.mark.parametrize("default", [False, True])
def test_in_place_the_given_tensors_hold_what_is_new(default: bool) -> None:
    tx = optim.adam(0.1)
    adapted = optim.as_torchopt(tx, inplace=default)
    grads, state = gradient(START), adapted.init(START)
    expected = tx.update(tree.map(torch.clone, grads), tree.map(torch.clone, state), START)
    how = {} if default else {"inplace": True}
    found = adapted.update(grads, state, params=START, **how)
    assert_equal(found, expected)
    for old, new in zip(tree.leaves((grads, state)), tree.leaves(found), strict=True):
        assert old is new


def test_the_signature_is_torchopts() -> None:
    """`update(updates, state, *, params=None, inplace=...)`, which its callers use by keyword."""
    parameters = inspect.signature(optim.as_torchopt(optim.sgd()).update).parameters
    assert [*parameters] == ["updates", "state", "params", "inplace"]
    assert parameters["params"].kind is parameters["inplace"].kind is inspect.Parameter.KEYWORD_ONLY


def test_beside_torchopts_own() -> None:
    torchopt = pytest.importorskip("torchopt")
    for ours, theirs in (
        (optim.sgd(0.1, momentum=0.9), torchopt.sgd(0.1, momentum=0.9)),
        (optim.adamw(0.1), torchopt.adamw(0.1)),
    ):
        results = []
        for tx in (optim.as_torchopt(ours), theirs):
            params, state = tree.map(torch.clone, START), tx.init(START)
            for _ in range(10):
                updates, state = tx.update(gradient(params), state, params=params, inplace=False)
                params = torchopt.apply_updates(params, updates, inplace=False)
            results.append(params)
        assert_close(*results, rtol=1e-3, atol=1e-5)


def build(tx: Any) -> Any:
    pytest.importorskip("torchopt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensordict announces a change of its own
        posteriors = pytest.importorskip("posteriors")
        return posteriors.torchopt.build(loss, tx)


@pytest.mark.parametrize("tx", [optim.adamw(0.1), optim.sgd(lambda n: 0.1 / (n + 1), momentum=0.9)])
def test_posteriors(tx: Any) -> None:
    transform = build(optim.as_torchopt(tx))
    states = [transform.init(START)]
    for _ in range(10):
        states.append(transform.update(states[-1], BATCH)[0])
    assert_close(states[-1].params, walk(tx, 10), rtol=1e-6, atol=1e-7)
    # No state has been written into: each still tells its own number of steps.
    assert [state.opt_state.count.item() for state in states] == list(range(11))
    # posteriors in place throws the returned state away, and so wants one that is overwritten.
    transform = build(optim.as_torchopt(tx, inplace=True))
    state = transform.init(tree.map(torch.clone, START))
    for _ in range(10):
        state, _ = transform.update(state, BATCH, inplace=True)
    assert_close(state.params, walk(tx, 10), rtol=1e-6, atol=1e-7)
    assert state.opt_state.count == 10
