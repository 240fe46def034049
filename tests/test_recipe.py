"""`recipe`: what it chooses, and that it trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn, vmap

from fdnn import losses, random, recipe, train


def layers(model: Any) -> list[type[nn.Module]]:
    return [type(layer) for layer in model.skeleton(train=True).modules()]


def test_shallow() -> None:
    chosen = recipe(3, width=8)
    model = chosen.build(5, 2)
    assert {nn.ReLU} == {kind for kind in layers(model)} & {nn.ReLU, nn.SiLU, nn.SELU}
    assert nn.BatchNorm1d not in layers(model)
    assert chosen.criterion is losses.cross_entropy
    assert set(chosen.transform.init(model.params).slots) == {"momentum_buffer"}
    assert chosen.transform.total_steps is None
    assert isinstance(chosen.schedule, float)


def test_deep() -> None:
    model = recipe(6, width=8).build(5, 2)
    assert layers(model).count(nn.SiLU) == layers(model).count(nn.BatchNorm1d) == 6
    assert set(recipe(6).transform.init(model.params).slots) == {"exp_avg", "exp_avg_sq"}


def test_self_normalizing() -> None:
    chosen = recipe(20, width=100, self_normalizing=True, dropout=0.1)
    model = chosen.build(100, 2)
    assert layers(model).count(nn.SELU) == layers(model).count(nn.AlphaDropout) == 20
    params, _ = model.init(random.key(0))
    weight = params["hidden.3.linear.weight"]
    # The sample variance of 10,000 uniform numbers: sd 0.9 / sqrt(10,000) of the variance.
    assert abs(weight.var() * 100 - 1) < 5 * 0.009


def test_length_of_the_run() -> None:
    chosen = recipe(2, total_steps=100)
    assert chosen.transform.total_steps == 100
    rates = torch.stack([torch.as_tensor(chosen.schedule(t)) for t in range(100)])
    assert 0 < rates.argmax() < 50
    assert rates[-1] < rates[0] / 100


@pytest.mark.parametrize("depth", [1, 6])
def test_weights_alone_decay(depth: int) -> None:
    chosen = recipe(depth, width=4)
    model = chosen.build(3, 2)
    params = {name: torch.ones_like(x) for name, x in model.params.items()}
    zeros = {name: torch.zeros_like(x) for name, x in params.items()}
    updates, _ = chosen.transform.update(zeros, chosen.transform.init(params), params)
    moved = {name for name, u in updates.items() if (u != 0).any()}
    assert moved == {name for name, x in params.items() if x.ndim > 1}


TARGETS: dict[str, Tensor] = {
    "classification": torch.arange(64) % 2,
    "binary": (torch.arange(64) % 2).float()[:, None],
    "regression": (torch.arange(64) % 2).float()[:, None],
}


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize(("depth", "own"), [(0, False), (2, False), (7, False), (7, True)])
def test_it_trains(task: Any, depth: int, own: bool) -> None:
    """Three seeds at once learn which of two shifted clouds a point is from."""
    chosen = recipe(depth, task, width=16, total_steps=40, self_normalizing=own)
    model = chosen.build(4, 2 if task == "classification" else 1)
    target = TARGETS[task]
    x = random.normal(random.key(1), (64, 4)) + 2.0 * (target.reshape(-1, 1) - 0.5)
    loss = train.supervised(model, chosen.criterion)
    step = vmap(train.make_step(loss, chosen.transform), in_dims=(0, None))
    states = vmap(lambda key: train.init(model, chosen.transform, key))(
        random.split(random.key(0), 3)
    )
    values = []
    for _ in range(40):
        states, info = step(states, (x, target))
        values.append(info["loss"])
    assert (values[-1] < 0.5 * values[0]).all()


def test_every_choice_has_a_reason() -> None:
    for depth in (1, 9):
        for steps in (None, 50):
            for reason in recipe(depth, total_steps=steps).choices.values():
                assert len(reason) > 20


def test_errors() -> None:
    with pytest.raises(ValueError, match="`depth` must be at least 0, got -1"):
        recipe(-1)
    with pytest.raises(ValueError, match=r"`task` must be one of \['classification', .*'ranking'"):
        recipe(1, "ranking")  # type: ignore[arg-type]
