"""SWAG: closed forms of its moments, the paper's algorithm, and what its samples vary by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import functionalize, optim, random, train, tree
from fdnn.uncertainty import SwagState, deep_ensemble, swag, swag_init, swag_sample, swag_update

DRAWS = 20_000


def path(count: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Parameters at so many stations of a run."""
    return {
        "w": 3 + random.normal(random.key(count), (count, 2, 2), dtype),
        "b": random.normal(random.key(count + 1), (count, 2), dtype),
    }


def collected(stations: dict[str, Tensor], rank: int) -> SwagState:
    state = swag_init({name: x[0] for name, x in stations.items()}, rank)
    for station in tree.unstack(stations):
        state = swag_update(state, station)
    return state


def vector(params: Any) -> Tensor:
    return tree.ravel(params)[0]


@given(count=st.integers(1, 9), rank=st.sampled_from([0, 2, 3, 20]))
def test_moments_are_those_of_all_stations(count: int, rank: int) -> None:
    stations = path(count)
    state = collected(stations, rank)
    assert state.count == count
    for name, x in stations.items():
        torch.testing.assert_close(state.mean[name], x.mean(0))
        torch.testing.assert_close(state.variance[name], x.var(0, correction=0))


@given(count=st.integers(1, 9), rank=st.sampled_from([2, 3, 20]))
def test_deviations_are_the_last_from_their_running_means(count: int, rank: int) -> None:
    stations = path(count)
    state = collected(stations, rank)
    for name, x in stations.items():
        columns: list[Tensor] = []  # the paper's algorithm 1
        for n in range(1, count + 1):
            if len(columns) == rank:
                columns.pop(0)
            columns.append(x[n - 1] - x[:n].mean(0))
        kept = state.deviations[name]
        at = [n % rank for n in range(max(count - rank, 0), count)]
        torch.testing.assert_close(kept[at], torch.stack(columns))
        assert kept.count_nonzero() <= len(columns) * x[0].numel()


def test_does_not_cancel_in_float32() -> None:
    stations = {"w": 1000 + 0.01 * random.normal(random.key(0), (50, 3))}
    found = collected(stations, 0).variance["w"]
    wanted = stations["w"].double().var(0, correction=0)
    torch.testing.assert_close(found.double(), wanted, rtol=0.02, atol=0)  # squares less mean: 0.1


def test_half_precision_is_collected_in_float32() -> None:
    state = collected(path(5, torch.bfloat16), 2)
    assert {leaf.dtype for leaf in tree.leaves(state[:3])} == {torch.float32}
    assert swag_sample(random.key(0), state)["w"].dtype == torch.float32


@pytest.mark.parametrize(("count", "rank"), [(12, 0), (12, 4), (3, 20)])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_samples_have_mean_and_covariance(count: int, rank: int, scale: float) -> None:
    state = collected(path(count), rank)
    draw = vmap(lambda key: vector(swag_sample(key, state, scale)))
    draws = draw(random.split(random.key(7), DRAWS))
    covariance = torch.diag(vector(state.variance))
    if rank:
        deviations = vmap(vector)(state.deviations)
        low_rank = deviations.mT @ deviations / (min(count, rank) - 1)
        covariance = (covariance + low_rank) / 2
    covariance = scale * covariance
    error = (draws.mean(0) - vector(state.mean)).abs()
    assert (error < 5 * (covariance.diagonal() / DRAWS).sqrt()).all()
    variances = covariance.diagonal()
    standard_error = ((torch.outer(variances, variances) + covariance**2) / DRAWS).sqrt()
    assert ((torch.cov(draws.mT) - covariance).abs() < 5 * standard_error).all()


def test_scale_0_is_the_average() -> None:
    state = collected(path(5), 3)
    assert_equal(swag_sample(random.key(0), state, 0.0), state.mean)


def test_ranges() -> None:
    for build in (lambda rank: swag_init({"w": torch.ones(1)}, rank), swag):
        for rank in (-1, 1):
            with pytest.raises(ValueError, match=f"`rank` must be 0 or at least 2, got {rank}"):
                build(rank)
    with pytest.raises(ValueError, match="`start` must be at least 0, got -1"):
        swag(start=-1)


MODEL = functionalize(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)))
X = random.normal(random.key(0), (40, 4))
DATA = X, X[:, :3].argmax(1)
TX = optim.chain(optim.sgd(0.2), optim.swa(start=10, every=5))
STEP = train.make_step(train.supervised(MODEL, F.cross_entropy), TX)


def begin(key: Any) -> train.TrainState:
    return train.init(MODEL, TX, key)


def fit(state: Any) -> Any:
    """Six epochs of five steps, collected after 10, 15, 20, 25 and 30."""
    monitors = {"swag": swag(3, start=9)}
    return train.fit(
        STEP, state, DATA, epochs=6, batch_size=8, monitors=monitors, compile=False,
        progress=False,
    )[0]  # fmt: skip


def test_mean_in_fit_is_optims_average() -> None:
    keys = random.split(random.key(1), 2)
    runs = fit(vmap(begin)(keys))
    found = runs.monitors["swag"]
    assert found.count.tolist() == [5, 5]
    averages = optim.averaged_params(runs.opt_state)
    assert_close(found.mean, averages, rtol=1e-5, atol=1e-6)
    solo = tree.stack([fit(begin(key)).monitors["swag"] for key in keys])
    assert_close(found, solo, rtol=1e-3, atol=1e-5)


def test_samples_get_statistics_of_their_own() -> None:
    state = fit(begin(random.key(1)))
    draws = vmap(lambda key: swag_sample(key, state.monitors["swag"]))(
        random.split(random.key(3), 4)
    )
    batches = [(X[:20], None), (X[20:], None)]
    expanded = tree.map(lambda b: b.expand(4, *b.shape), state.buffers)
    buffers = vmap(lambda p, b: train.reestimate_batch_norm(MODEL, p, b, batches))(draws, expanded)
    outputs = deep_ensemble(MODEL, draws, buffers, X)
    for i, params in enumerate(tree.unstack(draws)):
        own = train.reestimate_batch_norm(MODEL, params, state.buffers, batches)
        wanted = MODEL.apply(params, own, X)[0]
        torch.testing.assert_close(outputs[i], wanted, rtol=1e-4, atol=1e-5)
