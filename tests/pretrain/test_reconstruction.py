"""Losses of autoencoders, against the same written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from torch import Tensor, nn

from fdnn import functionalize, losses, optim, pretrain, random, train, transfer
from fdnn.nn import MLP

KEY = random.key(3)


def test_plain(task: Any) -> None:
    """The gradient too, with torch's own autograd on the module."""
    net = pretrain.Autoencoder(nn.Linear(4, 2), nn.Linear(2, 4)).double()
    model = functionalize(net)
    loss = train.value_and_grad(pretrain.reconstruction(model))
    (value, _), grads = loss(model.params, model.buffers, (task.inputs, task.labels), KEY)
    expected = F.mse_loss(net(task.inputs), task.inputs)
    expected.backward()
    wanted = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert_close((value, grads), (expected.detach(), wanted), rtol=1e-12, atol=1e-14)


def test_denoising_is_given_the_noisy_and_measured_on_the_clean(task: Any) -> None:
    noise = pretrain.gaussian_noise(0.5)
    loss = pretrain.reconstruction(task.model, F.l1_loss, corrupt=noise)
    value, buffers = loss(task.model.params, task.model.buffers, (task.inputs,), KEY)
    key_corrupt, key_apply = random.split(KEY)
    output, moved = task.model.apply(
        task.model.params,
        task.model.buffers,
        noise(key_corrupt, task.inputs),
        key=key_apply,
        train=True,
    )
    assert_equal((value, buffers), (F.l1_loss(output, task.inputs), moved))
    assert buffers["encoder.1.num_batches_tracked"] == 1


def test_masked_measures_what_was_hidden(task: Any) -> None:
    hidden = random.bernoulli(random.key(8), 0.4, (12, 4))
    given: list[Tensor] = []

    def mask(key: Tensor, inputs: Tensor) -> Tensor:
        given.append(key)
        return hidden

    loss = pretrain.masked_reconstruction(task.model, mask, losses.l1_loss)
    value, _ = loss(task.model.params, task.model.buffers, (task.inputs,), KEY)
    output, _ = task.model.apply(
        task.model.params,
        task.model.buffers,
        task.inputs * ~hidden,
        key=random.split(KEY)[1],
        train=True,
    )
    expected = (output - task.inputs).abs()[hidden].mean()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    assert torch.equal(given[0], random.split(KEY)[0])


def test_masked_with_nothing_hidden_is_0() -> None:
    model = functionalize(nn.Linear(4, 4))
    loss = train.value_and_grad(pretrain.masked_reconstruction(model, pretrain.random_mask(0.0)))
    (value, _), grads = loss(model.params, {}, (torch.ones(2, 4),), KEY)
    assert value == 0
    assert all(not grad.any() for grad in grads.values())


def test_one_mask_for_all_channels() -> None:
    model = functionalize(nn.Conv2d(3, 3, 1))
    images = random.normal(random.key(0), (2, 3, 4, 4))
    mask = pretrain.patch_mask(2, 0.25)
    value, _ = pretrain.masked_reconstruction(model, mask)(model.params, {}, (images,), KEY)
    hidden = mask(random.split(KEY)[0], images).expand(2, 3, 4, 4)
    output = model.apply(model.params, {}, images * ~hidden)[0]
    torch.testing.assert_close(value, F.mse_loss(output[hidden], images[hidden]))


def test_criteria_that_do_not_fit(task: Any) -> None:
    state = task.model.params, task.model.buffers, (task.inputs,), KEY
    with pytest.raises(ValueError, match="`criterion` must return a 0-d tensor"):
        pretrain.reconstruction(task.model, lambda x, y: (x - y).square())(*state)
    masked = pretrain.masked_reconstruction(
        task.model, pretrain.random_mask(0.5), lambda x, y, reduction: (x - y).square().mean(1)
    )
    with pytest.raises(ValueError, match=r"shape \(12, 4\).*got \(12,\)"):
        masked(*state)


def test_an_autoencoder_wants_modules() -> None:
    with pytest.raises(TypeError, match=r"`decoder` must be an nn.Module, got 'mirror'"):
        pretrain.Autoencoder(nn.Linear(4, 2), "mirror")


def test_its_encoder_is_reused(task: Any) -> None:
    """Pretrained, then found by `transfer.reuse` under another name, without the decoder."""
    body = MLP(4, 6, 3, depth=2)
    model = functionalize(pretrain.Autoencoder(body.hidden, nn.Linear(6, 4)))
    tx = optim.adam(lr=0.01)
    step = train.make_step(pretrain.reconstruction(model), tx)
    inputs = task.inputs.float()
    state, history = train.fit(
        step,
        train.init(model, tx, random.key(0)),
        (inputs, task.labels),
        epochs=30,
        batch_size=12,
        compile=False,
        progress=False,
    )
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    params, _, report = transfer.reuse(
        state.params,
        into=functionalize(body),
        key=random.key(1),
        match=transfer.rename({"hidden": "encoder"}),
    )
    assert len(report.reused) == 4
    assert list(report.reinitialized) == ["output.weight", "output.bias"]
    assert list(report.skipped) == ["decoder.weight", "decoder.bias"]
    assert torch.equal(params["hidden.1.linear.weight"], state.params["encoder.1.linear.weight"])
