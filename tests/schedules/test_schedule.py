"""What every schedule promises. A new one means a row in `SCHEDULES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, vmap

from fdnn import schedules
from fdnn.schedules import Schedule


class Row(NamedTuple):
    """A schedule of hyperparameters, and values for them."""

    build: Callable[..., Schedule]
    values: tuple[float, ...]


SCHEDULES = {
    "constant": Row(lambda lr, f: schedules.constant(lr, f, 3), (0.3, 0.5)),
    "linear": Row(lambda lr, s, e: schedules.linear(lr, s, e, 7), (0.3, 0.2, 0.9)),
    "exponential": Row(schedules.exponential, (0.3, 0.9)),
    "step": Row(lambda lr, g: schedules.step(lr, 3, g), (0.3, 0.5)),
    "multi_step": Row(lambda lr, g: schedules.multi_step(lr, [2, 5], g), (0.3, 0.5)),
    "multiplicative": Row(
        lambda lr: schedules.multiplicative(lr, lambda i: 1 - 0.5 / i, 12), (0.3,)
    ),
    "multiplicative_factor": Row(
        lambda lr, g: schedules.multiplicative(lr, lambda i: g**i, 12), (0.3, 0.99)
    ),
    "lambda_": Row(lambda lr, g: schedules.lambda_(lr, lambda n: g ** (n // 2)), (0.3, 0.9)),
    "polynomial": Row(lambda lr, p: schedules.polynomial(lr, 7, p), (0.3, 1.5)),
    "power": Row(schedules.power, (0.3, 4.0, 0.7)),
    "inverse_sqrt": Row(schedules.inverse_sqrt, (0.3, 4.5)),
    "piecewise": Row(lambda *v: schedules.piecewise(v, [3, 8]), (0.3, 0.2, 0.1)),
    "piecewise_cos": Row(lambda *v: schedules.piecewise(v, [3, 8], "cos"), (0.3, 0.2, 0.1)),
    "cosine_annealing": Row(lambda lr, m: schedules.cosine_annealing(lr, 7, m), (0.3, 0.01)),
    "warm_restarts": Row(
        lambda lr, m: schedules.cosine_annealing_warm_restarts(lr, 2, 2, m), (0.3, 0.01)
    ),
    "warm_restarts_1": Row(
        lambda lr, m: schedules.cosine_annealing_warm_restarts(lr, 3, 1, m), (0.3, 0.01)
    ),
    "swa": Row(
        lambda lr, end: schedules.swa(schedules.exponential(lr, 0.9), end, 3, "cos", 4), (0.3, 0.2)
    ),
    "one_cycle": Row(
        lambda lr, d, f: schedules.one_cycle(lr, 12, 0.3, "cos", d, f), (0.3, 5.0, 100.0)
    ),
    "one_cycle_three": Row(
        lambda lr, p: schedules.one_cycle(lr, 12, p, "linear", three_phase=True), (0.3, 0.41)
    ),
    "one_cycle_momentum": Row(
        lambda low, high: schedules.one_cycle_momentum(12, 0.3, "cos", low, high), (0.8, 0.95)
    ),
    "cyclic": Row(lambda low, high: schedules.cyclic(low, high, 3, 2, "triangular2"), (0.1, 0.3)),
    "cyclic_exp": Row(
        lambda low, high, g: schedules.cyclic(low, high, 3, 2, "exp_range", g), (0.1, 0.3, 0.9)
    ),
    "cyclic_momentum": Row(lambda low, high: schedules.cyclic_momentum(low, high, 3), (0.8, 0.9)),
    "sequential": Row(
        lambda lr, g: schedules.sequential([lr, schedules.exponential(lr, g)], [4]), (0.3, 0.9)
    ),
    "chained": Row(
        lambda lr, g: schedules.chained([lr, schedules.exponential(1.0, g)]), (0.3, 0.9)
    ),
    "product": Row(
        lambda lr, g: 0.5 * schedules.step(2.0, 3, g) * schedules.linear(lr), (0.3, 0.9)
    ),
    "per_epoch": Row(lambda lr, g: schedules.per_epoch(schedules.step(lr, 2, g), 2), (0.3, 0.5)),
    "warmup": Row(lambda lr, s: schedules.warmup(schedules.exponential(lr, 0.9), 5, s), (0.3, 0.1)),
    "warmup_stable_decay": Row(
        lambda lr, s, e: schedules.warmup_stable_decay(lr, 3, 4, 5, s, e, "1-sqrt"), (0.3, 0.1, 0.2)
    ),
}
COUNTS = 12
every_schedule = pytest.mark.parametrize("row", SCHEDULES.values(), ids=SCHEDULES)


def tensors(values: tuple[float, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.tensor(value, dtype=dtype) for value in values]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-15)


def test_every_schedule_has_a_row() -> None:
    left = set(schedules.__all__) - {"Plateau", "PlateauState", "Schedule", "plot"}
    assert left - {"reduce_on_plateau", "cosine_annealing_warm_restarts"} <= set(SCHEDULES)


@every_schedule
def test_one_form_of_result(row: Row) -> None:
    """Ints, integer tensors, lanes of counts and vectors give the same float64 numbers."""
    schedule = row.build(*row.values)
    wanted = torch.stack([schedule(count) for count in range(COUNTS)])
    assert wanted.dtype == torch.float64 and wanted.shape == (COUNTS,)
    assert isinstance(schedule, Schedule)
    for dtype in (torch.int64, torch.int32, torch.float64):
        counts = torch.arange(COUNTS, dtype=dtype)
        close(torch.stack([schedule(count) for count in counts]), wanted)
        close(vmap(schedule)(counts), wanted)
        close(schedule(counts), wanted)
    assert len(wanted.unique()) > 1


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_lanes_of_hyperparameters(row: Row, dtype: torch.dtype) -> None:
    """A sweep: lane i is the schedule of value i, as exact as if it were a Python number."""
    lanes = [torch.stack([x, x * 0.9, x * 0.95]) for x in tensors(row.values, dtype)]

    def value(count: Tensor, *values: Tensor) -> Tensor:
        return row.build(*values)(count)

    in_dims = (None, *[0] * len(lanes))
    for count in (0, 3, 5, 11):
        found = vmap(value, in_dims)(torch.tensor(count), *lanes)
        wanted = [row.build(*[x[i].item() for x in lanes])(count) for i in range(3)]
        assert found.dtype == torch.float64
        # Between float32 hyperparameters (max_lr / div_factor) arithmetic rounds as float32 does.
        rtol, atol = (1e-13, 1e-15) if dtype == torch.float64 else (1e-6, 1e-8)
        torch.testing.assert_close(found, torch.stack(wanted), rtol=rtol, atol=atol)


@every_schedule
def test_differentiable(row: Row) -> None:
    counts = torch.arange(COUNTS)
    inputs = [x.requires_grad_() for x in tensors(row.values)]
    assert torch.autograd.gradcheck(lambda *values: row.build(*values)(counts), inputs)
    lanes = [x.detach().expand(COUNTS) for x in inputs]

    def value(count: Tensor, *values: Tensor) -> Tensor:
        return row.build(*values)(count)

    slopes = vmap(torch.func.grad(value, argnums=tuple(range(1, len(lanes) + 1))))(counts, *lanes)
    by_hand = torch.autograd.functional.jacobian(
        lambda *values: row.build(*values)(counts), tuple(x.detach() for x in inputs)
    )
    for found, wanted in zip(slopes, by_hand, strict=True):
        close(found, wanted)


def test_compiled_equals_eager() -> None:
    """By inductor, those with unusual operations; the contract tests trace every schedule."""
    names = ["one_cycle", "multiplicative"]

    def all_of_them(count: Tensor, values: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        return {name: SCHEDULES[name].build(*values[name])(count) for name in names}

    values, counts = {name: tensors(SCHEDULES[name].values) for name in names}, torch.arange(COUNTS)
    fn = vmap(all_of_them, in_dims=(0, None))
    compiled = torch.compile(fn, fullgraph=True, dynamic=False)(counts, values)
    for name, found in compiled.items():
        close(found, fn(counts, values)[name])


@given(length=st.integers(1, 50), count=st.integers(-5, 60))
def test_length_is_guarded_where_the_count_is_known(length: int, count: int) -> None:
    schedule = Schedule(lambda n: n + 1, total_steps=length)
    inside = 0 <= count < length
    for known in (count, torch.tensor(count), torch.tensor([0, count])):
        if inside:
            assert schedule(known).max().item() == count + 1
        else:
            with pytest.raises(ValueError, match=f"`count` must be .* got {count}"):
                schedule(known)
    if count >= 0:
        unknown = vmap(schedule)(torch.tensor([count]))
        assert unknown.item() == min(count, length - 1) + 1


def test_compiled_beyond_its_length_keeps_the_last_value() -> None:
    compiled = torch.compile(schedules.one_cycle(0.1, 5), fullgraph=True, backend="aot_eager")
    assert compiled(torch.tensor(9)) == schedules.one_cycle(0.1, 5)(4)


def test_fractional_counts() -> None:
    """An epoch and a half, of a schedule that counts epochs."""
    assert schedules.cosine_annealing(1.0, 3)(1.5).item() == pytest.approx(0.5)
    assert schedules.exponential(1.0, 0.5)(0.1).item() == pytest.approx(0.5**0.1, rel=1e-14)
