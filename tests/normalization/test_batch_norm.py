"""`batch_norm` against `torch.nn.BatchNorm*d` and the formula, in both modes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import grad, vmap

import fdnn
from fdnn import functionalize, random
from fdnn.normalization import BatchNormState, batch_norm, init_batch_norm

DOUBLE = torch.float64
SHAPES = [(6, 3), (6, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 2)]
MODULES = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def draw(seed: int, *shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return 2 * random.normal(random.key(seed), shape, DOUBLE).to(dtype) + 1


def formula(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    dims = [dim for dim in range(x.ndim) if dim != 1]
    shape = [-1 if dim == 1 else 1 for dim in range(x.ndim)]
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (var + eps).sqrt() * weight.view(shape) + bias.view(shape)


def statistics(module: Any) -> BatchNormState:
    return BatchNormState(module.running_mean, module.running_var, module.num_batches_tracked)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_torchs(shape: tuple[int, ...], affine: bool, momentum: float | None) -> None:
    module = MODULES[len(shape)](3, eps=1e-3, momentum=momentum, affine=affine, dtype=DOUBLE)
    weight = bias = None
    if affine:
        weight, bias = draw(1, 3), draw(2, 3)
        module.load_state_dict({"weight": weight, "bias": bias}, strict=False)
    state = init_batch_norm(3, DOUBLE)
    for step in range(5):
        x = draw(10 + step, *shape)
        y, state = batch_norm(x, state, weight, bias, train=True, momentum=momentum, eps=1e-3)
        assert_close(y, module(x).detach(), rtol=1e-13, atol=1e-13)
        assert_close(state, statistics(module), rtol=1e-13, atol=1e-13)
    y, after = batch_norm(x, state, weight, bias, train=False, momentum=momentum, eps=1e-3)
    assert_close(y, module.eval()(x).detach(), rtol=1e-13, atol=1e-13)
    assert after is state


def test_running_variance_is_unbiased_and_the_outputs_is_not() -> None:
    x = draw(0, 5, 2)
    y, state = batch_norm(x, init_batch_norm(2, DOUBLE), train=True, momentum=1.0, eps=1e-14)
    assert_close(y.var(0, correction=0), torch.ones(2, dtype=DOUBLE), rtol=1e-12, atol=0)
    assert_close(state.running_var, x.var(0, correction=1), rtol=1e-13, atol=0)
    assert_close(state.running_mean, x.mean(0), rtol=1e-13, atol=0)


def taped(fn: Any, args: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """First derivatives of `fn`, and those of their squared norm, by torch's autograd."""
    leaves = [arg.clone().requires_grad_() for arg in args]
    first = torch.autograd.grad(fn(*leaves), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
    return tuple(g.detach() for g in first), second


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_derivatives_are_torchs(shape: tuple[int, ...], train: bool) -> None:
    module = MODULES[len(shape)](3, dtype=DOUBLE).train(train)
    args = draw(0, *shape), draw(1, 3), draw(2, 3)
    start = BatchNormState(draw(3, 3), draw(4, 3).square(), torch.tensor(2))
    module.load_state_dict(start._asdict(), strict=False)

    def loss(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return batch_norm(x, start, weight, bias, train=train)[0].pow(3).sum()

    def reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, x).pow(3).sum()

    def curvature(*args: Tensor) -> Tensor:
        return sum(g.square().sum() for g in grad(loss, (0, 1, 2))(*args))

    first, second = grad(loss, (0, 1, 2))(*args), grad(curvature, (0, 1, 2))(*args)
    wanted = taped(reference, args)
    assert_close(first, wanted[0], rtol=1e-12, atol=1e-11)
    assert_close(second, wanted[1], rtol=1e-10, atol=1e-8)
    if train:
        wanted = taped(lambda *args: formula(*args).pow(3).sum(), args)
        assert_close(first, wanted[0], rtol=1e-11, atol=1e-10)
        assert_close(second, wanted[1], rtol=1e-9, atol=1e-7)


def test_running_statistics_carry_no_gradient_to_the_batch() -> None:
    def total(x: Tensor) -> Tensor:
        _, state = batch_norm(x, init_batch_norm(3, DOUBLE), train=True)
        return state.running_mean.sum() + state.running_var.sum() + 0 * x.sum()

    assert (grad(total)(draw(0, 6, 3)) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("mixed", [False, True])
def test_narrow_dtypes_are_torchs(dtype: torch.dtype, mixed: bool) -> None:
    own = torch.float32 if mixed else dtype
    module, state = nn.BatchNorm1d(3, dtype=own), init_batch_norm(3, own)
    x = draw(0, 8, 3, dtype=dtype)
    y, state = batch_norm(x, state, module.weight, module.bias, train=True)
    wanted = module(x)
    assert y.dtype is dtype
    assert_equal(y, wanted)
    eps = torch.finfo(own).eps
    assert_close(state, statistics(module), rtol=3 * eps, atol=eps)
    y, _ = batch_norm(x, state, module.weight, module.bias, train=False)
    assert_close(y, module.eval()(x), rtol=4 * torch.finfo(dtype).eps, atol=0.01 * eps)


@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    momentum=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25)
def test_any_shape(shape: list[int], momentum: float, seed: int) -> None:
    shape[0] += 1
    x = draw(seed, *shape)
    start = BatchNormState(
        draw(seed + 1, shape[1]), draw(seed + 2, shape[1]).square(), torch.tensor(4)
    )
    y, state = batch_norm(x, start, train=True, momentum=momentum)
    dims = [dim for dim in range(x.ndim) if dim != 1]
    var, mean = torch.var_mean(x, dims)
    assert_close(y.mean(dims), torch.zeros(shape[1], dtype=DOUBLE), rtol=0, atol=1e-9)
    wanted = BatchNormState(
        (1 - momentum) * start.running_mean + momentum * mean,
        (1 - momentum) * start.running_var + momentum * var,
        torch.tensor(5),
    )
    assert_close(state, wanted, rtol=1e-11, atol=1e-12)


def test_one_example_in_eval_is_its_row_of_the_batch() -> None:
    x, state = draw(0, 7, 3), BatchNormState(draw(1, 3), draw(2, 3).square(), torch.tensor(1))
    together, _ = batch_norm(x, state, train=False)
    alone = torch.cat([batch_norm(row[None], state, train=False)[0] for row in x])
    assert_equal(alone, together)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_lanes_are_runs_alone(momentum: float | None) -> None:
    """With a state of each lane's own, and with one state that all lanes begin from."""
    x, weight = draw(0, 4, 6, 3), draw(1, 4, 3)
    shared = BatchNormState(draw(2, 3), draw(3, 3).square(), torch.tensor(2))
    own = BatchNormState(draw(4, 4, 3), draw(5, 4, 3).square(), torch.arange(4))

    def run(x: Tensor, weight: Tensor, state: BatchNormState) -> Any:
        y, state = batch_norm(x, state, weight, train=True, momentum=momentum)
        return y, state, batch_norm(x, state, weight, train=False)[0]

    for state, dim in ((shared, None), (own, 0)):
        lanes = vmap(run, (0, 0, dim))(x, weight, state)
        for i in range(4):
            mine = state if dim is None else BatchNormState(*(leaf[i] for leaf in state))
            alone = run(x[i], weight[i], mine)
            lane = fdnn.tree.map(lambda leaf, i=i: leaf[i], lanes)
            assert_close(lane, alone, rtol=1e-12, atol=1e-12)


def test_momentum_may_differ_from_lane_to_lane() -> None:
    x, start = draw(0, 6, 3), init_batch_norm(3, DOUBLE)
    momenta = torch.tensor([0.0, 0.25, 1.0], dtype=DOUBLE)
    lanes = vmap(lambda m: batch_norm(x, start, train=True, momentum=m)[1].running_mean)(momenta)
    assert_close(lanes, momenta[:, None] * x.mean(0), rtol=1e-12, atol=1e-14)


def test_gradients_of_lanes_compile() -> None:
    x, weight = draw(0, 3, 6, 2), draw(1, 3, 2)

    def loss(weight: Tensor, x: Tensor) -> Any:
        y, state = batch_norm(x, init_batch_norm(2, DOUBLE), weight, train=True, momentum=None)
        return y.pow(3).sum(), state

    def step(weight: Tensor, x: Tensor) -> Any:
        return vmap(grad(loss, has_aux=True))(weight, x)

    traced = torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager")
    assert_close(traced(weight, x), step(weight, x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        (torch.zeros(1, 3), {}, r"`x` must have at least two values for each channel.*\(1, 3\)"),
        (torch.zeros(0, 3), {}, r"`x` must have at least two values for each channel.*\(0, 3\)"),
        (torch.zeros(1, 3, 1), {}, r"at least two values for each channel.*\(1, 3, 1\)"),
        (torch.zeros(3), {}, r"`x` must have 2 to 5 dimensions, got shape \(3,\)"),
        (torch.zeros(4, 2), {}, r"`state` must have .* the 2 channels of `x`, got shapes \(3,\)"),
        (torch.zeros(4, 3), {"momentum": 1.2}, r"`momentum` must be in \[0, 1\], got 1.2"),
        (torch.zeros(4, 3), {"eps": 0.0}, "`eps` must be positive in training, got 0.0"),
    ],
)
def test_errors(x: Tensor, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        batch_norm(x, init_batch_norm(3), train=True, **options)


def test_a_single_example_is_fine_in_eval_and_with_positions() -> None:
    state = init_batch_norm(3)
    assert batch_norm(torch.ones(1, 3), state, train=False)[0].shape == (1, 3)
    assert batch_norm(torch.ones(1, 3, 2), state, train=True)[0].shape == (1, 3, 2)


def test_negative_number_of_features() -> None:
    with pytest.raises(ValueError, match="`num_features` must not be negative, got -1"):
        init_batch_norm(-1)


BEFORE = nn.Sequential(
    nn.Flatten(),
    nn.BatchNorm1d(784),
    *(nn.Linear(784, 300, bias=False), nn.BatchNorm1d(300), nn.ReLU()),
    *(nn.Linear(300, 100, bias=False), nn.BatchNorm1d(100), nn.ReLU()),
    nn.Linear(100, 10),
)
AFTER = nn.Sequential(
    nn.Flatten(),
    nn.BatchNorm1d(784),
    *(nn.Linear(784, 300), nn.ReLU(), nn.BatchNorm1d(300)),
    *(nn.Linear(300, 100), nn.ReLU(), nn.BatchNorm1d(100)),
    nn.Linear(100, 10),
)


@pytest.mark.parametrize(("module", "params"), [(AFTER, 268_978), (BEFORE, 268_578)])
def test_the_chapters_net(module: nn.Sequential, params: int) -> None:
    """Batch norm on the input, and before or after the activation: its counts and its values."""
    model = functionalize(module)
    norms = [i for i, layer in enumerate(module) if isinstance(layer, nn.BatchNorm1d)]
    assert sum(model.params[f"{i}.{n}"].numel() for i in norms for n in ("weight", "bias")) == 2368
    assert sum(buffer.numel() for buffer in model.buffers.values()) == 2371
    assert sum(value.numel() for value in model.params.values()) == params

    values, buffers = model.init(random.key(0))
    x = random.uniform(random.key(1), (32, 28, 28))
    for train in (True, False):
        hidden, states = x, dict(buffers)
        for i, layer in enumerate(module):
            own = [values.get(f"{i}.{name}") for name in ("weight", "bias")]
            if i in norms:
                names = [f"{i}.{name}" for name in BatchNormState._fields]
                state = BatchNormState(*(states[name] for name in names))
                hidden, state = batch_norm(hidden, state, *own, train=train)
                states |= dict(zip(names, state, strict=True))
            else:
                hidden = layer(hidden) if own[0] is None else F.linear(hidden, *own)
        y, after = model.apply(values, buffers, x, train=train)
        assert_close(hidden, y, rtol=1e-5, atol=1e-5)
        assert_close(states, after, rtol=1e-6, atol=1e-7)
        buffers = after
