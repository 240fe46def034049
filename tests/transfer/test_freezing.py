"""Frozen models: torch's trajectories, the bits of what is frozen, and what it costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from torch import nn, vmap
from torch.utils.flop_counter import FlopCounterMode

import fdnn
from fdnn import functionalize, metrics, optim, random, train, transfer, tree

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
ADAM = {"lr": 0.05, "weight_decay": 0.1}
OPTIMIZERS = {
    "sgd": (optim.sgd(**SGD), lambda params: torch.optim.SGD(params, **SGD)),
    "adam": (optim.adam(**ADAM), lambda params: torch.optim.Adam(params, **ADAM)),
}
every_optimizer = pytest.mark.parametrize(("tx", "torchs"), OPTIMIZERS.values(), ids=OPTIMIZERS)


def begin(model: Any, tx: Any, seed: int = 0) -> train.TrainState:
    return train.TrainState(
        model.params,
        model.buffers,
        tx.init(model.params),
        random.key(seed),
        torch.zeros((), dtype=torch.int64),
    )


def run(model: Any, tx: Any, state: train.TrainState, batch: Any, steps: int) -> train.TrainState:
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    for _ in range(steps):
        state, _ = step(state, batch)
    return state


def set_frozen(module: nn.Module, count: int) -> None:
    """Freeze the first `count` children of a sequence, torch's way."""
    module.train()
    for i, layer in enumerate(module.children()):
        layer.requires_grad_(i >= count)
        if i < count and isinstance(layer, nn.BatchNorm1d):
            layer.eval()


def run_torch(module: nn.Module, optimizer: Any, batch: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(batch[0]), batch[1]).backward()
        optimizer.step()


def assert_is_torchs(model: Any, state: train.TrainState, module: nn.Module) -> None:
    params, buffers = transfer.merge(model, state.params, state.buffers)
    assert_close(
        {**params, **buffers}, {k: v.clone() for k, v in module.state_dict().items()}, 1e-12, 1e-12
    )


@every_optimizer
def test_trajectory_is_torchs(task: Any, tx: Any, torchs: Callable[[Any], Any]) -> None:
    model = transfer.freeze(task.model, ["0.*", "1.*", "3.*"])
    state = run(model, tx, begin(model, tx), task.batch, 20)
    set_frozen(task.module, 4)
    run_torch(task.module, torchs(task.module.parameters()), task.batch, 20)
    assert_is_torchs(model, state, task.module)
    moved = {
        name
        for name in task.model.params
        if not torch.equal(
            transfer.merge(model, state.params, state.buffers)[0][name], task.model.params[name]
        )
    }
    assert moved == {"4.weight", "4.bias", "6.weight", "6.bias"}


def test_phases_are_torchs(task: Any) -> None:
    """Frozen body, then less of it, then nothing, the momentum of the others kept."""
    tx, torchs = OPTIMIZERS["sgd"]
    model = transfer.freeze(task.model, transfer.by_depth(task.model, -1))
    optimizer, state = torchs(task.module.parameters()), begin(model, tx)
    for count, released in ((6, None), (3, ["3.*", "4.*"]), (0, "*"), (4, None)):
        if released is not None:
            model = transfer.unfreeze(model, released)
        elif count == 4:
            model = transfer.freeze(model, transfer.by_depth(model, 3))
        state = transfer.carry_over(state, model, tx)
        state = run(model, tx, state, task.batch, 5)
        set_frozen(task.module, count)
        run_torch(task.module, optimizer, task.batch, 5)
        assert_is_torchs(model, state, task.module)
    assert state.count == 20 and state.opt_state.count == 20


@every_optimizer
def test_frozen_leaves_keep_their_bits(task: Any, tx: Any, torchs: Any) -> None:
    model = transfer.freeze(task.model, "[0134].*")
    state = run(model, tx, begin(model, tx), task.batch, 5)
    assert_equal(state.buffers, model.buffers)
    assert set(state.params) == {"6.weight", "6.bias"}
    assert not any(torch.equal(state.params[n], model.params[n]) for n in model.params)


def test_batch_norm_is_in_eval_mode_while_frozen(task: Any) -> None:
    model = transfer.freeze(task.model, "[01].*")
    x = task.inputs
    output, buffers = model.apply(model.params, model.buffers, x, train=True)
    task.module.train()[1].eval()
    torch.testing.assert_close(output, task.module(x).detach(), rtol=1e-12, atol=1e-12)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(buffers[f"1.{name}"], model.buffers[f"1.{name}"])
        assert not torch.equal(buffers[f"4.{name}"], model.buffers[f"4.{name}"])


def test_reestimated_statistics_leave_frozen_ones_alone(task: Any) -> None:
    model = transfer.freeze(task.model, "[01].*")
    found = train.reestimate_batch_norm(model, model.params, model.buffers, [(task.inputs, None)])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(found[f"1.{name}"], model.buffers[f"1.{name}"])
    assert not torch.equal(found["4.running_mean"], model.buffers["4.running_mean"])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["1.weight", "1.bias"], {"1"}),
        ("1.weight", set()),
        ("1.running_mean", {"1"}),
        ("[013].*", {"1"}),
        ("*weight", set()),
        (lambda path, leaf: leaf.ndim < 2, {"1", "4"}),
    ],
)
def test_which_norms_are_frozen(task: Any, where: Any, expected: set[str]) -> None:
    skeleton = transfer.freeze(task.model, where).skeleton(train=True)
    assert {p for p, layer in skeleton.named_modules() if not layer.training} == expected
    skeleton = transfer.unfreeze(transfer.freeze(task.model, where), where).skeleton(train=True)
    assert all(layer.training for layer in skeleton.modules())


def test_a_norm_goes_on_with_its_first_parameter(task: Any) -> None:
    model = transfer.unfreeze(transfer.freeze(task.model, "*"), "1.weight")
    assert list(model.params) == ["1.weight"]
    assert {p for p, layer in model.skeleton(train=True).named_modules() if not layer.training} == {
        "4"
    }


def test_freezing_and_unfreezing_undo_each_other(task: Any) -> None:
    once = transfer.freeze(task.model, "0.*")
    twice = transfer.freeze(transfer.freeze(once, "0.*"), "6.*")
    assert list(twice.params) == [n for n in task.model.params if n[0] not in "06"]
    back = transfer.unfreeze(twice)
    assert_equal(back.params, task.model.params)
    assert_equal(back.buffers, task.model.buffers)
    assert list(back.params) == list(task.model.params)
    assert list(transfer.freeze(task.model, "*").params) == []


def test_init_draws_what_is_trained(task: Any) -> None:
    key = random.key(3)
    model = transfer.freeze(task.model, "[01].*")
    params, buffers = model.init(key)
    fresh = task.model.init(key)[0]
    assert_equal(params, {name: fresh[name] for name in model.params})
    for name, value in buffers.items():
        if name.startswith(("0.", "1.")):
            assert torch.equal(value, model.buffers[name])
    assert buffers["4.num_batches_tracked"] == 0
    with pytest.raises(ValueError, match=r"`rules`: '0.weight' matches no parameter"):
        model.init(key, rules=[("0.weight", fdnn.initializers.zeros)])


def test_a_glob_must_match(task: Any) -> None:
    with pytest.raises(ValueError, match=r"`where` matches no path with 'bn\.\*'"):
        transfer.freeze(task.model, "bn.*")


def test_frozen_parameters_have_no_slots(task: Any) -> None:
    tx = optim.adam()

    def kept(model: Any) -> int:
        return sum(x.numel() for x in tree.leaves(tx.init(model.params).slots))

    body = sum(v.numel() for n, v in task.model.params.items() if n[0] != "6")
    frozen = transfer.freeze(task.model, transfer.by_depth(task.model, -1))
    assert kept(task.model) - kept(frozen) == 2 * body
    assert kept(frozen) == 2 * (5 * 3 + 3)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_frozen_parameters_cost_no_gradient(count: int) -> None:
    """Operations, counted: nothing goes back through layers below the first trained one."""
    sizes, examples = [7, 6, 5, 4, 3], 10
    net = functionalize(nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))))
    model = transfer.freeze(net, transfer.by_depth(net, count)) if count else net
    batch = torch.ones(examples, 7), torch.zeros(examples, dtype=torch.int64)
    tx = optim.sgd()
    with FlopCounterMode(display=False) as counter:
        run(model, tx, begin(model, tx), batch, 1)
    products = [2 * examples * a * b for a, b in itertools.pairwise(sizes)]
    forward, weights, inputs = products, products[count:], products[count + 1 :]
    assert counter.get_total_flops() == sum(forward) + sum(weights) + sum(inputs)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_lanes_have_frozen_parts_of_their_own(jit: bool) -> None:
    """Lane i is run i alone, compiled and its memory given away or not."""
    tx = optim.sgd(lr=0.1, momentum=0.9, weight_decay=0.1)
    net = functionalize(
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    )
    model = transfer.freeze(net, "[01].*")
    batch = random.normal(random.key(1), (8, 4), torch.float64), torch.arange(8) % 3
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    keys = random.split(random.key(9), 3)
    params, buffers = vmap(net.init)(keys)
    buffers["1.running_var"] = 1 + params["0.bias"].abs()
    bodies = {**params, **buffers}
    states = vmap(lambda key, body: transfer.init(model, tx, key, body))(keys, bodies)
    solo = tree.unstack(tree.map(torch.clone, states))
    frozen = [name for name in model.buffers if name[0] in "01"]
    many = vmap(step, in_dims=(0, None))
    if jit:
        many = fdnn.jit(many, donate_argnums=0)
    for _ in range(3):
        states, _ = many(states, batch)
        solo = [step(state, batch)[0] for state in solo]
    assert_close(states, tree.stack(solo), 1e-10, 1e-10)
    assert_equal({n: states.buffers[n] for n in frozen}, {n: bodies[n] for n in frozen})
    assert len({x.data_ptr() for x in tree.leaves(states)}) == len(tree.leaves(states))


def test_fit_and_evaluate(task: Any) -> None:
    tx = optim.adam(lr=0.05)
    model = transfer.freeze(task.model, transfer.by_depth(task.model, -1))
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    keys = random.split(random.key(0), 3)
    runs = vmap(lambda key: train.init(model, tx, key))(keys)
    ended, history = train.fit(
        step, runs, task.batch, epochs=4, batch_size=10, compile=False, progress=False
    )
    assert_equal(ended.buffers, runs.buffers)
    assert history["loss"].shape == (4, 3)
    model = transfer.unfreeze(model)
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    ended = transfer.carry_over(ended, model, tx)
    ended, _ = train.fit(
        step, ended, task.batch, epochs=8, batch_size=10, compile=False, progress=False
    )
    assert not torch.equal(ended.params["0.weight"], runs.buffers["0.weight"])
    accuracy = train.evaluate(model, ended, task.batch, {"accuracy": metrics.accuracy()})
    assert accuracy["accuracy"].shape == (3,)


def test_dropout_goes_on_in_a_frozen_part() -> None:
    model = functionalize(nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 2)))
    frozen = transfer.freeze(model, "0.*")
    x, key = torch.ones(3, 4), random.key(0)
    output, _ = frozen.apply(frozen.params, frozen.buffers, x, key=key, train=True)
    assert torch.equal(output, model.apply(model.params, {}, x, key=key, train=True)[0])


def test_an_embedding_with_max_norm_stays_as_it_is() -> None:
    net = functionalize(nn.Sequential(nn.Embedding(5, 3, max_norm=0.1), nn.Linear(3, 2)))
    model = transfer.freeze(net, "0.*")
    tokens = torch.arange(5)
    output, buffers = model.apply(model.params, model.buffers, tokens)
    assert torch.equal(buffers["0.weight"], net.params["0.weight"])
    assert torch.equal(output, net.apply(net.params, net.buffers, tokens)[0])


def test_back_to_a_module(task: Any) -> None:
    model = transfer.freeze(task.model, "0.*")
    module = model.to_module(model.params, model.buffers)
    assert torch.equal(module(task.inputs), task.module.eval()(task.inputs))
