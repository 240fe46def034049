"""Greedy layer-wise training, against each stage trained by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from torch import nn

from fdnn import functionalize, optim, pretrain, random, train, tree

OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 4, "compile": False, "progress": False}
TX = optim.chain(optim.adam(lr=0.01), optim.ema_params(0.9))


def net() -> pretrain.Autoencoder:
    return pretrain.Autoencoder(
        nn.Sequential(
            nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3), nn.Tanh()),
            nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.2)),
        ),
        nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), nn.Linear(3, 4)),
    ).double()


def begin(seed: int) -> train.TrainState:
    return train.init(functionalize(net()), TX, random.key(seed))


def test_stages_are_trained_one_by_one(task: Any) -> None:
    whole, state, noise = net(), begin(0), pretrain.gaussian_noise(0.1)
    before = tree.map(torch.clone, state)
    found, histories = pretrain.greedy_layerwise(
        whole, TX, state, (task.inputs, task.labels), corrupt=noise, **OPTIONS
    )
    assert_equal(state, before)
    codes, values = task.inputs, {**state.params, **state.buffers}
    for i, (down, up) in enumerate((("encoder.0", "decoder.1"), ("encoder.1", "decoder.0"))):
        model = functionalize(
            pretrain.Autoencoder(whole.get_submodule(down), whole.get_submodule(up))
        )
        names = {"encoder": down, "decoder": up}
        place = {n: names[n[:7]] + n[7:] for n in (*model.params, *model.buffers)}
        params = {n: values[place[n]] for n in model.params}
        buffers = {n: values[place[n]] for n in model.buffers}
        key = random.fold_in(state.key, i)
        alone = train.TrainState(params, buffers, TX.init(params), key, torch.tensor(0))
        step = train.make_step(pretrain.reconstruction(model, corrupt=noise), TX)
        alone, history = train.fit(step, alone, (codes,), **OPTIONS)
        trained = {**found.params, **found.buffers}
        assert_close(
            {n: trained[place[n]] for n in place},
            {**alone.params, **alone.buffers},
            rtol=1e-10,
            atol=1e-12,
        )
        assert_close(histories[i], history, rtol=1e-10, atol=1e-12)
        encoder = functionalize(whole.get_submodule(down))
        own = {n: trained[f"{down}.{n}"] for n in (*encoder.params, *encoder.buffers)}
        codes, _ = encoder.apply(
            {n: own[n] for n in encoder.params}, {n: own[n] for n in encoder.buffers}, codes
        )


def test_the_whole_goes_on_from_there(task: Any) -> None:
    """Its optimizer is at the start, its average that of the new parameters."""
    state = begin(0)
    found, _ = pretrain.greedy_layerwise(net(), TX, state, (task.inputs,), **OPTIONS)
    assert_equal(found.opt_state, TX.init(found.params))
    assert list(found.params) == list(state.params)
    assert_equal((found.key, found.count), (state.key, state.count))
    model = functionalize(net())
    step = train.make_step(pretrain.reconstruction(model), TX)
    _, history = train.fit(step, found, (task.inputs,), **{**OPTIONS, "epochs": 1})
    assert history["loss"].isfinite().all()


def test_lanes_are_runs_alone(task: Any) -> None:
    keys = torch.stack([random.key(5), random.key(6)])
    model = functionalize(net())
    runs = torch.vmap(lambda key: train.init(model, TX, key))(keys)
    found, histories = pretrain.greedy_layerwise(net(), TX, runs, (task.inputs,), **OPTIONS)
    for lane, seed in enumerate((5, 6)):
        alone, told = pretrain.greedy_layerwise(net(), TX, begin(seed), (task.inputs,), **OPTIONS)
        assert_close(tree.unstack(found)[lane], alone, rtol=1e-9, atol=1e-11)
        for many, one in zip(histories, told, strict=True):
            assert_close({n: x[:, lane] for n, x in many.items()}, one, rtol=1e-9, atol=1e-11)


def test_a_stage_compiles_above_batch_norm(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eval mode below lies outside the gradient, where torch has a batching rule for it."""

    def fit(step: Any, state: Any, data: Any) -> Any:
        many = torch.vmap(step, in_dims=(0, None))
        expected = many(state, data)
        if any(name.startswith("below.") for name in state.buffers):
            torch._dynamo.reset()
            traced = torch.compile(many, fullgraph=True, dynamic=False, backend="aot_eager")
            assert_close(traced(state, data), expected, rtol=1e-9, atol=1e-11)
            compiled.append(step)
        return expected

    compiled: list[Any] = []
    monkeypatch.setattr("fdnn.pretrain.greedy.fit", fit)
    model, tx = functionalize(net()), optim.sgd(lr=0.1)
    runs = torch.vmap(lambda key: train.init(model, tx, key))(random.split(random.key(0), 2))
    pretrain.greedy_layerwise(net(), tx, runs, (task.inputs,))
    assert len(compiled) == 1


def test_it_reconstructs(task: Any) -> None:
    """Four features on a plane go through two."""
    plane = random.normal(random.key(2), (64, 2), torch.float64) @ torch.eye(4).double()[:2]
    whole = pretrain.Autoencoder(
        nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)),
    ).double()
    model, tx = functionalize(whole), optim.adam(lr=0.03)
    state = train.init(model, tx, random.key(0))
    options = {**OPTIONS, "epochs": 30, "batch_size": 16}
    found, _ = pretrain.greedy_layerwise(whole, tx, state, (plane,), **options)
    loss = pretrain.reconstruction(model)
    before = loss(state.params, {}, (plane,), random.key(0))[0]
    after = loss(found.params, {}, (plane,), random.key(0))[0]
    assert after < 0.05 * before


def test_what_is_refused(task: Any) -> None:
    def run(whole: pretrain.Autoencoder, state: Any = None) -> None:
        state = state or train.init(functionalize(whole), TX, random.key(0))
        pretrain.greedy_layerwise(whole, TX, state, (task.inputs,), **OPTIONS)

    line = nn.Linear(4, 4).double()
    with pytest.raises(TypeError, match=r"the decoder must be an nn.Sequential, got Linear"):
        run(pretrain.Autoencoder(nn.Sequential(line), nn.Linear(4, 4)))
    with pytest.raises(ValueError, match=r"as many stages .* got 2 and 1"):
        run(pretrain.Autoencoder(nn.Sequential(line), nn.Sequential(nn.Linear(4, 4), nn.Tanh())))
    with pytest.raises(ValueError, match="got 0 and 0"):
        run(pretrain.Autoencoder(nn.Sequential(), nn.Sequential()), begin(0))
    tied = pretrain.Autoencoder(nn.Sequential(line, nn.Tanh()), nn.Sequential(line, nn.Tanh()))
    with pytest.raises(ValueError, match="share no tensor, but 0 and 1 share 'weight'"):
        run(tied)
    with pytest.raises(ValueError, match=r"`state` must have the tensors .*'encoder.0.weight'"):
        run(pretrain.Autoencoder(nn.Sequential(line), nn.Sequential(nn.Linear(4, 4))), begin(0))
