"""Fake quantization: torch's values and gradients, the range's laws, observers, and training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import compress, functionalize, optim, random, train, transfer, tree

NUMBERS = random.normal(random.key(0), (6, 500)) * 3


def value_and_gradient(fn: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = fn(x)
    (grad,) = torch.autograd.grad((out * NUMBERS.flip(0)).sum(), x)
    return out.detach(), grad


@pytest.mark.parametrize(("scale", "zero_point"), [(0.03, 0), (0.017, 5), (0.5, -3)])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_equals_torchs_per_tensor(scale: float, zero_point: int, bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    zero_point = min(zero_point, high)
    zero_point = max(zero_point, low)
    expected = value_and_gradient(
        lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high), NUMBERS
    )
    found = value_and_gradient(
        lambda x: compress.fake_quantize(x, scale, zero_point, num_bits=bits), NUMBERS
    )
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_equals_torchs_per_channel(axis: int) -> None:
    channels = NUMBERS.shape[axis]
    scale = random.uniform(random.key(1), (channels,)) * 0.05 + 0.001
    zero = random.randint(random.key(2), (channels,), -20, 20, torch.int32)
    expected = value_and_gradient(
        lambda x: torch.fake_quantize_per_channel_affine(x, scale, zero, axis % 2, -128, 127),
        NUMBERS,
    )
    found = value_and_gradient(lambda x: compress.fake_quantize(x, scale, zero, axis=axis), NUMBERS)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=0)


def test_gradient_of_the_scale_is_torchs_learnable_one() -> None:
    weights = NUMBERS.flip(0)
    scale, zero = torch.tensor([0.02], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    out = torch._fake_quantize_learnable_per_tensor_affine(NUMBERS, scale, zero, -128, 127, 1.0)
    (expected,) = torch.autograd.grad((out * weights).sum(), scale)
    found = torch.func.grad(lambda s: (compress.fake_quantize(NUMBERS, s) * weights).sum())(
        torch.tensor(0.02)
    )
    torch.testing.assert_close(found, expected[0], rtol=1e-4, atol=1e-3)


def test_borders_pass_the_gradient_whole() -> None:
    x = torch.tensor([-2.0, -2.6, 1.0, 1.6], dtype=torch.float64)
    grad = torch.func.grad(lambda x: compress.fake_quantize(x, 1.0, num_bits=2).sum())(x)
    assert grad.tolist() == [1.0, 0.0, 1.0, 0.0]


@given(
    st.integers(0, 10**6),
    st.integers(2, 9),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
@settings(max_examples=60, deadline=None)
def test_laws(seed: int, bits: int, symmetric: bool, dtype: torch.dtype) -> None:
    """At most 2^bits values, 0 among them; off by half a step at most; again changes nothing."""
    x = random.normal(random.key(seed), (40,), dtype) * 2
    found = compress.quantization_params(x.min(), x.max(), num_bits=bits, symmetric=symmetric)
    y = compress.fake_quantize(x, *found, num_bits=bits)
    assert y.dtype == x.dtype and len(y.unique()) <= 2**bits
    assert compress.fake_quantize(torch.zeros_like(x), *found, num_bits=bits).eq(0).all()
    if dtype != torch.bfloat16:
        allowed = 0.5001 if symmetric else 1.0001
        assert ((x - y).abs() <= allowed * found.scale).all()
        again = compress.fake_quantize(y, *found, num_bits=bits)
        torch.testing.assert_close(again, y, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("symmetric", [True, False])
def test_observer_is_torchs(symmetric: bool) -> None:
    from torch.ao.quantization.observer import MinMaxObserver

    scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    theirs, ours = (
        MinMaxObserver(dtype=torch.qint8, qscheme=scheme),
        compress.min_max_observer(symmetric=symmetric),
    )
    state = ours.init(NUMBERS[0])
    for row in NUMBERS + 2:
        theirs(row)
        state = ours.update(state, row)
    scale, zero = theirs.calculate_qparams()
    found = ours.compute(state)
    torch.testing.assert_close(found.scale, scale[0], rtol=1e-6, atol=0)
    assert found.zero_point == zero[0]
    assert state.batches == 6


def test_percentiles_leave_outliers_out() -> None:
    x = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([1000.0])])
    observer = compress.percentile_observer(99.0)
    state = observer.update(observer.init(x), x)
    assert 0.98 < observer.compute(state).scale * 127.5 < 1
    whole = compress.percentile_observer(100.0)
    state = whole.update(whole.init(x), x)
    assert torch.equal(whole.compute(state).scale, torch.tensor(1000.0) / 127.5)


def test_tree_of_parameters() -> None:
    params = {"0.weight": NUMBERS, "0.bias": NUMBERS[0], "1.weight": NUMBERS.T * 5}
    found = compress.fake_quantize_params(params, num_bits=4)
    assert torch.equal(found["0.bias"], params["0.bias"])
    for name in ("0.weight", "1.weight"):
        assert all(len(row.unique()) <= 16 for row in found[name])
    one = compress.fake_quantize_params(params, num_bits=4, axis=None, where="1.*")
    assert torch.equal(one["0.weight"], NUMBERS) and len(one["1.weight"].unique()) <= 16
    zeros = compress.apply_masks(params, compress.l1_unstructured(params, 0.5))
    kept = compress.fake_quantize_params(zeros, symmetric=False)
    assert (kept["0.weight"][zeros["0.weight"] == 0] == 0).all()


def test_more_bits_are_closer() -> None:
    bits = torch.arange(2, 9)
    error = vmap(
        lambda b: (compress.fake_quantize_params({"w": NUMBERS}, num_bits=b)["w"] - NUMBERS).norm()
    )(bits)
    ratio = error[:-1] / error[1:]
    assert (ratio > 1.7).all() and (ratio < 2.6).all()  # a bit halves the step


PLAIN = functionalize(
    nn.Sequential(
        nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3)
    )
)
X = random.normal(random.key(4), (64, 5))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0)


def trained(model: Any, seeds: int, steps: int) -> Any:
    tx = optim.adam(lr=0.03)
    runs = vmap(lambda key: train.init(model, tx, key))(random.split(random.key(0), seeds))
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    for _ in range(steps):
        runs, info = vmap(step, in_dims=(0, None))(runs, (X, Y))
    return runs, info["loss"]


def test_aware_training_beats_rounding_afterwards() -> None:
    """At two bits; three seeds together, the names and the law of new parameters the model's."""
    aware = compress.quantization_aware(PLAIN, num_bits=2)
    assert list(aware.params) == list(PLAIN.params)
    assert all(
        map(
            torch.equal,
            aware.init(random.key(3))[0].values(),
            PLAIN.init(random.key(3))[0].values(),
        )
    )

    def error(runs: Any) -> Tensor:
        out = vmap(lambda p, b: aware.apply(p, b, X)[0])(runs.params, runs.buffers)
        return vmap(lambda out: F.cross_entropy(out, Y))(out)

    after, _ = trained(PLAIN, 3, 60)
    during, losses = trained(aware, 3, 60)
    assert losses.isfinite().all()
    assert (error(during) < error(after)).all()


def test_static_model_uses_the_calibration() -> None:
    found = compress.calibrate(PLAIN, PLAIN.params, PLAIN.buffers, [X[:32], X[32:]])
    assert list(found) == ["0", "4"]
    torch.testing.assert_close(found["0"].scale, (X.abs().max() / 127.5).reshape(1, 1))
    aware = compress.quantization_aware(PLAIN, "int8_static", calibration=found, where="0")
    out, _ = aware.apply(PLAIN.params, PLAIN.buffers, X.sign() * 50)  # all clamped
    small, _ = aware.apply(PLAIN.params, PLAIN.buffers, X.sign() * 1000)
    assert torch.equal(out, small)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compress.fake_quantize(X, 0.0), "`scale` must be positive, got 0.0"),
        (lambda: compress.fake_quantize(X, 0.1, num_bits=1), "`num_bits` must be a whole number"),
        (
            lambda: compress.fake_quantize(X, torch.ones(4), axis=1),
            "`scale` must have one entry for each of the 5 channels",
        ),
        (lambda: compress.percentile_observer(0.0), r"`percentile` must be in \(0, 100\], got 0.0"),
        (
            lambda: compress.quantization_params(torch.zeros(2), torch.ones(3)),
            "`high` must have the shape of `low`",
        ),
        (lambda: compress.quantization_aware(PLAIN, "int4"), "`scheme` must be one of"),
        (
            lambda: compress.quantization_aware(PLAIN, "int8_static"),
            "`calibration` must be given for the scheme 'int8_static'",
        ),
        (
            lambda: compress.quantization_aware(PLAIN, calibration={}),
            "`calibration` must be left out",
        ),
        (
            lambda: compress.quantization_aware(PLAIN, "int8_static", calibration={}),
            "`calibration` must name the layer '0'",
        ),
        (lambda: compress.quantization_aware(PLAIN, where="9"), "9"),
        (
            lambda: compress.quantization_aware(functionalize(nn.ReLU())),
            "`where` must choose a linear layer, got none",
        ),
        (
            lambda: compress.quantization_aware(train.mixed_precision(PLAIN)),
            "`model` must be the plain one",
        ),
        (
            lambda: compress.quantization_aware(transfer.freeze(PLAIN, "0.*")),
            "`model` must not be frozen",
        ),
        (
            lambda: compress.calibrate(
                PLAIN, PLAIN.params, PLAIN.buffers, [X], compress.min_max_observer(axis=-1)
            ),
            "leave `axis` out",
        ),
        (
            lambda: compress.calibrate(PLAIN, PLAIN.params, PLAIN.buffers, []),
            "`batches` must reach every layer",
        ),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="`input` must be floating-point"):
        compress.fake_quantize(torch.ones(2, dtype=torch.int64), 1.0)


def test_tree_stays_a_tree() -> None:
    nested = {"a": {"w": NUMBERS}, "b": NUMBERS[0]}
    tree.assert_same_structure(nested, compress.fake_quantize_params(nested))
