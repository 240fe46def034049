"""`fdnn.initializers` against `jax.nn.initializers`, `torch.nn.init` and closed forms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import vmap

from fdnn import initializers, random
from fdnn.types import Initializer

KEY = random.key(20)
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
GATE = 5.0  # standard errors

# Every initializer, with a shape it takes.
CASES: dict[str, tuple[Initializer, tuple[int, ...]]] = {
    "zeros": (initializers.zeros, (3, 4)),
    "ones": (initializers.ones, (3, 4)),
    "constant": (initializers.constant(0.3), (3, 4)),
    "uniform": (initializers.uniform(-0.5, 2.0), (3, 4)),
    "normal": (initializers.normal(1.0, 0.5), (3, 4)),
    "truncated_normal": (initializers.truncated_normal(0.5, 2.0, -1.0, 2.0), (3, 4)),
    "tail": (initializers.truncated_normal(0.0, 1.0, 4.0, 6.0), (3, 4)),
    "vs_uniform": (initializers.variance_scaling(2.0, "fan_out", "uniform"), (3, 4)),
    "vs_normal": (initializers.variance_scaling(2.0, "fan_in", "normal"), (3, 4)),
    "vs_truncated": (initializers.variance_scaling(2.0, "fan_avg", "truncated_normal"), (3, 4)),
    "glorot_uniform": (initializers.glorot_uniform(5 / 3), (3, 4)),
    "glorot_normal": (initializers.glorot_normal(), (3, 4)),
    "he_uniform": (initializers.he_uniform(0.1), (3, 4, 2)),
    "he_normal": (initializers.he_normal(mode="fan_out", nonlinearity="tanh"), (3, 4, 2, 2)),
    "lecun_uniform": (initializers.lecun_uniform(), (3, 4)),
    "lecun_normal": (initializers.lecun_normal(), (3, 4)),
    "orthogonal": (initializers.orthogonal(2.0), (3, 2, 4)),
    "sparse": (initializers.sparse(0.3), (7, 4)),
    "dirac": (initializers.dirac(2), (4, 3, 2, 3)),
    "identity": (initializers.identity(0.5), (3, 4)),
    "embedding": (initializers.torch_default(nn.Embedding(5, 3, padding_idx=1))["weight"], (5, 3)),
}
every_case = pytest.mark.parametrize("name", CASES)


def bits(x: Tensor) -> list:
    return x.detach().double().flatten().tolist()


def assert_moments(x: Tensor, mean: float, std: float, kurtosis: float = 3.0) -> None:
    """Mean and standard deviation within GATE standard errors of a distribution's."""
    x, n = x.double().flatten(), x.numel()
    assert abs(x.mean().item() - mean) < GATE * std / math.sqrt(n)
    # Var(s^2) = std^4 (kurtosis - 1) / n, and s is half as far off, relatively.
    error = std * math.sqrt((kurtosis - 1) / n) / 2
    assert abs((x - mean).square().mean().sqrt().item() - std) < GATE * error


def assert_distributed(x: Tensor, cdf: Callable[[Tensor], Tensor]) -> None:
    """Kolmogorov and Smirnov: sqrt(n) sup|F_n - F| is above 3 once in 30 million."""
    below = cdf(x.double().flatten().sort().values)
    step = torch.arange(len(below) + 1, dtype=torch.float64) / len(below)
    gap = torch.maximum((below - step[:-1]).abs().max(), (below - step[1:]).abs().max())
    assert gap.item() * math.sqrt(len(below)) < 3


def assert_uniform(x: Tensor, bound: float) -> None:
    """Values from U(-bound, bound): the bound, the moments, and (Kolmogorov) the whole."""
    if bound == 0 or x.numel() == 0:
        assert (x == 0).all()
        return
    assert x.abs().max().item() <= bound * (1 + torch.finfo(x.dtype).eps)
    assert_moments(x, 0.0, bound / math.sqrt(3), kurtosis=1.8)
    assert_distributed(x, lambda x: (x / bound + 1) / 2)


# What every initializer owes its caller.


@every_case
@pytest.mark.parametrize("dtype", FLOATS)
def test_contract(name: str, dtype: torch.dtype) -> None:
    initializer, shape = CASES[name]
    key, state = KEY.clone(), torch.get_rng_state()
    value = initializer(key, shape, dtype, "cpu")
    assert (value.shape, value.dtype, value.device.type) == (shape, dtype, "cpu")
    assert value.isfinite().all()
    assert bits(value) == bits(initializer(key, list(shape), dtype=dtype))
    assert torch.equal(key, KEY)
    assert torch.equal(state, torch.get_rng_state())
    # A narrow dtype is the float32 draw, rounded.
    if dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(value, initializer(key, shape).to(dtype))


@every_case
def test_default_dtype_and_a_foreign_device(name: str) -> None:
    initializer, shape = CASES[name]
    assert initializer(KEY, shape).dtype == torch.float32
    assert initializer(KEY, shape, torch.float64, "meta").is_meta


@every_case
def test_vmap_over_keys_is_a_loop(name: str) -> None:
    initializer, shape = CASES[name]
    keys = random.split(KEY, 3)
    lanes = vmap(lambda key: initializer(key, shape, torch.float64))(keys)
    loop = torch.stack([initializer(key, shape, torch.float64) for key in keys])
    torch.testing.assert_close(lanes, loop, rtol=1e-14, atol=1e-14)
    lanes.add_(1)  # every lane has memory of its own
    torch.testing.assert_close(lanes, loop + 1, rtol=1e-14, atol=1e-14)


def test_compiles_whole() -> None:
    def draw(key: Tensor, names: list[str]) -> dict[str, Tensor]:
        return {name: CASES[name][0](key, CASES[name][1]) for name in names}

    everything = list(CASES)
    solo = torch.compile(draw, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.testing.assert_close(solo(KEY, everything), draw(KEY, everything), rtol=1e-5, atol=1e-6)
    # Inductor takes a second for each: one of every kind.
    kinds = ["truncated_normal", "vs_uniform", "orthogonal", "sparse", "dirac", "embedding"]
    keys = random.split(KEY, 2)
    lanes = vmap(draw, in_dims=(0, None))
    compiled = torch.compile(lanes, fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(keys, kinds), lanes(keys, kinds), rtol=1e-5, atol=1e-6)


@given(
    dtype=st.sampled_from(FLOATS),
    shape=st.lists(st.integers(0, 4), min_size=2, max_size=5).map(tuple),
    name=st.sampled_from(sorted(CASES)),
)
@settings(max_examples=100)
def test_any_shape(dtype: torch.dtype, shape: tuple[int, ...], name: str) -> None:
    if name in ("sparse", "identity", "embedding"):
        shape = shape[:2]
    if name == "dirac":
        shape = (2 * shape[0], *(*shape[1:], 1)[:4])
        shape = (*shape, 1)[: max(3, len(shape))]
    value = CASES[name][0](KEY, shape, dtype)
    assert (value.shape, value.dtype) == (shape, dtype)
    assert value.isfinite().all()


@pytest.mark.parametrize("shape", [(), (0,), (5,)])
def test_shapes_without_fans(shape: tuple[int, ...]) -> None:
    for name in ("zeros", "ones", "constant", "uniform", "normal", "truncated_normal"):
        assert CASES[name][0](KEY, shape).shape == shape


def test_hyperparameters_batch_and_differentiate() -> None:
    std = torch.tensor([0.5, 2.0], dtype=torch.float64)

    def draw(std: Tensor) -> Tensor:
        weight = initializers.normal(0.0, std)(KEY, (4, 3), torch.float64)
        cut = initializers.truncated_normal(0.0, std, -1.0, 1.0)(KEY, (4, 3), torch.float64)
        scaled = initializers.variance_scaling(std**2, "fan_in", "uniform")
        same = initializers.constant(std)(KEY, (4, 3), torch.float64)
        return torch.stack([weight, cut, scaled(KEY, (4, 3), torch.float64), same])

    lanes = vmap(draw)(std)
    torch.testing.assert_close(lanes, torch.stack([draw(0.5 + 0 * std[0]), draw(4 * std[0])]))
    slope = torch.func.grad(lambda s: initializers.normal(0.0, s)(KEY, (4,)).sum())(torch.ones(()))
    torch.testing.assert_close(slope, initializers.normal()(KEY, (4,)).sum())


# Against JAX. Its layout is (in, out), so the axes are named the other way round.

SHAPES = [(5, 7), (64, 33), (128, 256)]
jax_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
shapes = pytest.mark.parametrize("shape", SHAPES)


def from_jax(make: Callable, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        drawn = make(jax.nn.initializers)(jax.random.key(20), shape, str(dtype).split(".")[1])
        return torch.tensor(drawn.tolist(), dtype=dtype).reshape(shape)


def assert_last_place(ours: Tensor, theirs: Tensor) -> None:
    """The bits drawn are the same; JAX's root of the variance depends on the processor."""
    eps = torch.finfo(ours.dtype).eps
    torch.testing.assert_close(ours, theirs, rtol=2 * eps, atol=0.0)


@jax_dtypes
@shapes
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncated_normal"])
def test_variance_scaling_is_jax(
    dtype: torch.dtype, shape: tuple[int, ...], mode: str, distribution: str
) -> None:
    ours = initializers.variance_scaling(1.7, mode, distribution)(KEY, shape, dtype)
    theirs = from_jax(
        lambda jax: jax.variance_scaling(1.7, mode, distribution, in_axis=1, out_axis=0),
        shape,
        dtype,
    )
    if distribution == "uniform":
        assert_last_place(ours, theirs)
    else:  # up to the last places of erfinv
        rtol, atol = (2e-5, 1e-6) if dtype is torch.float32 else (1e-11, 1e-13)
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


@jax_dtypes
@shapes
def test_named_uniform_families_are_jax(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    for name in ("glorot_uniform", "he_uniform", "lecun_uniform"):
        ours = getattr(initializers, name)()(KEY, shape, dtype)
        theirs = from_jax(
            lambda jax, name=name: getattr(jax, name)(in_axis=1, out_axis=0), shape, dtype
        )
        assert_last_place(ours, theirs)
    ours = initializers.uniform(0.0, 0.3)(KEY, shape, dtype)
    assert_last_place(ours, from_jax(lambda jax: jax.uniform(0.3), shape, dtype))


@shapes
def test_normal_families_are_jax(shape: tuple[int, ...]) -> None:
    dtype = torch.float64
    pairs = {
        "normal": (initializers.normal(0.0, 0.3), lambda jax: jax.normal(0.3)),
        "truncated": (
            initializers.truncated_normal(0.0, 0.3, -0.3, 0.6),
            lambda jax: jax.truncated_normal(0.3, lower=-1.0, upper=2.0),
        ),
        "orthogonal": (initializers.orthogonal(1.5), lambda jax: jax.orthogonal(1.5)),
    }
    for ours, theirs in pairs.values():
        torch.testing.assert_close(
            ours(KEY, shape, dtype), from_jax(theirs, shape, dtype), rtol=1e-9, atol=1e-11
        )


# Against torch.nn.init.


@pytest.mark.parametrize("nonlinearity", [
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu",
])  # fmt: skip
@pytest.mark.parametrize("param", [None, 0, 0.2, 1])
def test_calculate_gain_is_torchs(nonlinearity: str, param: float | None) -> None:
    ours = initializers.calculate_gain(nonlinearity, param)
    assert ours == nn.init.calculate_gain(nonlinearity, param)


@given(shape=st.lists(st.integers(0, 6), min_size=2, max_size=5))
def test_fans_are_torchs(shape: list[int]) -> None:
    theirs = nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    assert initializers.fan_in_and_fan_out(shape) == theirs


@given(shape=st.lists(st.integers(0, 6), min_size=2, max_size=2))
def test_identity_is_torchs(shape: list[int]) -> None:
    assert torch.equal(initializers.identity()(KEY, shape), nn.init.eye_(torch.empty(shape)))


@given(
    groups=st.integers(1, 3),
    outputs=st.integers(0, 3),
    rest=st.lists(st.integers(1, 4), min_size=2, max_size=4),
)
def test_dirac_is_torchs(groups: int, outputs: int, rest: list[int]) -> None:
    shape = (groups * outputs, *rest)
    theirs = nn.init.dirac_(torch.empty(shape), groups)
    assert torch.equal(initializers.dirac(groups)(KEY, shape), theirs)


SHAPE = (60, 40, 5)  # fan_in 200, fan_out 300


@pytest.mark.parametrize(
    ("initializer", "bound"),
    [
        (initializers.glorot_uniform(2.0), 2 * math.sqrt(6 / 500)),
        (initializers.he_uniform(), math.sqrt(6 / 200)),
        (initializers.he_uniform(mode="fan_out", nonlinearity="relu"), math.sqrt(6 / 300)),
        (initializers.he_uniform(math.sqrt(5)), 1 / math.sqrt(200)),
        (initializers.he_uniform(nonlinearity="tanh"), 5 / 3 * math.sqrt(3 / 200)),
        (initializers.lecun_uniform(), math.sqrt(3 / 200)),
        (initializers.uniform(-0.2, 0.2), 0.2),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform_families(initializer: Initializer, bound: float, dtype: torch.dtype) -> None:
    value = initializer(KEY, SHAPE, dtype)
    assert value.abs().max().item() <= bound * (1 + torch.finfo(dtype).eps)
    assert_uniform(initializer(KEY, SHAPE, torch.float64), bound)


@pytest.mark.parametrize(
    ("initializer", "std"),
    [
        (initializers.glorot_normal(2.0), 2 * math.sqrt(2 / 500)),
        (initializers.he_normal(), math.sqrt(2 / 200)),
        (initializers.he_normal(0.2, "fan_out"), math.sqrt(2 / 1.04 / 300)),
        (initializers.he_normal(mode="fan_avg", nonlinearity="selu"), 0.75 / math.sqrt(250)),
        (initializers.lecun_normal(), math.sqrt(1 / 200)),
        (initializers.normal(std=0.02), 0.02),
    ],
)
def test_normal_families(initializer: Initializer, std: float) -> None:
    value = initializer(KEY, SHAPE)
    assert_moments(value, 0.0, std)
    assert_distributed(value, lambda x: torch.special.ndtr(x / std))


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [(0, 1, -2, 2), (0.5, 2, -1, 2), (0, 0.02, -2, 2), (0, 1, 1, 3), (0, 1, 5, 7), (2, 0.5, -1, 0)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_truncated_normal(mean: float, std: float, a: float, b: float, dtype: torch.dtype) -> None:
    value = initializers.truncated_normal(mean, std, a, b)(KEY, (20_000,), dtype)
    assert a <= value.min() and value.max() <= b

    def cdf(x: Tensor | float) -> Tensor:
        # Phi(-z), so that the upper tail keeps its digits.
        return torch.special.ndtr((mean - torch.as_tensor(x, dtype=torch.float64)) / std)

    assert_distributed(value, lambda x: (cdf(a) - cdf(x)) / (cdf(a) - cdf(b)))


def test_truncated_variance_scaling_keeps_its_variance() -> None:
    value = initializers.variance_scaling(1.0, "fan_in", "truncated_normal")(KEY, SHAPE)
    assert_moments(value, 0.0, math.sqrt(1 / 200))
    # Var = 1 - 2 * 2 * phi(2) / (Phi(2) - Phi(-2)) for a cut at two standard deviations.
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    after = math.sqrt(1 - 4 * density / math.erf(math.sqrt(2)))
    assert value.abs().max() <= 2 * math.sqrt(1 / 200) / after * (1 + 1e-6)
    assert value.abs().max() > 1.9 * math.sqrt(1 / 200) / after


@given(shape=st.lists(st.integers(1, 6), min_size=2, max_size=4), gain=st.floats(0.1, 3))
def test_orthogonal(shape: list[int], gain: float) -> None:
    matrix = initializers.orthogonal(gain)(KEY, shape).flatten(1) / gain
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    torch.testing.assert_close(gram, torch.eye(min(rows, columns)), rtol=0, atol=1e-5)


def test_orthogonal_is_uniform() -> None:
    # Under the Haar measure every entry of a 3 x 3 matrix is uniform on [-1, 1] (Archimedes),
    # and half of the matrices are reflections.
    keys = random.split(KEY, 4000)
    matrices = vmap(lambda key: initializers.orthogonal()(key, (3, 3)))(keys)
    for entry in matrices.flatten(1).unbind(1):
        assert_uniform(entry, 1.0)
    assert_moments(torch.linalg.det(matrices).sign(), 0.0, 1.0, kurtosis=1.0 + 1e-2)


@given(
    rows=st.integers(1, 12), columns=st.integers(1, 6), sparsity=st.floats(0, 1), seed=st.integers()
)
def test_sparse_zeros(rows: int, columns: int, sparsity: float, seed: int) -> None:
    weight = initializers.sparse(sparsity)(random.key(seed), (rows, columns), torch.float64)
    assert ((weight == 0).sum(0) == math.ceil(sparsity * rows)).all()


def test_sparse_places_and_values() -> None:
    weight = initializers.sparse(0.25, 0.1)(KEY, (40, 500))
    assert_moments(weight[weight != 0], 0.0, 0.1)
    # A row's zeros, column by column, are independent Bernoulli(1/4) draws.
    counts = (weight == 0).sum(1)
    assert ((counts - 125).abs() < GATE * math.sqrt(500 * 0.25 * 0.75)).all()


# torch's own layers.


def mha(**settings: object) -> nn.Module:
    return nn.MultiheadAttention(48, 4, **settings)


def own_names(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_parameters(recurse=False)}


# For each layer, the bound of what torch draws uniformly, and the std of what it draws normally.
# Where one bound serves all parameters it stands alone.
DRAWN: dict[str, tuple[Callable[[], nn.Module], float | dict, dict]] = {
    "linear": (lambda: nn.Linear(50, 60), 50**-0.5, {}),
    "linear_no_bias": (lambda: nn.Linear(50, 60, bias=False), 50**-0.5, {}),
    "bilinear": (lambda: nn.Bilinear(20, 30, 10), 20**-0.5, {}),
    "conv1d": (lambda: nn.Conv1d(12, 60, 5), 60**-0.5, {}),
    "conv2d": (lambda: nn.Conv2d(12, 60, (3, 2), groups=4), 18**-0.5, {}),
    "conv3d": (lambda: nn.Conv3d(4, 60, 3), 108**-0.5, {}),
    # torch counts the fans of a transposed convolution as if it were not transposed.
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(60, 40, 5), 200**-0.5, {}),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(60, 40, 3, groups=4), 90**-0.5, {}),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(20, 40, 2, bias=False), 320**-0.5, {}),
    "embedding": (lambda: nn.Embedding(60, 50), {}, {"weight": 1.0}),
    "embedding_bag": (lambda: nn.EmbeddingBag(60, 50), {}, {"weight": 1.0}),
    "lstm": (lambda: nn.LSTM(20, 30, 2, bidirectional=True, proj_size=10), 30**-0.5, {}),
    "gru": (lambda: nn.GRU(20, 30), 30**-0.5, {}),
    "rnn": (lambda: nn.RNN(20, 30, bias=False), 30**-0.5, {}),
    "rnn_cell": (lambda: nn.RNNCell(20, 30), 30**-0.5, {}),
    "lstm_cell": (lambda: nn.LSTMCell(20, 30), 30**-0.5, {}),
    "gru_cell": (lambda: nn.GRUCell(20, 30), 30**-0.5, {}),
    "attention": (mha, {"in_proj_weight": (6 / 192) ** 0.5}, {}),
    "attention_apart": (
        lambda: mha(kdim=30, vdim=20, add_bias_kv=True, bias=False),
        {
            "q_proj_weight": (6 / 96) ** 0.5,
            "k_proj_weight": (6 / 78) ** 0.5,
            "v_proj_weight": (6 / 68) ** 0.5,
        },
        {"bias_k": 48**-0.5, "bias_v": 48**-0.5},
    ),
}


@pytest.mark.parametrize("layer", DRAWN)
def test_torch_default_draws(layer: str) -> None:
    make, bounds, stds = DRAWN[layer]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make()
    if isinstance(bounds, float):
        bounds = dict.fromkeys(own_names(module), bounds)
    rules = initializers.torch_default(module)
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    # Nothing is left out, and nothing invented; `test_torch_default_constants` does the zeros.
    assert set(rules) - {"in_proj_bias", "out_proj.bias"} == set(bounds) | set(stds)
    assert own_names(module) <= set(rules) <= set(parameters)

    def draw(name: str, index: int) -> Tensor:
        """Many lanes, so that a bias too has a distribution."""
        keys = random.split(random.fold_in(KEY, index), 200)
        return vmap(lambda key: rules[name](key, parameters[name].shape))(keys)

    for index, (name, bound) in enumerate(bounds.items()):
        assert_uniform(draw(name, index), bound)
        # And the bound is torch's: its own draw stays below, and comes near.
        assert 0.5 * bound < parameters[name].abs().max() <= bound * (1 + 1e-6)
    for index, (name, std) in enumerate(stds.items()):
        drawn = draw(name, index)
        assert_moments(drawn, 0.0, std)
        assert_distributed(drawn, lambda x, std=std: torch.special.ndtr(x / std))
        assert_moments(parameters[name], 0.0, std)


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm1d(7),
        nn.BatchNorm2d(7),
        nn.BatchNorm3d(7),
        nn.BatchNorm1d(7, affine=False),
        nn.SyncBatchNorm(7),
        nn.InstanceNorm1d(7),
        nn.InstanceNorm2d(7, affine=True),
        nn.InstanceNorm3d(7, affine=True),
        nn.LayerNorm((3, 7)),
        nn.LayerNorm(7, bias=False),
        nn.GroupNorm(1, 7),
        nn.RMSNorm(7),
        nn.PReLU(3, init=0.125),
        mha(),
        mha(bias=False),
        mha(kdim=4),
        mha(add_bias_kv=True),
    ],
    ids=lambda module: type(module).__name__,
)
def test_torch_default_constants(module: nn.Module) -> None:
    rules = initializers.torch_default(module)
    parameters = dict(module.named_parameters())
    assert own_names(module) <= set(rules) <= set(parameters)
    constants = {name for name, value in parameters.items() if value.detach().std() == 0}
    assert constants <= set(rules)
    for name in constants:
        value = parameters[name].detach()
        assert torch.equal(rules[name](KEY, value.shape, value.dtype), value)


@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("padding", [0, 3, -1])
def test_padding_row_is_zero(layer: type[nn.Module], padding: int) -> None:
    rules = initializers.torch_default(layer(50, 8, padding_idx=padding))
    weight = rules["weight"](KEY, (50, 8))
    zero = (weight == 0).all(1)
    assert zero[padding] and zero.sum() == 1
    assert_moments(weight[~zero], 0.0, 1.0)


def test_transformer_covers_every_matrix() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.Transformer(16, 2, 1, 1, 24)
    rules = initializers.torch_default(module)
    parameters = dict(module.named_parameters())
    assert set(rules) == {name for name, value in parameters.items() if value.ndim > 1}
    for name, rule in rules.items():
        shape = parameters[name].shape
        bound = math.sqrt(6 / sum(shape))
        assert_uniform(rule(KEY, shape), bound)
        assert 0.9 * bound < parameters[name].detach().abs().max() <= bound * (1 + 1e-6)


def test_torch_default_knows_its_limits() -> None:
    class Own(nn.Linear):
        def reset_parameters(self) -> None:
            nn.init.ones_(self.weight)

    class Extended(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.scale = nn.Parameter(torch.ones(2))

    assert initializers.torch_default(nn.ReLU()) == {}
    assert initializers.torch_default(nn.Sequential(nn.Linear(2, 2))) == {}
    assert initializers.torch_default(nn.LazyLinear(3)) == {}
    assert initializers.torch_default(nn.LazyBatchNorm1d()) == {}
    assert initializers.torch_default(Own(3, 2)) == {}
    assert set(initializers.torch_default(Extended())) == {"weight", "bias"}
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    assert set(initializers.torch_default(parametrized)) == {"bias"}
    assert set(initializers.torch_default(nn.Linear(3, 2, device="meta"))) == {"weight", "bias"}


def test_torch_default_of_empty_layers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that there is nothing to draw
        rules = initializers.torch_default(nn.Linear(0, 3))
    assert rules["weight"](KEY, (3, 0)).shape == (3, 0)
    assert torch.equal(rules["bias"](KEY, (3,)), torch.zeros(3))


# Mistakes.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.uniform(1.0, 0.5), r"`low` must not be above `high`, got 1.0 and"),
        (lambda: initializers.normal(std=-1.0), r"`std` must not be negative, got -1.0"),
        (lambda: initializers.normal(std=math.nan), r"`std` must not be negative, got nan"),
        (lambda: initializers.truncated_normal(std=0.0), r"`std` must be positive, got 0.0"),
        (lambda: initializers.truncated_normal(a=2, b=1), r"`a` must be below `b`, got 2 and 1"),
        (lambda: initializers.truncated_normal(a=7, b=8), r"within 6 `std` of `mean`, got \[7, 8"),
        (
            lambda: initializers.variance_scaling(-1.0, "fan_in", "normal"),
            r"`scale` must not be negative, got -1.0",
        ),
        (
            lambda: initializers.variance_scaling(1.0, "fan", "normal"),
            r"`mode` must be one of fan_in, fan_out, fan_avg, got 'fan'",
        ),
        (
            lambda: initializers.variance_scaling(1.0, "fan_in", "cauchy"),
            r"`distribution` must be one of uniform, .*, got 'cauchy'",
        ),
        (lambda: initializers.he_normal(mode="in"), r"`mode` must be one of .*, got 'in'"),
        (
            lambda: initializers.he_uniform(nonlinearity="gelu"),
            r"`nonlinearity` must be one of .*, got 'gelu'",
        ),
        (
            lambda: initializers.calculate_gain("leaky_relu", True),
            r"`param` must be a number for leaky_relu, got True",
        ),
        (lambda: initializers.sparse(1.5), r"`sparsity` must be in \[0, 1\], got 1.5"),
        (lambda: initializers.sparse(0.5, -1.0), r"`std` must not be negative, got -1.0"),
        (lambda: initializers.dirac(0), r"`groups` must be positive, got 0"),
        (lambda: initializers.fan_in_and_fan_out((3,)), r"at least 2 dimensions, got \(3,\)"),
        (lambda: initializers.he_normal()(KEY, (3,)), r"at least 2 dimensions, got \(3,\)"),
        (lambda: initializers.orthogonal()(KEY, (3,)), r"at least 2 dimensions, got \(3,\)"),
        (lambda: initializers.sparse(0.5)(KEY, (3,)), r"must have 2 dimensions, got \(3,\)"),
        (lambda: initializers.identity()(KEY, (3, 2, 1)), r"2 dimensions, got \(3, 2, 1\)"),
        (lambda: initializers.dirac()(KEY, (3, 2)), r"3, 4 or 5 dimensions, got \(3, 2\)"),
        (lambda: initializers.dirac(2)(KEY, (3, 2, 1)), r"divide shape\[0\] = 3, got 2"),
        (
            lambda: initializers.normal()(KEY, (3,), torch.int64),
            r"`dtype` must be one of .*, got torch.int64",
        ),
        (
            lambda: initializers.constant(torch.ones(4, 3))(KEY, (3,)),
            r"must broadcast to `shape` \(3,\), got \(4, 3\)",
        ),
        (lambda: initializers.uniform()(torch.zeros(3), (2,)), r"`key` must be a key"),
    ],
)
def test_mistakes_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
