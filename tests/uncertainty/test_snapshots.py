"""`snapshots`: the states at the ends of cycles, those that shorter runs end with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_equal
from torch import nn, vmap

from fdnn import functionalize, optim, random, schedules, train, tree
from fdnn.uncertainty import Snapshots, deep_ensemble, snapshots

MODEL = functionalize(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)))
X = random.normal(random.key(0), (40, 4))
DATA = X, X[:, :3].argmax(1)
STEPS = 5  # in an epoch
TX = optim.sgd(schedules.cosine_annealing_warm_restarts(0.2, T_0=2 * STEPS))
STEP = train.make_step(train.supervised(MODEL, F.cross_entropy), TX)


def begin(key: Any) -> train.TrainState:
    return train.init(MODEL, TX, key)


def fit(state: Any, epochs: int, members: int | None = None) -> Any:
    monitors = {} if members is None else {"kept": snapshots(members, every=2 * STEPS)}
    return train.fit(
        STEP, state, DATA, epochs=epochs, batch_size=8, monitors=monitors, compile=False,
        progress=False,
    )[0]  # fmt: skip


def test_are_what_shorter_runs_end_with() -> None:
    start = begin(random.key(1))
    kept = fit(start, epochs=7, members=2).monitors["kept"]
    ends = [fit(start, epochs) for epochs in (2, 4, 6)]
    wanted = tree.stack([Snapshots(e.params, e.buffers) for e in (ends[2], ends[1])])
    assert_equal(kept, wanted)  # the third in place of the first
    outputs = deep_ensemble(MODEL, *kept, X)
    torch.testing.assert_close(outputs[1], MODEL.apply(ends[1].params, ends[1].buffers, X)[0])


def test_places_without_a_cycle_show_it() -> None:
    kept = fit(begin(random.key(1)), epochs=3, members=2).monitors["kept"]
    assert all(leaf[0].isfinite().all() and leaf[1].isnan().all() for leaf in kept.params.values())
    assert kept.buffers["1.num_batches_tracked"].tolist() == [2 * STEPS, 0]


def test_lanes_are_solo_runs() -> None:
    keys = random.split(random.key(2), 2)
    found = fit(vmap(begin)(keys), epochs=4, members=2).monitors["kept"]
    assert found.params["0.weight"].shape == (2, 2, 6, 4)
    solo = tree.stack([fit(begin(key), epochs=4, members=2).monitors["kept"] for key in keys])
    for path, a, b in zip(tree.paths(found), tree.leaves(found), tree.leaves(solo), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=path)
    outputs = vmap(lambda kept: deep_ensemble(MODEL, *kept, X))(found)
    assert outputs.shape == (2, 2, 40, 3)


def test_ranges() -> None:
    with pytest.raises(ValueError, match="`members` must be at least 1, got 0"):
        snapshots(0, 5)
    with pytest.raises(ValueError, match="`every` must be at least 1, got 0"):
        snapshots(5, 0)
