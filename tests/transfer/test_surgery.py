"""New heads, values reused, states begun and carried over, features."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import functionalize, optim, random, train, transfer, tree
from fdnn.nn import MLP


def apply(model: Any, x: Tensor, **kwargs: Any) -> Tensor:
    return model.apply(model.params, model.buffers, x, **kwargs)[0]


def test_a_new_number_of_outputs(task: Any) -> None:
    generator = torch.get_rng_state()
    model = transfer.replace_head(task.model, 7)
    assert torch.equal(torch.get_rng_state(), generator)
    assert list(model.params) == list(task.model.params)
    kept = [name for name in model.params if name[0] != "6"]
    assert_equal({n: model.params[n] for n in kept}, {n: task.model.params[n] for n in kept})
    assert_equal(model.buffers, task.model.buffers)
    assert model.params["6.weight"].shape == (7, 5)
    assert model.params["6.weight"].dtype == torch.float64
    assert apply(model, task.inputs).shape == (20, 7)
    assert apply(model, task.inputs, train=True).shape == (20, 7)
    assert task.model.params["6.weight"].shape == (3, 5)


def test_the_new_model_is_as_if_built_so(task: Any) -> None:
    """Draws, values and trajectory are those of the module with that head."""
    model = transfer.replace_head(task.model, 7)
    task.module[6] = nn.Linear(5, 7).double()
    built = functionalize(task.module)
    assert_equal(model.init(random.key(4)), built.init(random.key(4)))
    params, buffers = built.init(random.key(4))
    for mode in (False, True):
        assert_equal(
            model.apply(params, buffers, task.inputs, train=mode),
            built.apply(params, buffers, task.inputs, train=mode),
        )
    module = model.to_module(params, buffers)
    assert torch.equal(module(task.inputs), built.apply(params, buffers, task.inputs)[0])


def test_a_module_anywhere(task: Any) -> None:
    head = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 2, bias=False)).double()
    model = transfer.replace_head(task.model, head)
    assert torch.equal(model.params["6.1.weight"], head[1].weight)
    assert "6.0.running_mean" in model.buffers
    assert apply(model, task.inputs).shape == (20, 2)
    model = transfer.replace_head(task.model, nn.Tanh(), at="2")
    assert list(model.params) == list(task.model.params)
    task.module[2] = nn.Tanh()
    assert torch.equal(apply(model, task.inputs), task.module.eval()(task.inputs))
    deep = transfer.replace_head(functionalize(MLP(4, 5, 2, depth=2)), 3)
    assert deep.params["output.weight"].shape == (3, 5)


def test_a_new_head_is_trained(task: Any) -> None:
    model = transfer.replace_head(transfer.freeze(task.model, "*"), 7)
    assert list(model.params) == ["6.weight", "6.bias"]
    assert not model.skeleton(train=True)[1].training


def test_what_cannot_be_replaced(task: Any) -> None:
    with pytest.raises(ValueError, match=r"`at` must name a part of the model.*got 'head'"):
        transfer.replace_head(task.model, 2, at="head")
    with pytest.raises(ValueError, match="`head` must be a module, since '4' is a BatchNorm1d"):
        transfer.replace_head(task.model, 2, at="4")
    with pytest.raises(ValueError, match="`at`: the last layer is the whole model"):
        transfer.replace_head(functionalize(nn.Linear(2, 1)), 2)
    with pytest.raises(ValueError, match="`at`: '6' has an adapter"):
        transfer.replace_head(transfer.lora(task.model, 1, 1.0), 2)
    tied = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="`at`: another layer shares the tensors of '0'"):
        transfer.replace_head(functionalize(tied), nn.Embedding(4, 4), at="0")
    model = transfer.replace_head(functionalize(tied), nn.Linear(4, 2), at="1")
    assert list(model.params) == ["0.weight", "1.weight", "1.bias"]
    assert apply(model, torch.arange(3)).shape == (3, 2)


def test_reuse_reports(task: Any) -> None:
    into = transfer.replace_head(task.model, 2)
    source = {**task.model.params, **task.model.buffers, "extra": torch.ones(1)}
    del source["4.running_var"]
    params, buffers, report = transfer.reuse(source, into=into, key=random.key(0))
    assert report.reinitialized == {
        "6.weight": "shape (2, 5), in the source (3, 5)",
        "6.bias": "shape (2,), in the source (3,)",
        "4.running_var": "not in the source",
    }
    assert report.skipped == {
        "6.weight": "its shape does not fit",
        "6.bias": "its shape does not fit",
        "extra": "nothing of the model matches it",
    }
    assert set(report.reused) == {*into.params, *into.buffers} - {*report.reinitialized}
    values = {**params, **buffers}
    assert_equal({n: values[n] for n in report.reused}, {n: source[n] for n in report.reused})
    assert_equal(
        {n: params[n] for n in ("6.weight", "6.bias")},
        {n: into.init(random.key(0))[0][n] for n in ("6.weight", "6.bias")},
    )
    assert torch.equal(buffers["4.running_var"], torch.ones(5, dtype=torch.float64))
    assert not {x.data_ptr() for x in values.values()} & {x.data_ptr() for x in source.values()}
    assert "re-initialized: 4.running_var (not in the source)" in str(report)


def test_reuse_by_other_names(task: Any) -> None:
    probe = functionalize(nn.Linear(5, 3))  # float32
    match = {"6.weight": "weight", "6.bias": "bias"}.get
    params, _, report = transfer.reuse(probe.params, task.model, key=random.key(0), match=match)
    assert report.reused == ("6.weight", "6.bias") and not report.skipped
    assert torch.equal(params["6.weight"], probe.params["weight"].double())
    with pytest.raises(ValueError, match="`source` has nothing that fits"):
        transfer.reuse(probe.params, task.model, key=random.key(0))


@given(st.sets(st.integers(0, 10)), st.integers(0, 2**32 - 1))
def test_reused_and_reinitialized_are_everything(missing: set[int], seed: int) -> None:
    net = functionalize(MLP(3, 4, 2, depth=2, norm="batch"))
    source = {n: v + 1 for i, (n, v) in enumerate({**net.params, **net.buffers}.items())
              if i not in missing}  # fmt: skip
    params, buffers, report = transfer.reuse(source, net, key=random.key(seed))
    assert list(params) == list(net.params) and list(buffers) == list(net.buffers)
    assert {*report.reused} == source.keys() and not report.skipped
    assert {*report.reused, *report.reinitialized} == {*params, *buffers}
    fresh = {k: v for d in net.init(random.key(seed)) for k, v in d.items()}
    for name, value in {**params, **buffers}.items():
        assert torch.equal(value, source.get(name, fresh[name]))


def test_init_is_trains_where_nothing_is_reused(task: Any) -> None:
    tx, key = optim.adam(), random.key(5)
    state = transfer.init(task.model, tx, key, {"6.bias": torch.zeros(3)})
    fresh = train.init(task.model, tx, key)
    state.params["6.bias"] = fresh.params["6.bias"]
    assert_equal(state, fresh)


def test_carry_over_keeps_what_has_a_place(task: Any) -> None:
    tx = optim.adam(lr=0.1)
    body = transfer.freeze(task.model, "[01].*")
    keys = random.split(random.key(0), 2)
    states = vmap(lambda key: train.init(body, tx, key))(keys)
    step = train.make_step(train.supervised(body, F.cross_entropy), tx)
    states, _ = vmap(step, in_dims=(0, None))(states, task.batch)
    rates = torch.tensor([0.1, 0.2], dtype=torch.float64)
    states = states._replace(opt_state=optim.set_hyperparams(states.opt_state, lr=rates))
    model = transfer.unfreeze(body, "1.*")
    moved = transfer.carry_over(states, model, tx)
    assert_equal(
        moved, tree.stack([transfer.carry_over(s, model, tx) for s in tree.unstack(states)])
    )
    assert torch.equal(moved.opt_state.hyperparams["lr"], rates)
    assert torch.equal(moved.opt_state.count, states.opt_state.count)
    assert not moved.opt_state.slots["exp_avg"]["1.weight"].any()
    back = transfer.carry_over(moved, transfer.freeze(model, "1.*"), tx)
    assert_equal(back, states)
    with pytest.raises(ValueError, match=r"`state` must have the tensors of `model`: missing \['7"):
        other = functionalize(nn.Sequential(*task.module, nn.Linear(3, 1)))
        transfer.carry_over(states, other, tx)


def test_features_are_the_last_layers_input(task: Any) -> None:
    found = transfer.features(
        task.model, task.model.params, task.model.buffers, task.inputs, batch_size=7
    )
    torch.testing.assert_close(found, task.module.eval()[:6](task.inputs).detach())
    early = transfer.features(
        task.model, task.model.params, task.model.buffers, task.inputs, at="3"
    )
    torch.testing.assert_close(early, task.module[:3](task.inputs).detach())
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        transfer.features(task.model, {}, {}, task.inputs, batch_size=0)


def test_features_of_many(task: Any) -> None:
    params, buffers = vmap(task.model.init)(random.split(random.key(0), 3))
    run = functools.partial(transfer.features, task.model, inputs=task.inputs)
    found = vmap(lambda p, b: run(p, b))(params, buffers)
    alone = [run(*pair) for pair in zip(tree.unstack(params), tree.unstack(buffers), strict=True)]
    assert_close(found, torch.stack(alone), 1e-12, 1e-12)


def test_a_probe_on_features_is_the_frozen_models_head(task: Any) -> None:
    """The same trajectory, without a forward pass through the body in every step."""
    tx = optim.sgd(lr=0.1, momentum=0.9)
    frozen = transfer.freeze(task.model, transfer.by_depth(task.model, -1))
    state = transfer.init(frozen, tx, random.key(0), {**task.model.params, **task.model.buffers})
    probe = functionalize(nn.Linear(5, 3).double())
    head = {n.removeprefix("6."): v for n, v in state.params.items()}
    small = transfer.init(probe, tx, random.key(0), head)
    x = transfer.features(task.model, task.model.params, task.model.buffers, task.inputs)
    for _ in range(5):
        state, _ = train.make_step(train.supervised(frozen, F.cross_entropy), tx)(state, task.batch)
        small, _ = train.make_step(train.supervised(probe, F.cross_entropy), tx)(
            small, (x, task.targets)
        )
    assert_close({f"6.{n}": v for n, v in small.params.items()}, state.params, 1e-12, 1e-12)


def test_truncated_models_are_models(task: Any) -> None:
    body = transfer.truncate(transfer.freeze(task.model, "0.*"))
    assert body.apply(body.params, body.buffers, task.inputs, train=True)[0].shape == (20, 5)
    body = transfer.freeze(transfer.truncate(task.model), "[01].*")
    assert apply(body, task.inputs).shape == (20, 5)
    assert body.to_module(body.params, body.buffers)(task.inputs).shape == (20, 5)

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x=x) if False else self.used(input=x)

    model = functionalize(Unused())
    with pytest.raises(ValueError, match="`at`: the forward pass does not come by this layer"):
        apply(transfer.truncate(model), torch.ones(1, 2))
    assert torch.equal(
        apply(transfer.truncate(model, at="used"), torch.ones(1, 2)), torch.ones(1, 2)
    )
