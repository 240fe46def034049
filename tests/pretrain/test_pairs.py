"""Pairs and the losses on them; SimCLR."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fdnn import functionalize, losses, optim, pretrain, random, train

KEY = random.key(3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=30), st.integers(0, 99))
def test_pairs_are_what_they_say(labels: list[int], seed: int) -> None:
    given_labels = torch.tensor(labels)
    n = len(labels)
    partner, same = pretrain.pairs(random.key(seed), given_labels)
    assert (partner != torch.arange(n)).all()
    assert torch.equal(given_labels == given_labels[partner], same)
    sizes = [labels.count(label) for label in labels]
    if min(sizes) == n:
        assert same.all()
    elif min(sizes) > 1:
        assert same.sum() == n // 2
    else:
        assert not same[torch.tensor(sizes) == 1].any()


def test_every_partner_is_as_likely() -> None:
    labels = torch.tensor([1, 0, 1, 1, 0, 2, 1])
    draws = 40_000
    keys = random.split(random.key(0), draws)
    partner, same = torch.vmap(pretrain.pairs, in_dims=(0, None))(keys, labels)
    for i, label in enumerate(labels):
        for wanted in (True, False):
            own = (labels == label) == wanted
            own[i] = False
            chosen = partner[same[:, i] == wanted, i]
            if not own.any():
                assert len(chosen) == 0
                continue
            p = 1 / own.sum()
            shares = torch.bincount(chosen, minlength=7) / len(chosen)
            assert (shares[~own] == 0).all()
            assert ((shares[own] - p).abs() <= 4.5 * (p * (1 - p) / len(chosen)).sqrt()).all()
    half = same[:, 0].double().mean()
    assert abs(half - 3 / 7) < 4 * (0.25 / draws) ** 0.5  # 3 of 7 are the half, rounded down


def test_pairs_need_two() -> None:
    for shape in ((1,), (3, 2)):
        with pytest.raises(ValueError, match=r"`labels` must have shape \(n,\), n at least 2"):
            pretrain.pairs(KEY, torch.zeros(shape))


def test_siamese_is_twice_the_same_network(task: Any) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double()
    model = functionalize(net)
    first, second, same = task.inputs[:6], task.inputs[6:], torch.arange(6) % 2 == 0
    loss = train.value_and_grad(pretrain.siamese(model))
    (value, _), grads = loss(model.params, {}, (first, second, same), KEY)
    distance = (net(first) - net(second)).norm(dim=1)
    short = (1 - distance).clamp_min(0)
    expected = 0.5 * torch.where(same, distance**2, short**2).mean()
    expected.backward()
    wanted = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert_close((value, grads), (expected.detach(), wanted), rtol=1e-10, atol=1e-12)


def test_same_different_draws_its_pairs(task: Any) -> None:
    criterion = functools.partial(losses.contrastive_loss, margin=2.0)
    loss = pretrain.same_different(task.model, criterion)
    found = loss(task.model.params, task.model.buffers, (task.inputs, task.labels), KEY)
    key_pairs, key_apply = random.split(KEY)
    partner, same = pretrain.pairs(key_pairs, task.labels)
    output, moved = task.model.apply(
        task.model.params, task.model.buffers, task.inputs, key=key_apply, train=True
    )
    assert_equal(found, (criterion(output, output[partner], same), moved))


def test_the_pair_task_tells_classes_apart() -> None:
    """Classes of one blob each come to lie together, and away from the others'."""
    labels = torch.arange(60) % 3
    inputs = 2 * torch.eye(3)[labels] + random.normal(random.key(0), (60, 3))
    model, tx = functionalize(nn.Linear(3, 2)), optim.adam(lr=0.03)
    step = train.make_step(pretrain.same_different(model), tx)
    _, history = train.fit(
        step,
        train.init(model, tx, random.key(1)),
        (inputs, labels),
        epochs=40,
        compile=False,
        progress=False,
    )
    assert history["loss"][-5:].mean() < 0.7 * history["loss"][0]


def test_criteria_that_do_not_fit(task: Any) -> None:
    state = task.model.params, task.model.buffers
    terms = functools.partial(losses.contrastive_loss, reduction="none")
    with pytest.raises(ValueError, match="`criterion` must return a 0-d tensor"):
        pretrain.same_different(task.model, terms)(*state, (task.inputs, task.labels), KEY)
    with pytest.raises(ValueError, match="`criterion` must return a 0-d tensor"):
        batch = task.inputs, task.inputs, task.labels
        pretrain.siamese(task.model, terms)(*state, batch, KEY)


def test_simclr_compares_two_views(task: Any) -> None:
    views: list[Tensor] = []

    def augment(key: Tensor, inputs: Tensor) -> Tensor:
        views.append(pretrain.gaussian_noise(0.2)(key, inputs))
        return views[-1]

    loss = pretrain.simclr(task.model, augment, temperature=0.5)
    found = loss(task.model.params, task.model.buffers, (task.inputs, task.labels), KEY)
    first, second = views
    assert not torch.isclose(first, second).any()
    output, moved = task.model.apply(
        task.model.params,
        task.model.buffers,
        torch.cat(views),
        key=random.split(KEY, 3)[2],
        train=True,
    )
    assert_equal(found, (losses.nt_xent(*output.chunk(2), temperature=0.5), moved))


def test_a_temperature_is_differentiated(task: Any) -> None:
    def value(temperature: Tensor) -> Tensor:
        loss = pretrain.simclr(task.model, pretrain.gaussian_noise(0.1), temperature=temperature)
        return loss(task.model.params, task.model.buffers, (task.inputs,), KEY)[0]

    t, h = torch.tensor(0.5, dtype=torch.float64), 1e-5
    slope = (value(t + h) - value(t - h)) / (2 * h)
    torch.testing.assert_close(torch.func.grad(value)(t), slope, rtol=1e-6, atol=1e-8)


def test_simclr_refuses() -> None:
    model = functionalize(nn.Linear(4, 2))
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        pretrain.simclr(model, pretrain.gaussian_noise(0.1), temperature=0)
    loss = pretrain.simclr(model, pretrain.gaussian_noise(0.1))
    with pytest.raises(ValueError, match=r"must have shape \(n, d\)"):
        loss(model.params, {}, (torch.ones(2, 3, 4),), KEY)
