"""Masks in time, rates by depth: torch's param groups and toggled gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from torch import vmap

from fdnn import optim, random, schedules, train, transfer, tree


def begin(model: Any, tx: Any) -> train.TrainState:
    zero = torch.zeros((), dtype=torch.int64)
    return train.TrainState(model.params, model.buffers, tx.init(model.params), random.key(0), zero)


RELEASES = [("0.*", 4), (["1.*", "3.*"], 2)]


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_gradual_unfreezing_is_torchs(task: Any, name: str) -> None:
    """torch counts the steps of a parameter from its first gradient, and so do the groups."""
    inner, optimizer = {
        "sgd": (
            optim.sgd(0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
            torch.optim.SGD(task.module.parameters(), 0.1, 0.9, 0.5, 0.1),
        ),
        "adam": (
            optim.adam(0.05, weight_decay=0.1),
            torch.optim.Adam(task.module.parameters(), 0.05, weight_decay=0.1),
        ),
    }[name]
    tx = transfer.gradual_unfreezing(inner, RELEASES)
    state = begin(task.model, tx)
    step = train.make_step(train.supervised(task.model, F.cross_entropy), tx)
    module = task.module.train()
    for count in range(8):
        waiting = [i for i, release in (("0", 4), ("1", 2), ("3", 2)) if count < release]
        for path, parameter in module.named_parameters():
            parameter.requires_grad_(path.split(".")[0] not in waiting)
        state, _ = step(state, task.batch)
        optimizer.zero_grad()
        F.cross_entropy(module(task.inputs), task.targets).backward()
        optimizer.step()
        found = {n: p.detach() for n, p in module.named_parameters()}
        assert_close(state.params, found, 1e-12, 1e-12)
        still = {n for n, v in state.params.items() if torch.equal(v, task.model.params[n])}
        assert still == {n for n in state.params if n[0] in waiting}


def test_masked_phases_and_structural_phases_agree(task: Any) -> None:
    tx = transfer.gradual_unfreezing(optim.adam(0.05), [(transfer.by_depth(task.model, -1), 3)])
    frozen = transfer.freeze(task.model, ["[036].*", "[14].weight", "[14].bias"])
    frozen = transfer.unfreeze(frozen, "6.*")
    free = transfer.freeze(task.model, "*running*")
    wide = begin(free, tx)
    narrow = begin(frozen, tx)
    for count in range(6):
        if count == 3:
            narrow = transfer.carry_over(narrow, free, tx)
        model = frozen if count < 3 else free
        narrow, _ = train.make_step(train.supervised(model, F.cross_entropy), tx)(
            narrow, task.batch
        )
        wide, _ = train.make_step(train.supervised(free, F.cross_entropy), tx)(wide, task.batch)
    assert_close(narrow.params, wide.params, 1e-12, 1e-12)


def test_adam_takes_new_parameters_for_old_ones() -> None:
    """What `carry_over` says of its first steps: 3.2 times too long."""
    tx = optim.adam(lr=0.1)
    both = {"old": torch.ones(1, dtype=torch.float64), "new": torch.ones(1, dtype=torch.float64)}
    state = tx.init(both)._replace(count=torch.tensor(100_000))
    updates, _ = tx.update(both, state, both)
    torch.testing.assert_close(
        updates["new"], torch.full_like(updates["new"], -0.1 * 0.1 / 0.001**0.5), rtol=1e-6, atol=0
    )


def test_releases_by_lane(task: Any) -> None:
    model = transfer.freeze(task.model, "*running*")  # which all lanes may share

    def run(release: Any) -> Any:
        tx = transfer.gradual_unfreezing(optim.adam(0.1), [("0.*", release)])
        state = begin(model, tx)
        step = train.make_step(train.supervised(model, F.cross_entropy), tx)
        for _ in range(3):
            state, info = step(state, task.batch)
        return state.params, info["loss"]

    at = torch.tensor([0, 2, 9])
    alone = tree.stack([run(release) for release in at])
    assert_close(vmap(run)(at), alone, 1e-10, 1e-10)
    weights = alone[0]["0.weight"]
    assert torch.equal(weights[2], task.model.params["0.weight"])
    assert not torch.equal(weights[1], weights[2])


def test_gradual_unfreezing_errors(task: Any) -> None:
    with pytest.raises(ValueError, match="`releases` must not be negative, got -1"):
        transfer.gradual_unfreezing(optim.sgd(), [("0.*", -1)])
    with pytest.raises(ValueError, match=r"`where` matches no path with 'x\.\*'"):
        transfer.gradual_unfreezing(optim.sgd(), [("x.*", 1)]).init(task.model.params)


def test_discriminative_rates_are_param_groups(task: Any) -> None:
    groups = transfer.layers(task.model)
    tx = transfer.discriminative(
        lambda lr: optim.sgd(lr, momentum=0.9, weight_decay=0.1), 0.2, groups, decay=0.5
    )
    state = begin(task.model, tx)
    assert [state.opt_state.hyperparams[f"{label}.lr"].item() for label in groups] == [
        0.2 * 0.5**k for k in (4, 3, 2, 1, 0)
    ]
    layers = [layer for layer in task.module.train() if list(layer.parameters())]
    optimizer = torch.optim.SGD(
        [
            {"params": layer.parameters(), "lr": 0.2 * 0.5 ** (4 - i)}
            for i, layer in enumerate(layers)
        ],
        momentum=0.9,
        weight_decay=0.1,
    )
    step = train.make_step(train.supervised(task.model, F.cross_entropy), tx)
    for _ in range(20):
        state, _ = step(state, task.batch)
        optimizer.zero_grad()
        F.cross_entropy(task.module(task.inputs), task.targets).backward()
        optimizer.step()
    found = {n: p.detach() for n, p in task.module.named_parameters()}
    assert_close(state.params, found, 1e-12, 1e-12)


def test_discriminative_schedules_and_frozen_layers(task: Any) -> None:
    groups = transfer.layers(task.model)
    tx = transfer.discriminative(optim.adam, schedules.one_cycle(0.1, 9), groups)
    assert tx.total_steps == 9
    frozen = transfer.freeze(task.model, "0.*")
    state = tx.init(frozen.params)
    assert state.slots["0.exp_avg"] == {}
    rates = state.hyperparams
    torch.testing.assert_close(rates["4.lr"] * 2.6, rates["6.lr"])
    everything = train.TrainState(
        frozen.params, frozen.buffers, state, random.key(0), torch.tensor(0)
    )
    moved = transfer.carry_over(everything, task.model, tx)
    assert_equal(moved.opt_state, tx.init(task.model.params))


def test_discriminative_errors(task: Any) -> None:
    for arguments, said in (
        (({"a": ["0.weight"]}, 0.0), "`decay` must be above 0, got 0.0"),
        (({}, 0.5), "`groups` must hold at least one group"),
    ):
        with pytest.raises(ValueError, match=said):
            transfer.discriminative(optim.sgd, 0.1, arguments[0], decay=arguments[1])
    tx = transfer.discriminative(optim.sgd, 0.1, {"a": ["0.weight"]})
    with pytest.raises(ValueError, match=r"`labels` give no label.*0\.bias"):
        tx.init(task.model.params)
