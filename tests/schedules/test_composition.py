"""Products, sequences, and schedules that count epochs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import lr_scheduler

from fdnn import schedules
from fdnn.schedules import Schedule

LR = 0.3

# A schedule of a base rate beside torch's scheduler; all multiply the rate by a factor.
FACTORS: dict[str, tuple[Any, Any]] = {
    "constant": (
        lambda lr: schedules.constant(lr, 0.5, 4),
        lambda opt: lr_scheduler.ConstantLR(opt, 0.5, 4),
    ),
    "linear": (
        lambda lr: schedules.linear(lr, 0.1, 0.9, 6),
        lambda opt: lr_scheduler.LinearLR(opt, 0.1, 0.9, 6),
    ),
    "exponential": (
        lambda lr: schedules.exponential(lr, 0.9),
        lambda opt: lr_scheduler.ExponentialLR(opt, 0.9),
    ),
    "step": (
        lambda lr: schedules.step(lr, 3, 0.5),
        lambda opt: lr_scheduler.StepLR(opt, 3, 0.5),
    ),
    "multi_step": (
        lambda lr: schedules.multi_step(lr, [2, 7], 0.5),
        lambda opt: lr_scheduler.MultiStepLR(opt, [2, 7], 0.5),
    ),
    "polynomial": (
        lambda lr: schedules.polynomial(lr, 25, 2.0),
        lambda opt: lr_scheduler.PolynomialLR(opt, 25, 2.0),
    ),
    "cosine": (
        lambda lr: schedules.cosine_annealing(lr, 25),
        lambda opt: lr_scheduler.CosineAnnealingLR(opt, 25),
    ),
    "multiplicative": (
        lambda lr: schedules.multiplicative(lr, lambda i: 1 - 1 / (i + 5), 40),
        lambda opt: lr_scheduler.MultiplicativeLR(opt, lambda i: 1 - 1 / (i + 5)),
    ),
}
some = st.lists(st.sampled_from(sorted(FACTORS)), min_size=1, max_size=3)


@given(names=some)
def test_chained_is_torchs(compare: Any, names: list[str]) -> None:
    first, *rest = [FACTORS[name][0] for name in names]
    compare(
        schedules.chained([first(LR), *[make(1.0) for make in rest]]),
        lambda opt: lr_scheduler.ChainedScheduler([FACTORS[name][1](opt) for name in names]),
        LR,
        steps=20,
    )


@given(names=some.filter(lambda names: "multiplicative" not in names), gaps=st.data())
def test_sequential_is_torchs(compare: Any, names: list[str], gaps: st.DataObject) -> None:
    lengths = gaps.draw(st.lists(st.integers(1, 9), min_size=len(names), max_size=len(names)))
    milestones = [sum(lengths[: i + 1]) for i in range(len(names) - 1)]
    compare(
        schedules.sequential([FACTORS[name][0](LR) for name in names], milestones),
        lambda opt: lr_scheduler.SequentialLR(
            opt, [FACTORS[name][1](opt) for name in names], milestones
        ),
        LR,
        steps=20,
    )


@given(names=some, count=st.integers(0, 30))
def test_a_product_has_no_order(names: list[str], count: int) -> None:
    parts = [FACTORS[name][0](0.7) for name in names]
    forth, back = schedules.chained(parts)(count), schedules.chained(parts[::-1])(count)
    wanted = math.prod(part(count).item() for part in parts)
    assert forth.item() == pytest.approx(wanted, rel=1e-14)
    assert back.item() == pytest.approx(wanted, rel=1e-14)


def test_multiplication() -> None:
    halving = schedules.exponential(1.0, 0.5)
    for product in (
        halving * 3.0,
        3 * halving,
        torch.tensor(3.0) * halving,
        halving * torch.tensor(3.0),
        halving * (lambda count: 3.0),
    ):
        assert isinstance(product, Schedule)
        assert product(2).item() == 0.75
    assert (halving * halving)(1).item() == 0.25
    for wrong in ("3", None, torch.ones(2)):
        with pytest.raises(TypeError):
            halving * wrong
    with pytest.raises(TypeError):
        "3" * halving  # type: ignore[operator]


def test_lengths_of_products() -> None:
    cycle, other = schedules.one_cycle(0.1, 30), schedules.one_cycle(0.1, 40)
    assert (cycle * 2.0 * schedules.exponential(1.0, 0.9)).total_steps == 30
    assert (cycle * cycle).total_steps == 30
    assert (schedules.constant(1.0) * 2).total_steps is None
    with pytest.raises(ValueError, match=r"must have one length, got \[30, 40\]"):
        cycle * other
    with pytest.raises(ValueError, match="`count` must be below 30"):
        (cycle * 2.0)(30)
    with pytest.raises(ValueError, match="at least one schedule is needed"):
        schedules.chained([])


def test_sequential_of_numbers_and_finite_schedules() -> None:
    schedule = schedules.sequential([0.5, schedules.one_cycle(0.1, 20), 0.2], [5, 25])
    assert schedule.total_steps is None
    rates = schedule(torch.arange(30))
    assert torch.equal(rates[5:25], schedules.one_cycle(0.1, 20)(torch.arange(20)))
    assert rates[4].item() == 0.5 and rates[25].item() == 0.2
    last = schedules.sequential([0.5, schedules.one_cycle(0.1, 20)], [5])
    assert last.total_steps == 25
    assert last(24) == schedules.one_cycle(0.1, 20)(19)
    with pytest.raises(ValueError, match="`count` must be below 25"):
        last(25)


def test_a_finite_schedule_fills_its_span() -> None:
    message = r"`schedules\[1\]` must be endless or 10 steps long, .* from 5 to 15 is, got 20 steps"
    with pytest.raises(ValueError, match=message):
        schedules.sequential([0.5, schedules.one_cycle(0.1, 20), 0.2], [5, 15])


@pytest.mark.parametrize("count", [0, 3, 4, 9])
def test_what_is_not_chosen_does_not_poison_gradients(count: int) -> None:
    """The polynomial is at 0 from 3 on, where a power of it has no finite derivative."""

    def value(lr: Tensor, power: Tensor) -> Tensor:
        falls = schedules.polynomial(lr, 3, power)
        return schedules.sequential([falls, schedules.power(lr, 3.0, power)], [4])(count)

    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.3, 0.5)]
    assert torch.autograd.gradcheck(value, inputs)


@given(steps=st.integers(1, 10), gamma=st.floats(0.5, 1.0))
def test_per_epoch(steps: int, gamma: float) -> None:
    """torch's scheduler, stepped after each epoch."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=LR)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma)
    schedule, used = schedules.per_epoch(schedules.exponential(LR, gamma), steps), []
    for _ in range(4):
        for _ in range(steps):
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
        scheduler.step()
    torch.testing.assert_close(
        schedule(torch.arange(4 * steps)),
        torch.tensor(used, dtype=torch.float64),
        rtol=1e-12,
        atol=0,
    )


def test_per_epoch_of_a_finite_schedule() -> None:
    """OneCycleLR sized in steps but stepped once an epoch hardly moves; here it is one or other."""
    assert schedules.per_epoch(schedules.one_cycle(0.1, 60), 352).total_steps == 60 * 352
    with pytest.raises(ValueError, match="`steps_per_epoch` must be an int, at least 1"):
        schedules.per_epoch(0.1, 0)


@pytest.mark.parametrize(
    ("parts", "milestones", "message"),
    [
        ([0.1], [3], "`schedules` must be one more than the 1 milestones, got 1"),
        ([0.1, 0.2, 0.3], [3, 3], "`milestones` must be rising ints above 0"),
        ([0.1, 0.2], [0], "`milestones` must be rising ints above 0"),
    ],
)
def test_errors(parts: list[float], milestones: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedules.sequential(parts, milestones)
