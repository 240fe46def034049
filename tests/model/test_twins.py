"""Every keyed twin: torch's own forms, torch's own law, and randomness of the key alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, vmap

from fdnn import random
from fdnn.model.keyed import KeyedRandomness

KEY = random.key(40)
GATE = 5.0  # standard errors
N = 50_000
probabilities = st.floats(0.02, 0.98)

T = torch.full((30, 20), 0.3)
D, B, I = T.double(), T.bfloat16(), torch.arange(600).reshape(30, 20)  # noqa: E741
S = T.shape
NAMES = {"torch": torch, "F": F, "T": T, "D": D, "B": B, "I": I, "S": S}

MADE = [
    "torch.rand(30, 20)",
    "torch.rand((30, 20))",
    "torch.rand([30, 20])",
    "torch.rand(S)",
    "torch.rand(size=(30, 20))",
    "torch.rand(30, 20, dtype=torch.float64)",
    "torch.rand(30, 20, dtype=torch.bfloat16, device='cpu')",
    "torch.rand(30, 20, dtype=None, layout=torch.strided, pin_memory=False)",
    "torch.rand(30, 20, requires_grad=True)",
    "torch.rand(30, 20, generator=None, out=None)",
    "torch.randn(30, 20)",
    "torch.randn((30, 20), dtype=torch.float16)",
    "torch.randn(size=S, device=torch.device('cpu'), requires_grad=True)",
    "torch.randn(30, 20, dtype=torch.complex64)",
    "torch.rand_like(T)",
    "torch.rand_like(input=D)",
    "torch.rand_like(I, dtype=torch.float32)",
    "torch.rand_like(T, memory_format=torch.preserve_format, requires_grad=True)",
    "torch.randn_like(T)",
    "torch.randn_like(B)",
    "torch.randn_like(T.to(torch.complex128))",
    "torch.randn_like(T, dtype=torch.float64)",
    "torch.randint(99, (30, 20))",
    "torch.randint(3, 99, (30, 20))",
    "torch.randint(3, 99, size=S)",
    "torch.randint(99, size=S)",
    "torch.randint(3, high=99, size=S)",
    "torch.randint(high=99, size=S)",
    "torch.randint(low=3, high=99, size=S, dtype=torch.int32)",
    "torch.randint(-9, 99, [30, 20], dtype=torch.float32, requires_grad=True)",
    "torch.randint_like(I, 99)",
    "torch.randint_like(T, 3, 99)",
    "torch.randint_like(T, high=99, dtype=torch.uint8)",
    "torch.randint_like(I, low=3, high=99)",
    "torch.randperm(99)",
    "torch.randperm(n=99, dtype=torch.int32)",
    "torch.randperm(99, dtype=torch.float32, requires_grad=True)",
    "torch.normal(T, T)",
    "torch.normal(T, 2.0)",
    "torch.normal(T)",
    "torch.normal(0.0, D)",
    "torch.normal(mean=T, std=D)",
    "torch.normal(T[:, :1], T[:1])",
    "torch.normal(2.0, 3.0, (30, 20))",
    "torch.normal(mean=2, std=3, size=S, dtype=torch.float64)",
    "torch.bernoulli(T)",
    "torch.bernoulli(input=B)",
    "torch.bernoulli(T, 0.7)",
    "torch.bernoulli(D, p=0.7)",
    "T.bernoulli()",
    "T.bernoulli(0.7)",
    "torch.multinomial(T, 5)",
    "torch.multinomial(input=D, num_samples=30, replacement=True)",
    "torch.multinomial(T[0], 5)",
    "torch.multinomial(B, 5, True)",
    "T.multinomial(num_samples=5)",
]
FILLED = [
    "T.clone().uniform_()",
    "T.clone().uniform_(2, 5)",
    "B.clone().uniform_(2.0, to=5.0)",
    "D.clone().uniform_(**{'from': 2, 'to': 5})",
    "T.clone().normal_()",
    "B.clone().normal_(2, 3)",
    "T.clone().normal_(mean=2, std=3)",
    "T.to(torch.complex64).normal_()",
    "T.clone().log_normal_()",
    "D.clone().log_normal_(mean=1, std=0.5)",
    "T.clone().exponential_()",
    "B.clone().exponential_(lambd=2.0)",
    "T.clone().random_()",
    "I.clone().random_()",
    "I.to(torch.uint8).random_()",
    "I.bool().random_()",
    "T.clone().random_(99)",
    "I.clone().random_(-9, 99)",
    "I.clone().random_(3, to=99)",
    "I.clone().random_(**{'from': 3, 'to': 99})",
    "T.clone().bernoulli_()",
    "I.clone().bernoulli_(0.7)",
    "I.bool().bernoulli_(p=0.7)",
    "T.clone().bernoulli_(D)",
    "I.clone().bernoulli_(p=B)",
]
ACTIVATED = [
    "F.dropout(T)",
    "F.dropout(input=B, p=0.2)",
    "F.dropout(T.clone(), 0.5, True, True)",
    "F.alpha_dropout(T, 0.5, True)",
    "F.dropout1d(T)",
    "F.dropout2d(T[:, :, None, None])",
    "F.dropout3d(T[None, :, None, None])",
    "F.feature_alpha_dropout(T, 0.5, True)",
    "torch.dropout(input=T, p=0.5, train=True)",
    "torch.dropout_(T.clone(), 0.5, True)",
    "torch.alpha_dropout(T, 0.5, True)",
    "torch.alpha_dropout_(T.clone(), 0.5, True)",
    "torch.feature_dropout(T, 0.5, True)",
    "torch.feature_dropout_(T.clone(), 0.5, True)",
    "torch.feature_alpha_dropout(T, 0.5, True)",
    "torch.feature_alpha_dropout_(T.clone(), 0.5, True)",
    "F.rrelu(-T, training=True)",
    "F.rrelu(-T, 0.1, 0.3, True, True)",
    "torch.rrelu(-B, 0.1, 0.3, True, generator=None)",
    "torch.rrelu_(-T, training=True)",
    "F.gumbel_softmax(T)",
    "F.gumbel_softmax(B, tau=0.5, dim=0)",
    "F.gumbel_softmax(T, hard=True)",
    "F.scaled_dot_product_attention(T, T, T, dropout_p=0.5)",
    "F.scaled_dot_product_attention(query=T, key=T, value=T, attn_mask=None, dropout_p=0.5)",
    "F.fractional_max_pool2d(I[None] / 600, 3, output_size=(9, 7))",
    "F.fractional_max_pool2d(I[None, None] / 600, 3, output_ratio=(0.5, 0.5))",
    "F.fractional_max_pool2d(I[None] / 600, 3, output_size=9, return_indices=True)[1]",
    "F.fractional_max_pool3d(torch.arange(6e3).reshape(6, 10, 10, 10), 2, output_size=(4, 5, 6))",
]
FORMS = MADE + FILLED + ACTIVATED
every_form = pytest.mark.parametrize("form", FORMS)


def evaluate(form: str) -> Tensor:
    return eval(form, dict(NAMES))


def keyed(fn: Callable[[], Any], key: Tensor = KEY) -> Any:
    with KeyedRandomness(key):
        return fn()


def torchs(fn: Callable[[], Any]) -> Any:
    """Run with torch's own random operations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fn()


def assert_mean(x: Tensor, mean: float, std: float) -> None:
    assert abs(x.double().mean().item() - mean) <= GATE * std / math.sqrt(x.numel()) + 1e-9


def assert_moments(x: Tensor, mean: float, std: float) -> None:
    """Mean and variance within GATE standard errors."""
    assert_mean(x, mean, std)
    squares = (x.double() - mean).square()
    assert_mean(squares, std**2, squares.std().item())


def constant_dims(x: Tensor) -> list[bool]:
    """For each dimension, whether nothing changes along it."""
    return [bool((x == x.narrow(dim, 0, 1)).all()) for dim in range(x.ndim)]


@every_form
def test_form_is_torchs(form: str) -> None:
    expected, found = torchs(lambda: evaluate(form)), keyed(lambda: evaluate(form))
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.device == expected.device
    assert found.requires_grad == expected.requires_grad
    assert found.is_leaf == expected.is_leaf


@every_form
def test_key_and_place_decide(form: str) -> None:
    generator = torch.get_rng_state()
    first, second = keyed(lambda: (evaluate(form), evaluate(form)))
    again, other = keyed(lambda: evaluate(form)), keyed(lambda: evaluate(form), random.key(41))
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(again, first)
    assert not torch.equal(second, first)
    assert not torch.equal(other, first)


@pytest.mark.parametrize(
    "form",
    [
        "torch.rand(())",
        "torch.rand([])",
        "torch.randn(0, 3)",
        "torch.randint(5, ())",
        "torch.randperm(0)",
        "torch.randperm(1)",
        "torch.bernoulli(T[:0])",
        "torch.multinomial(T[:0], 2)",
        "T[:0].clone().normal_()",
        "F.dropout(T[:0])",
        "F.dropout(torch.tensor(1.0))",
    ],
)
def test_small_and_empty(form: str) -> None:
    expected, found = torchs(lambda: evaluate(form)), keyed(lambda: evaluate(form))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(
    ("form", "mean", "std"),
    [
        ("torch.rand(N)", 0.5, 12**-0.5),
        ("torch.randn(N)", 0, 1),
        ("torch.randn(N, dtype=torch.float64)", 0, 1),
        ("torch.randn(N, dtype=torch.bfloat16)", 0, 1),
        ("torch.randn(N, dtype=torch.float16)", 0, 1),
        ("torch.randn(N, dtype=torch.complex64).real", 0, 0.5**0.5),
        ("torch.randn(N, dtype=torch.complex64).imag", 0, 0.5**0.5),
        ("torch.rand_like(O)", 0.5, 12**-0.5),
        ("torch.randn_like(O)", 0, 1),
        ("torch.randint(6, (N,))", 2.5, (35 / 12) ** 0.5),
        ("torch.randint(3, 9, (N,))", 5.5, (35 / 12) ** 0.5),
        ("torch.randint_like(O, 3, 9)", 5.5, (35 / 12) ** 0.5),
        ("torch.normal(2.0, 3.0, (N,))", 2, 3),
        ("torch.normal(2 * O, 3 * O)", 2, 3),
        ("torch.normal(2 * O, 3.0)", 2, 3),
        ("torch.normal(2.0, 3 * O)", 2, 3),
        ("torch.normal(2 * O)", 2, 1),
        ("torch.bernoulli(0.3 * O)", 0.3, 0.21**0.5),
        ("torch.bernoulli(O, 0.3)", 0.3, 0.21**0.5),
        ("torch.bernoulli(torch.full((N,), 2**-9, dtype=torch.bfloat16))", 2**-9, 2**-4.5),
        ("(0 * O).uniform_(2, 5)", 3.5, 3 * 12**-0.5),
        ("(0 * O).normal_(2, 3)", 2, 3),
        ("(0 * O).to(torch.complex64).normal_().imag", 0, 0.5**0.5),
        ("(0 * O).exponential_(2)", 0.5, 0.5),
        ("(0 * O).exponential_()", 1, 1),
        ("(0 * O).log_normal_(0.5, 0.25).log()", 0.5, 0.25),
        ("(0 * O).bernoulli_(0.3)", 0.3, 0.21**0.5),
        ("(0 * O).bernoulli_(0.3 * O)", 0.3, 0.21**0.5),
        ("(0 * O).random_(6)", 2.5, (35 / 12) ** 0.5),
        ("(0 * O).random_(3, 9)", 5.5, (35 / 12) ** 0.5),
        ("(0 * O).random_()", 2**23, 2**24 * 12**-0.5),
        ("(0 * O).bfloat16().random_()", 128, ((257**2 - 1) / 12) ** 0.5),
        ("(0 * O).to(torch.uint8).random_()", 127.5, ((256**2 - 1) / 12) ** 0.5),
        ("(0 * O).to(torch.int8).random_()", 63.5, ((128**2 - 1) / 12) ** 0.5),
        ("(0 * O).bool().random_()", 0.5, 0.5),
    ],
)
def test_moments(form: str, mean: float, std: float) -> None:
    names = {**NAMES, "N": N, "O": torch.ones(N)}
    assert_moments(keyed(lambda: eval(form, names)), mean, std)


def test_exponential_is_never_zero() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        drawn = keyed(lambda dtype=dtype: torch.empty(2**16, dtype=dtype).exponential_(1e4))
        assert (drawn > 0).all()


def test_normal_gives_no_gradient() -> None:
    """As torch's, which is not reparametrized."""
    mean = torch.zeros(3, requires_grad=True)
    assert not keyed(lambda: torch.normal(mean, 1.0)).requires_grad


def test_randperm_gives_every_order_alike() -> None:
    draws = 1200
    with KeyedRandomness(KEY):
        orders = [tuple(torch.randperm(3).tolist()) for _ in range(draws)]
    for order in itertools.permutations(range(3)):
        expected, error = draws / 6, math.sqrt(draws * 5 / 36)
        assert abs(orders.count(order) - expected) < GATE * error


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_multinomial_with_replacement(dtype: torch.dtype) -> None:
    weights = torch.tensor([1.0, 0.0, 2.0, 125.0], dtype=dtype)
    drawn = keyed(lambda: torch.multinomial(weights, N, replacement=True))
    for index, p in enumerate((weights.double() / weights.double().sum()).tolist()):
        assert_mean(drawn == index, p, math.sqrt(p * (1 - p)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_multinomial_without_replacement(dtype: torch.dtype) -> None:
    """The first is drawn by weight, the second by weight among the rest."""
    weights = torch.tensor([1.0, 2.0, 5.0], dtype=dtype)
    p = (weights.double() / weights.double().sum()).tolist()
    drawn = keyed(lambda: torch.multinomial(weights.expand(N, 3), 2))
    assert not (drawn[:, 0] == drawn[:, 1]).any()
    for i, j in itertools.permutations(range(3), 2):
        both = p[i] * p[j] / (1 - p[i])
        found = (drawn[:, 0] == i) & (drawn[:, 1] == j)
        assert_mean(found, both, math.sqrt(both * (1 - both)))


@given(p=probabilities)
def test_dropout_keeps_the_rest_and_scales_it(p: float) -> None:
    x = random.normal(random.key(1), (20_000,), torch.float64)
    y = keyed(lambda: F.dropout(x, p))
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / (1 - p), rtol=1e-12, atol=0)
    assert_mean(kept, 1 - p, math.sqrt(p * (1 - p)))


@given(p=probabilities)
def test_alpha_dropout_keeps_mean_and_variance(p: float) -> None:
    x = random.normal(random.key(1), (20_000,), torch.float64)
    y = keyed(lambda: F.alpha_dropout(x, p, True))
    assert_moments(y, 0, 1)


@given(p=probabilities, value=st.floats(-3, 3))
@pytest.mark.parametrize(
    "fn",
    [F.alpha_dropout, F.feature_alpha_dropout, torch.alpha_dropout, torch.feature_alpha_dropout],
)
def test_alpha_dropout_has_torchs_two_values(fn: Any, p: float, value: float) -> None:
    """Of a constant input, what is kept and what is dropped become one value each."""
    x = torch.full((400, 1), value, dtype=torch.float64)
    expected, found = (run(lambda: fn(x, p, True)).unique() for run in (torchs, keyed))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


FAMILY = [
    F.dropout,
    F.dropout1d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    torch.dropout,
    torch.feature_dropout,
    torch.alpha_dropout,
    torch.feature_alpha_dropout,
]
every_dropout = pytest.mark.parametrize(
    "fn", FAMILY, ids=lambda fn: f"{fn.__module__}.{fn.__name__}"
)


@every_dropout
def test_dropout_of_nothing_and_of_all(fn: Any) -> None:
    with KeyedRandomness(None):  # nothing is drawn
        assert torch.equal(fn(T, 0.0, True), T)
        assert torch.equal(fn(T, 0.5, False), T)
    assert not keyed(lambda: fn(T, 1.0, True)).any()


@every_dropout
@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("training", [True, False])
def test_probability_out_of_range(fn: Any, p: float, training: bool) -> None:
    with pytest.raises(ValueError, match=f"`p` must be in .0, 1., got {p}"):
        keyed(lambda: fn(T, p, training))


@every_dropout
def test_dropout_of_infinity(fn: Any) -> None:
    """Dropped is dropped: never 0 * inf."""
    y = keyed(lambda: fn(torch.full((50, 4, 2), math.inf), 0.5, True))
    assert not y.isnan().any()


@pytest.mark.parametrize(
    ("fn", "shape"),
    [
        (F.dropout, (8, 6, 5)),
        (F.dropout1d, (8, 6, 5)),
        (F.dropout1d, (8, 6)),
        (F.dropout2d, (8, 6, 5, 4)),
        (F.dropout3d, (8, 6, 5, 4, 3)),
        (F.dropout3d, (8, 6, 5, 4)),
        (F.feature_alpha_dropout, (8, 6, 5)),
        (F.feature_alpha_dropout, (8, 6, 5, 4, 3)),
        (torch.feature_dropout, (8, 6, 5)),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_channels_drop_as_torchs(fn: Any, shape: tuple[int, ...], inplace: bool) -> None:
    def run() -> Tensor:
        x = torch.ones(shape)
        y = fn(x, 0.5, True) if fn is torch.feature_dropout else fn(x, 0.5, True, inplace)
        assert not inplace or y is x or fn is torch.feature_dropout
        return y

    assert constant_dims(keyed(run)) == constant_dims(torchs(run))
    kept = keyed(run) == keyed(run).max()
    assert_mean(kept[(..., *(0,) * (len(shape) - 2))], 0.5, 0.5)


def test_dropout1d_of_too_many_dimensions() -> None:
    with pytest.raises(ValueError, match=r"must have 2 or 3 dimensions, got shape \(2, 3, 4, 5\)"):
        keyed(lambda: F.dropout1d(torch.ones(2, 3, 4, 5)))


@given(bounds=st.tuples(st.floats(0, 2), st.floats(0, 2)).map(sorted))
def test_rrelu_slopes(bounds: list[float]) -> None:
    lower, upper = bounds
    x = random.normal(random.key(1), (2000,), torch.float64)
    y = keyed(lambda: F.rrelu(x, lower, upper, True))
    assert torch.equal(y[x >= 0], x[x >= 0])
    slopes = (y / x)[x < 0]
    assert ((slopes >= lower - 1e-12) & (slopes <= upper + 1e-12)).all()
    assert_mean(slopes, (lower + upper) / 2, (upper - lower) * 12**-0.5)


def test_rrelu_slope_at_zero_is_drawn_as_in_torch() -> None:
    zero = torch.zeros(3, requires_grad=True)
    (theirs,) = torch.autograd.grad(F.rrelu(zero, 0.25, 0.25, True).sum(), zero)
    (ours,) = torch.autograd.grad(keyed(lambda: F.rrelu(zero, 0.25, 0.25, True)).sum(), zero)
    assert ours.tolist() == theirs.tolist() == [0.25] * 3


@pytest.mark.parametrize("fn", [F.rrelu, torch.rrelu])
def test_rrelu_in_eval_mode_is_torchs(fn: Any) -> None:
    with KeyedRandomness(None):
        found = fn(-T, 0.1, 0.3)
    assert torch.equal(found, fn(-T, 0.1, 0.3))


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax_samples_the_softmax(hard: bool) -> None:
    logits = torch.tensor([0.5, -1.0, 1.5], dtype=torch.float64)
    y = keyed(lambda: F.gumbel_softmax(logits.expand(N, 3), tau=0.3, hard=hard))
    torch.testing.assert_close(y.sum(-1), torch.ones(N, dtype=torch.float64))
    for index, p in enumerate(logits.softmax(0).tolist()):
        assert_mean(y.argmax(-1) == index, p, math.sqrt(p * (1 - p)))


def test_hard_gumbel_softmax_has_the_soft_gradient() -> None:
    logits = random.normal(random.key(1), (5, 4), torch.float64)

    def run(hard: bool) -> Callable[[Tensor], Tensor]:
        return lambda logits: keyed(lambda: F.gumbel_softmax(logits, 0.7, hard))

    one_hot = run(True)(logits)
    expected = F.one_hot(run(False)(logits).argmax(-1), 4).double()
    torch.testing.assert_close(one_hot, expected)
    cotangent = random.normal(random.key(2), (5, 4), torch.float64)
    hard, soft = (torch.func.vjp(run(h), logits)[1](cotangent)[0] for h in (True, False))
    torch.testing.assert_close(hard, soft)
    assert soft.abs().max() > 0.01


def tokens(seed: int, *shape: int) -> Tensor:
    return random.normal(random.key(seed), shape, torch.float64)


BOOLS = random.bernoulli(random.key(4), 0.6, (5, 7))
MASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "bool": {"attn_mask": BOOLS},
    "nothing to see": {"attn_mask": BOOLS & (torch.arange(5) != 2).unsqueeze(1)},
    "float": {"attn_mask": tokens(5, 2, 1, 5, 7)},
    "minus infinity": {"attn_mask": torch.zeros(5, 7).masked_fill(~BOOLS, -math.inf).double()},
    "scale": {"scale": 0.3},
    "grouped": {"enable_gqa": True},
    "grouped, causal": {"enable_gqa": True, "is_causal": True, "scale": 2.0},
}


@pytest.mark.parametrize("options", MASKS.values(), ids=MASKS.keys())
def test_attention_that_drops_nothing_is_torchs(options: dict[str, Any]) -> None:
    """With so small a probability that every weight is kept."""
    heads = 2 if options.get("enable_gqa") else 4
    inputs = tokens(1, 2, 4, 5, 6), tokens(2, 2, heads, 7, 6), tokens(3, 2, heads, 7, 3)

    def run(p: float) -> tuple[Tensor, Any]:
        fn = lambda *qkv: F.scaled_dot_product_attention(*qkv, dropout_p=p, **options)  # noqa: E731
        output, pull = torch.func.vjp(fn, *inputs)
        return output, pull(torch.ones_like(output))

    torch.testing.assert_close(keyed(lambda: run(1e-12)), run(0.0), rtol=1e-9, atol=1e-9)


@given(p=probabilities)
def test_attention_drops_weights(p: float) -> None:
    q, k, eye = tokens(1, 20, 8, 6), tokens(2, 20, 50, 6), torch.eye(50, dtype=torch.float64)
    weights = F.scaled_dot_product_attention(q, k, eye.expand(20, 50, 50))
    dropped = keyed(
        lambda: F.scaled_dot_product_attention(q, k, eye.expand(20, 50, 50), dropout_p=p)
    )
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], weights[kept] / (1 - p))
    assert_mean(kept, 1 - p, math.sqrt(p * (1 - p)))


def test_attention_refuses() -> None:
    mask = torch.ones(30, 30, dtype=torch.bool)
    with pytest.raises(ValueError, match="`attn_mask` must be None if `is_causal`"):
        keyed(lambda: F.scaled_dot_product_attention(T, T, T, mask, 0.5, is_causal=True))
    with pytest.raises(ValueError, match=r"`p` must be in \[0, 1\], got 1.5"):
        keyed(lambda: F.scaled_dot_product_attention(T, T, T, dropout_p=1.5))


@pytest.mark.parametrize("fn", [F.fractional_max_pool2d, F.fractional_max_pool3d])
@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("indices", [False, True])
def test_fractional_pooling_is_torchs_with_its_samples(
    fn: Any, batch: tuple[int, ...], indices: bool
) -> None:
    dims = 2 if fn is F.fractional_max_pool2d else 3
    x = random.normal(random.key(1), (*batch, 4, *(9,) * dims))
    found = keyed(lambda: fn(x, 2, output_size=4, return_indices=indices))
    samples = random.uniform(random.fold_in(KEY, 0), (*(batch or (1,)), 4, dims))
    with KeyedRandomness(None):  # nothing to draw
        expected = fn(x, 2, output_size=4, return_indices=indices, _random_samples=samples)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "form",
    [
        "torch.rand(3, generator=G)",
        "torch.randn(3, out=T[0, :3])",
        "torch.randint(3, (3,), generator=G)",
        "torch.randperm(3, out=I[0, :3])",
        "torch.normal(T, T, generator=G)",
        "torch.normal(T, T, out=T)",
        "torch.bernoulli(T, generator=G)",
        "torch.bernoulli(T, out=T)",
        "torch.multinomial(T, 2, generator=G)",
        "T.normal_(generator=G)",
        "T.uniform_(generator=G)",
        "T.exponential_(generator=G)",
        "T.log_normal_(generator=G)",
        "T.bernoulli_(generator=G)",
        "T.random_(generator=G)",
        "torch.rrelu(T, 0.1, 0.3, True, generator=G)",
    ],
)
def test_generators_and_out_are_refused(form: str) -> None:
    names = {**NAMES, "G": torch.Generator(), "T": T.clone(), "I": I.clone()}
    with pytest.raises(ValueError, match=r"`(generator|out)` must not be given to a random"):
        keyed(lambda: eval(form, names))
    assert torch.equal(names["T"], T)


def drawn_in_all_ways(key: Tensor, x: Tensor) -> list[Tensor]:
    with KeyedRandomness(key):
        return [
            torch.rand(2, 3),
            torch.randn(size=(5, 6)) * x,
            torch.rand_like(x),
            torch.randn_like(x),
            torch.randint(2, 9, (3,)),
            torch.randint_like(x, 9),
            torch.randperm(5),
            torch.normal(x, 2.0),
            torch.bernoulli(x),
            x.bernoulli(0.5),
            torch.multinomial(x[..., 0, :], 2),
            x[..., 0, :].multinomial(2, replacement=True),
            x.clone().bernoulli_(0.5),
            x.clone().uniform_(1, 2),
            x.clone().normal_(),
            x.clone().log_normal_(),
            x.clone().exponential_(),
            x.clone().random_(9),
            torch.dropout(x, 0.5, True),
            torch.alpha_dropout(x, 0.5, True),
            torch.feature_dropout(x, 0.5, True),
            torch.feature_alpha_dropout_(x.clone(), 0.5, True),
            F.rrelu(-x, training=True),
            torch.rrelu_(-x, training=True),
            F.gumbel_softmax(x, hard=True),
            F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
        ]


X = random.uniform(random.key(3), (1, 5, 6))


def test_vmapped() -> None:
    keys, xs = random.split(KEY, 4), random.uniform(random.key(3), (4, 5, 6))
    expected = [torch.stack(ways) for ways in zip(*map(drawn_in_all_ways, keys, xs), strict=True)]
    torch.testing.assert_close(vmap(drawn_in_all_ways)(keys, xs), expected)


def pooled_in_both_ways(key: Tensor, x: Tensor) -> Any:
    with KeyedRandomness(key):
        return (
            F.fractional_max_pool2d(x, 2, output_size=3),
            F.fractional_max_pool2d(x, 2, output_size=3, return_indices=True),
        )


@pytest.mark.parametrize("fn", [drawn_in_all_ways, pooled_in_both_ways])
def test_traced(fn: Any) -> None:
    """The compiler shows every twin to the mode. (What it then makes of them is not at stake.)"""
    generator = torch.get_rng_state()
    found = torch.compile(fn, fullgraph=True, dynamic=False, backend="aot_eager")(KEY, X)
    assert torch.equal(torch.get_rng_state(), generator)
    torch.testing.assert_close(found, fn(KEY, X))
