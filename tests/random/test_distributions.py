"""Draws follow their distributions: fixed seeds, and gates counted in standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from fdnn import random

KEY = random.key(1)
COUNT = 100_000
GATE = 5.0  # standard errors: a right answer fails once in two million
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# Half the spacing of the numbers that are drawn, as a share of the range.
GRAIN = {torch.float64: 2**-53, torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8}


def normal_cdf(x: Tensor) -> Tensor:
    return torch.special.ndtr(x)


def truncated_cdf(x: Tensor, low: float, high: float) -> Tensor:
    a, b = normal_cdf(torch.tensor([low, high], dtype=torch.float64))
    return (normal_cdf(x) - a) / (b - a)


def within(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda x: truncated_cdf(x, low, high)


def assert_distributed(x: Tensor, cdf: Callable[[Tensor], Tensor], slack: float = 0.0) -> None:
    """Kolmogorov and Smirnov: sqrt(n) sup|F_n - F| is above 3 once in 30 million."""
    below = cdf(x.double().flatten().sort().values)
    step = torch.arange(len(below) + 1, dtype=torch.float64) / len(below)
    gap = torch.maximum((below - step[:-1]).abs().max(), (below - step[1:]).abs().max())
    assert gap.item() < 3 / math.sqrt(len(below)) + slack


def assert_moments(x: Tensor, mean: float, variance: float, fourth: float) -> None:
    """Mean and variance within their standard errors; `fourth` is the fourth central moment."""
    x, n = x.double().flatten(), x.numel()
    assert abs(x.mean().item() - mean) < GATE * math.sqrt(variance / n)
    found = (x - mean).square().mean().item()
    assert abs(found - variance) < GATE * math.sqrt((fourth - variance**2) / n)


def assert_frequencies(counts: Tensor, probabilities: Tensor) -> None:
    """Each count within its binomial standard error, and all of them by chi-square."""
    n, p = counts.sum(), probabilities.double()
    assert (counts[p == 0] == 0).all()
    counts, p = counts[p > 0].double(), p[p > 0]
    assert ((counts - n * p).abs() <= GATE * (n * p * (1 - p)).sqrt()).all()
    freedom = len(p) - 1
    chi_square = ((counts - n * p).square() / (n * p)).sum().item()
    assert abs(chi_square - freedom) <= GATE * math.sqrt(2 * freedom) + GATE**2


# name: draw, distribution function, mean, variance, fourth central moment
EULER = 0.5772156649015329
CONTINUOUS: dict[str, tuple[Callable, Callable, tuple[float, float, float]]] = {
    "uniform": (random.uniform, lambda x: x, (1 / 2, 1 / 12, 1 / 80)),
    "uniform_between": (
        lambda key, shape: random.uniform(key, shape, torch.float32, -3.0, 1.0),
        lambda x: (x + 3) / 4,
        (-1.0, 4**2 / 12, 4**4 / 80),
    ),
    "normal": (random.normal, normal_cdf, (0.0, 1.0, 3.0)),
    "exponential": (random.exponential, lambda x: 1 - torch.exp(-x), (1.0, 1.0, 9.0)),
    "gumbel": (
        random.gumbel,
        lambda x: torch.exp(-torch.exp(-x)),
        (EULER, math.pi**2 / 6, math.pi**4 * 3 / 20),
    ),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous(name: str) -> None:
    draw, cdf, moments = CONTINUOUS[name]
    assert_distributed(draw(KEY, (COUNT,)), cdf)
    assert_moments(draw(KEY, (COUNT,)), *moments)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_first_numbers_of_many_keys(name: str) -> None:
    """Keys that `split` made are as good as the counters of one key."""
    draw, cdf, moments = CONTINUOUS[name]
    drawn = vmap(lambda key: draw(key, ()))(random.split(KEY, COUNT))
    assert_distributed(drawn, cdf)
    assert_moments(drawn, *moments)


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_dtype(dtype: torch.dtype) -> None:
    # u is a whole multiple of a power of two in [0, 1): rounded down, hence the grain.
    u = random.uniform(KEY, (COUNT,), dtype)
    steps = u.double() / (2 * GRAIN[dtype])
    assert steps.equal(steps.round())
    assert u.min() >= 0 and u.max() < 1
    assert_distributed(u.double() + GRAIN[dtype], lambda x: x, GRAIN[dtype])
    x = random.normal(KEY, (COUNT,), dtype)
    assert x.isfinite().all()
    # Half the spacing of u in (-1, 1), and what rounding x moves of the density.
    assert_distributed(x, normal_cdf, 2 * GRAIN[dtype] + torch.finfo(dtype).eps / 4)


@pytest.mark.parametrize("dtype", FLOATS)
def test_narrow_floats_take_every_value_alike(dtype: torch.dtype) -> None:
    if dtype in (torch.float16, torch.bfloat16):
        values = round(0.5 / GRAIN[dtype])
        drawn = random.uniform(KEY, (COUNT,), dtype).double() * values
        counts = torch.bincount(drawn.long(), minlength=values)
        assert_frequencies(counts, torch.full((values,), 1 / values))
    else:
        assert random.uniform(KEY, (1000,), dtype).unique().numel() == 1000


@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (0.5, 1.0), (-3.0, -2.0), (-0.1, 3.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_truncated_normal(bounds: tuple[float, float], dtype: torch.dtype) -> None:
    x = random.truncated_normal(KEY, *bounds, (COUNT,), dtype)
    assert_distributed(x, within(*bounds))
    assert bounds[0] < x.min() and x.max() < bounds[1]


@pytest.mark.parametrize("dtype", FLOATS)
def test_truncated_normal_stays_inside_far_bounds(dtype: torch.dtype) -> None:
    # The erf of these bounds is all but 1: nearly every draw would round to one of them.
    low, high = torch.tensor([3.0, 3.25], dtype=dtype)
    x = random.truncated_normal(KEY, low, high, (1000,), dtype)
    assert ((low < x) & (x < high)).all()


def test_complex_normal() -> None:
    z = random.normal(KEY, (COUNT,), torch.complex128)
    for part in (z.real, z.imag):
        assert_distributed(part * math.sqrt(2), normal_cdf)
    assert abs((z.real * z.imag).mean().item()) < GATE * 0.5 / math.sqrt(COUNT)
    assert abs(z.abs().square().mean().item() - 1) < GATE / math.sqrt(COUNT)


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.3, 0.5, 0.999, 1.0])
def test_bernoulli(p: float) -> None:
    error = math.sqrt(p * (1 - p) / COUNT)
    for given in (p, torch.tensor(p, dtype=torch.float64)):
        share = random.bernoulli(KEY, given, (COUNT,)).double().mean().item()
        assert abs(share - p) <= GATE * error


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_randint(dtype: torch.dtype) -> None:
    drawn = random.randint(KEY, (COUNT,), -3, 10, dtype)
    assert_frequencies(torch.bincount(drawn.long() + 3, minlength=13), torch.full((13,), 1 / 13))
    assert drawn.min() == -3 and drawn.max() == 9


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_randint_of_the_whole_range(dtype: torch.dtype) -> None:
    info = torch.iinfo(dtype)
    drawn = random.randint(KEY, (COUNT,), info.min, info.max, dtype)
    fraction = drawn.double() / 2.0**info.bits + 0.5
    assert_distributed(fraction, lambda x: x)


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_every_bit_is_a_fair_coin(width: int) -> None:
    drawn = random.bits(KEY, (20_000,), getattr(torch, f"uint{width}"))
    signed = drawn.view(getattr(torch, f"int{width}")).to(torch.int64)
    ones = torch.stack([(signed >> place) & 1 for place in range(width)]).double()
    error = 0.5 / math.sqrt(20_000)
    assert ((ones.mean(1) - 0.5).abs() < GATE * error).all()
    # And no two of them go together.
    correlation = torch.corrcoef(ones).fill_diagonal_(0)
    assert correlation.abs().max() < (GATE + 1) * 2 * error


def test_streams_do_not_go_together() -> None:
    """Neighbouring seeds, counters and children of a key: every pair is uncorrelated."""
    seeds = vmap(random.key)(torch.arange(8))
    children = random.split(KEY, 8)
    grandchildren = vmap(random.fold_in, (None, 0))(children[0], torch.arange(8))
    keys = torch.cat([KEY[None], seeds[2:], children, grandchildren])
    u = vmap(lambda key: random.uniform(key, (20_000,), torch.float64))(keys)
    lagged = torch.cat([u[:, :-1], u[:1, 1:]])
    correlation = torch.corrcoef(lagged).fill_diagonal_(0)
    assert correlation.abs().max() < (GATE + 1) / math.sqrt(20_000)


@pytest.mark.parametrize("independent", [False, True])
def test_every_order_is_as_likely(independent: bool) -> None:
    keys = random.split(KEY, 24_000)
    x = torch.arange(4.0)[:, None].expand(4, 2)
    shuffled = vmap(lambda key: random.permutation(key, x, 0, independent))(keys).long()
    assert shuffled.sort(dim=1).values.equal(x.long().expand(len(keys), 4, 2))
    digits = torch.tensor([64, 16, 4, 1])
    for column in shuffled.unbind(-1):
        _, counts = (column * digits).sum(1).unique(return_counts=True)
        assert len(counts) == 24
        assert_frequencies(counts, torch.full((24,), 1 / 24))
    same = (shuffled[..., 0] == shuffled[..., 1]).all(1).double().mean().item()
    if independent:  # the two columns agree by chance alone
        assert abs(same - 1 / 24) < GATE * math.sqrt(1 / 24 * 23 / 24 / len(keys))
    else:
        assert same == 1


P = torch.tensor([0.1, 0.0, 0.6, 0.3])


def test_choice_with_replacement() -> None:
    drawn = random.choice(KEY, 4, (COUNT,), p=P)
    assert_frequencies(torch.bincount(drawn, minlength=4), P)
    drawn = random.choice(KEY, 7, (COUNT,))
    assert_frequencies(torch.bincount(drawn, minlength=7), torch.full((7,), 1 / 7))


def test_choice_without_replacement() -> None:
    keys = random.split(KEY, 20_000)
    first, second = vmap(lambda key: random.choice(key, 4, (2,), False, P))(keys).unbind(1)
    assert (first != second).all()
    # One after the other, each with what the earlier ones leave: p_i p_j / (1 - p_i).
    pairs = P[:, None] * P[None, :] / (1 - P[:, None])
    pairs = pairs.fill_diagonal_(0)
    assert_frequencies(torch.bincount(4 * first + second, minlength=16), pairs.flatten())
    plain = vmap(lambda key: random.choice(key, 5, (2,), False))(keys)
    assert (plain[:, 0] != plain[:, 1]).all()
    code = torch.bincount(5 * plain[:, 0] + plain[:, 1], minlength=25)
    assert_frequencies(code, (1 - torch.eye(5)).flatten() / 20)


def test_categorical() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, -math.inf], [2.0, 2.0, 2.0, 2.0]])
    drawn = random.categorical(KEY, logits, shape=(COUNT, 2))
    for column, p in zip(drawn.unbind(1), logits.double().softmax(-1), strict=True):
        assert_frequencies(torch.bincount(column, minlength=4), p)
