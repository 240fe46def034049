"""`lr_find`: the rates, the curve, what is flagged and suggested."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, vmap

from fdnn import optim, random, schedules, train, tree
from fdnn.train.lr_find import _judged
from fdnn.types import Params

NOTHING: dict[str, Tensor] = {}


def bowl(params: Params, buffers: Any, batch: Any, key: Any) -> tuple[Tensor, Any]:
    """Of curvature 4: gradient descent diverges from a rate of 0.5 on."""
    return 2 * (params["x"] ** 2).sum() + 0 * batch[0].sum(), buffers


def begin(tx: Any, x: float = 3.0) -> train.TrainState:
    params = {"x": torch.tensor([x], dtype=torch.float64)}
    return train.TrainState(
        params, NOTHING, tx.init(params), random.key(0), torch.zeros((), dtype=torch.int64)
    )


SGD = optim.sgd()
STEP = train.make_step(bowl, SGD)
DATA = (torch.zeros(400, 1), torch.zeros(400))


def find(**own: Any) -> train.LRFindResult:
    return train.lr_find(STEP, begin(SGD), DATA, **{"batch_size": 1, "max_lr": 10.0} | own)


@given(low=st.floats(1e-6, 1e-2), times=st.floats(1.1, 1e5), steps=st.integers(2, 60))
def test_rates_grow_by_one_factor(low: float, times: float, steps: int) -> None:
    lrs = find(min_lr=low, max_lr=low * times, steps=steps).lrs
    assert lrs.shape == (steps,) and lrs.dtype == torch.float64
    torch.testing.assert_close(
        lrs[1:] / lrs[:-1],
        torch.full((steps - 1,), times ** (1 / (steps - 1)), dtype=torch.float64),
        rtol=1e-12,
        atol=0,
    )
    assert lrs[0].item() == low and lrs[-1].item() == pytest.approx(low * times, rel=1e-12)


def test_is_the_loop_one_would_write() -> None:
    """Each step uses its own rate; the loss is that before the step."""
    found = find(steps=30)
    x = torch.tensor(3.0, dtype=torch.float64)
    for lr, loss in zip(found.lrs, found.losses, strict=True):
        torch.testing.assert_close(loss, 2 * x**2, rtol=1e-12, atol=0)
        x = x - lr * 4 * x


def test_smoothing() -> None:
    found = find(steps=30, smoothing=0.9)
    mean = 0.0
    for number, (loss, smooth) in enumerate(zip(found.losses, found.smoothed, strict=True), 1):
        mean = 0.9 * mean + 0.1 * loss.item()
        assert smooth.item() == pytest.approx(mean / (1 - 0.9**number), rel=1e-12)
    assert torch.equal(find(steps=30, smoothing=0.0).smoothed, found.losses)


def test_turns_where_descent_diverges() -> None:
    found = find(smoothing=0.0)
    assert 0.4 < found.lowest < 0.7
    assert found.suggestion == found.lowest / 10
    assert found.losses.argmin() < found.diverged < 400
    assert found.lrs[found.diverged] > 0.5


def test_nothing_diverges() -> None:
    found = find(max_lr=0.1)
    assert found.diverged == 400
    assert found.lowest == found.lrs[-1]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 100.0])
def test_what_comes_after_divergence_is_not_looked_at(bad: float) -> None:
    """A loss that overflows and comes back (clipped, say) is no minimum."""
    losses = torch.tensor([3.0, 2.0, 1.0, 2.0, bad, 0.1, 0.1])
    lrs = torch.logspace(-3, 3, 7, dtype=torch.float64)
    found = _judged(lrs, losses, 0.0, 4.0)
    assert found.diverged == 4
    assert found.lowest == lrs[2]


def test_negative_losses() -> None:
    """A log density may be below 0, where four times the lowest is lower still."""
    losses = torch.tensor([1.0, -1.0, -2.0, -1.9, 3.0, 5.0])
    found = _judged(torch.logspace(-3, 2, 6, dtype=torch.float64), losses, 0.0, 4.0)
    assert found.diverged == 5
    assert found.lowest.item() == pytest.approx(0.1)


def test_nothing_but_divergence() -> None:
    losses = torch.full((5,), torch.nan)
    found = _judged(torch.logspace(-3, 1, 5, dtype=torch.float64), losses, 0.5, 4.0)
    assert found.diverged == 0
    assert found.suggestion.isfinite()


def test_state_is_not_changed(task: Any) -> None:
    state = task.begin()
    before = tree.map(torch.clone, state)
    generator = torch.get_rng_state()
    train.lr_find(task.step, state, task.data, batch_size=8, max_lr=100.0)
    for path, x, y in zip(tree.paths(state), tree.leaves(state), tree.leaves(before), strict=True):
        assert torch.equal(x, y), path
    assert torch.equal(torch.get_rng_state(), generator)


def test_lanes_are_solo_runs(task: Any) -> None:
    many = train.lr_find(task.step, task.begin_many(3), task.data, batch_size=8)
    solo = [train.lr_find(task.step, task.begin(i), task.data, batch_size=8) for i in range(3)]
    assert many.losses.shape == many.lrs.shape == (3, 7)
    assert many.suggestion.shape == many.diverged.shape == (3,)
    for found, wanted in zip(many, tree.stack(solo), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    outside = vmap(lambda s: train.lr_find(task.step, s, task.data, batch_size=8))(
        task.begin_many(3)
    )
    assert all(torch.equal(x, y) for x, y in zip(outside, many, strict=True))


def test_more_than_an_epoch(task: Any) -> None:
    found = train.lr_find(task.step, task.begin(), task.data, batch_size=8, steps=20)
    assert found.losses.shape == (20,)
    assert found.losses.isfinite().all()


def test_batches_of_a_loader(task: Any) -> None:
    loader = [(task.inputs[:8], task.targets[:8]), (task.inputs[8:16], task.targets[8:16])]
    assert train.lr_find(task.step, task.begin(), loader).losses.shape == (2,)
    assert train.lr_find(task.step, task.begin(), loader, steps=5).losses.shape == (5,)


def test_compiled_once_for_all_rates() -> None:
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    step = torch.compile(STEP, backend=backend, fullgraph=True, dynamic=False)
    found = train.lr_find(step, begin(SGD), DATA, batch_size=1, max_lr=10.0, steps=5)
    torch.testing.assert_close(found.losses, find(steps=5).losses, rtol=1e-12, atol=0)
    assert len(graphs) == 1


def test_another_hyperparameter(task: Any) -> None:
    tx = optim.chain(optim.sgd(schedules.exponential(0.1, 0.99)), optim.scale(1.0))
    step = train.make_step(train.supervised(task.model, F.cross_entropy), tx)
    state = train.init(task.model, tx, random.key(0))
    found = train.lr_find(step, state, task.data, batch_size=8, name="step_size")
    assert found.losses.isfinite().all()


@pytest.mark.parametrize("lanes", [False, True])
def test_a_scheduled_rate_is_refused(lanes: bool) -> None:
    """It would be set anew at each step, and the curve would not be that of the rates."""
    tx = optim.sgd(schedules.exponential(0.1, 0.99))
    state = begin(tx)
    with pytest.raises(ValueError, match="'lr' must be a number, got a schedule"):
        train.lr_find(
            train.make_step(bowl, tx), tree.stack([state] * 2) if lanes else state, DATA, steps=3
        )


def test_no_such_hyperparameter() -> None:
    with pytest.raises(KeyError, match="rate"):
        find(name="rate")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"min_lr": 0.0}, "`min_lr` must be above 0, got 0.0"),
        ({"min_lr": 1.0, "max_lr": 1.0}, "`max_lr` must be above 1, got 1.0"),
        ({"steps": 1}, "`steps` must be at least 2, got 1"),
        ({"smoothing": 1.0}, r"`smoothing` must be in \[0, 1\), got 1.0"),
        ({"divergence": 1.0}, "`divergence` must be above 1, got 1.0"),
    ],
)
def test_errors(own: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(**own)
