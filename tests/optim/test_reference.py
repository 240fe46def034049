"""`fdnn.optim` walks `torch.optim`'s trajectories. A new optimizer means a row in `CASES`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params

STEPS = 60
DOUBLE = [torch.float64, torch.complex128]
SHAPES = {"matrix": (3, 2), "vector": (4,), "scalar": (), "empty": (0, 3)}

Flags = dict[str, Any]


class Case(NamedTuple):
    """An optimizer and torch's.

    `grid` lists the values of each argument; the tests walk through every combination that
    `valid` admits. `drawn` says where Hypothesis looks for each number. `large` is a learning
    rate beside whose steps roundings are small, `roundings` how many of them a step has behind it.
    `half` says whether it may be compared in lower precision.
    """

    ours: Callable[..., GradientTransformation]
    theirs: type[torch.optim.Optimizer]
    grid: dict[str, list[Any]]
    drawn: dict[str, st.SearchStrategy[Any]]
    valid: Callable[[Flags], bool] = lambda flags: True
    dtypes: list[torch.dtype] = DOUBLE
    large: float = 0.3
    roundings: float = 1.0
    shapes: dict[str, tuple[int, ...]] = SHAPES
    drawn_shape: tuple[int, ...] = (3,)
    half: bool = True


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high)


def powers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(math.log10(low), math.log10(high)).map(lambda x: 10**x)


class Muon(torch.optim.Muon):
    """With the argument that torch's other optimizers have."""

    def __init__(self, params: Any, foreach: bool, **flags: Any):
        super().__init__(params, **flags)


ADAM_GRID = {
    "lr": [0.03],
    "betas": [(0.9, 0.999), (0.5, 0.6), (0.0, 0.9)],
    "eps": [1e-8, 0.1],
    "amsgrad": [False, True],
    "maximize": [False, True],
}
DECAY_GRID = {"weight_decay": [0.0, 0.1], "maximize": [False, True]}
DECAY_DRAWN = {"weight_decay": numbers(0.0, 0.5), "maximize": st.booleans()}
DECOUPLED_GRID = {
    "lr": [0.05],
    "betas": [(0.9, 0.999)],
    "eps": [1e-3],
    "weight_decay": [0.0, 0.1],
    "decoupled_weight_decay": [False, True],
    "maximize": [False, True],
}


def is_decayed(flags: Flags) -> bool:
    return flags["weight_decay"] > 0 or not flags["decoupled_weight_decay"]


ADAM_DRAWN = {
    "lr": powers(1e-3, 1.0),
    "betas": st.tuples(numbers(0.0, 0.99), numbers(0.0, 0.9999)),
    "eps": powers(1e-10, 1.0),
    "weight_decay": numbers(0.0, 0.5),
    "amsgrad": st.booleans(),
    "maximize": st.booleans(),
}
DECOUPLED_DRAWN = {
    **{name: values for name, values in ADAM_DRAWN.items() if name != "amsgrad"},
    "decoupled_weight_decay": st.booleans(),
}
CASES = {
    "sgd": Case(
        optim.sgd,
        torch.optim.SGD,
        {
            "lr": [0.03],
            "momentum": [0.0, 0.9],
            "dampening": [0.0, 0.4],
            "nesterov": [False, True],
            "weight_decay": [0.0, 0.1],
            "maximize": [False, True],
        },
        {
            "lr": powers(1e-3, 1.0),
            "momentum": numbers(0.0, 0.99),
            "dampening": numbers(-0.5, 1.0),
            "weight_decay": numbers(0.0, 0.5),
            "maximize": st.booleans(),
        },
        lambda flags: not flags["nesterov"] or (flags["momentum"] > 0 and flags["dampening"] == 0),
    ),
    "adadelta": Case(
        optim.adadelta,
        torch.optim.Adadelta,
        {"lr": [30.0], "rho": [0.9], "eps": [1e-6], **DECAY_GRID},
        {
            "lr": powers(1e-2, 10.0),
            "rho": numbers(0.0, 0.99),
            "eps": powers(1e-8, 1.0),
            **DECAY_DRAWN,
        },
        large=30.0,
    ),
    "adafactor": Case(
        optim.adafactor,
        torch.optim.Adafactor,
        {
            "lr": [0.03],
            "beta2_decay": [-0.8, -0.3],
            "eps": [(None, 1e-3), (0.1, 1.0)],
            "d": [1.0, 2.0],
            **DECAY_GRID,
        },
        {
            "lr": powers(1e-3, 1.0),
            "beta2_decay": numbers(-2.0, 0.0),
            "eps": st.tuples(st.none() | powers(1e-10, 1.0), powers(1e-4, 1.0)),
            "d": numbers(1.0, 3.0),
            **DECAY_DRAWN,
        },
        dtypes=[torch.float64],
        # torch divides by the number of elements, and so refuses an empty tensor.
        shapes={"matrix": (3, 2), "vector": (4,), "scalar": (), "order_3": (2, 3, 2)},
        drawn_shape=(3, 1),
    ),
    "adagrad": Case(
        optim.adagrad,
        torch.optim.Adagrad,
        {
            "lr": [0.2],
            "lr_decay": [0.0, 0.01],
            "initial_accumulator_value": [0.0, 0.3],
            "eps": [0.1],
            **DECAY_GRID,
        },
        {
            "lr": powers(1e-3, 1.0),
            "lr_decay": numbers(0.0, 1.0),
            "initial_accumulator_value": numbers(0.0, 2.0),
            "eps": powers(1e-10, 1.0),
            **DECAY_DRAWN,
        },
        lambda flags: (flags["lr_decay"] > 0) == (flags["initial_accumulator_value"] > 0),
    ),
    "adam": Case(
        optim.adam, torch.optim.Adam, {**ADAM_GRID, "weight_decay": [0.0, 0.1]}, ADAM_DRAWN
    ),
    "adam_decoupled": Case(
        optim.adam, torch.optim.Adam, DECOUPLED_GRID, DECOUPLED_DRAWN, is_decayed
    ),
    "adamax": Case(
        optim.adamax,
        torch.optim.Adamax,
        {"lr": [0.03], "betas": [(0.5, 0.9)], "eps": [0.1], **DECAY_GRID},
        {
            "lr": powers(1e-3, 1.0),
            "betas": ADAM_DRAWN["betas"],
            "eps": powers(1e-10, 1.0),
            **DECAY_DRAWN,
        },
    ),
    "adamw": Case(
        optim.adamw, torch.optim.AdamW, {**ADAM_GRID, "weight_decay": [0.0, 0.1]}, ADAM_DRAWN
    ),
    "asgd": Case(
        optim.asgd,
        torch.optim.ASGD,
        {
            "lr": [0.03],
            "lambd": [0.5],
            "alpha": [0.6],
            "t0": [1e6, 10],
            **DECAY_GRID,
        },
        {
            "lr": powers(1e-3, 1.0),
            "lambd": numbers(0.0, 0.5),
            "alpha": numbers(0.0, 2.0),
            "t0": numbers(0.0, 20.0),
            **DECAY_DRAWN,
        },
    ),
    "muon": Case(
        optim.muon,
        Muon,
        {
            "lr": [0.03],
            "weight_decay": [0.0, 0.1],
            "momentum": [0.95, 0.0],
            "nesterov": [True, False],
            "ns_coefficients": [(3.4445, -4.7750, 2.0315), (1.5, -0.5, 0.0)],
            "ns_steps": [5, 2],
            "adjust_lr_fn": [None, "match_rms_adamw"],
        },
        {
            "lr": powers(1e-3, 1.0),
            "weight_decay": numbers(0.0, 0.5),
            "momentum": numbers(0.0, 0.99),
            "nesterov": st.booleans(),
            "eps": powers(1e-7, 1.0),
            "ns_steps": st.integers(0, 6),
            "adjust_lr_fn": st.sampled_from([None, "original", "match_rms_adamw"]),
        },
        dtypes=[torch.float64],
        shapes={"wide": (2, 5), "tall": (4, 2), "empty": (0, 3)},
        drawn_shape=(3, 1),
        half=False,  # it rounds to bfloat16 inside: see test_preconditioned.py
    ),
    "nadam": Case(
        optim.nadam,
        torch.optim.NAdam,
        {**DECOUPLED_GRID, "momentum_decay": [0.5]},
        {**DECOUPLED_DRAWN, "momentum_decay": numbers(0.0, 2.0)},
        is_decayed,
    ),
    "radam": Case(
        optim.radam,
        torch.optim.RAdam,
        {**DECOUPLED_GRID, "betas": [(0.9, 0.999), (0.0, 0.6)]},
        DECOUPLED_DRAWN,
        is_decayed,
    ),
    "rmsprop": Case(
        optim.rmsprop,
        torch.optim.RMSprop,
        {
            "lr": [0.03],
            "alpha": [0.9],
            "eps": [0.1],
            "momentum": [0.0, 0.9],
            "centered": [False, True],
            **DECAY_GRID,
        },
        {
            "lr": powers(1e-3, 1.0),
            "alpha": numbers(0.9, 0.999),  # a smaller one makes the variance vanish by rounding
            "eps": powers(1e-6, 1.0),
            "momentum": numbers(0.0, 0.99),
            "centered": st.booleans(),
            **DECAY_DRAWN,
        },
    ),
    "rprop": Case(
        optim.rprop,
        torch.optim.Rprop,
        {
            "lr": [0.1],
            "etas": [(0.4, 1.3)],
            "step_sizes": [(1e-6, 50), (0.01, 0.2)],
            "maximize": [False, True],
        },
        {
            "lr": powers(1e-3, 1.0),
            "etas": st.tuples(numbers(0.1, 0.9), numbers(1.1, 2.0)),
            "step_sizes": st.tuples(powers(1e-6, 1e-2), powers(0.1, 50.0)),
            "maximize": st.booleans(),
        },
        roundings=math.sqrt(STEPS),  # a step size is the product of all factors so far
    ),
}


def combinations(case: Case) -> list[Flags]:
    every = itertools.product(*case.grid.values())
    return [f for values in every if case.valid(f := dict(zip(case.grid, values, strict=True)))]


def spelled(flags: Flags) -> str:
    return " ".join(f"{name}={value}" for name, value in flags.items())


GRID = [
    pytest.param(case, flags, id=f"{name} {spelled(flags)}")
    for name, case in CASES.items()
    for flags in combinations(case)
]
# The defaults, and the grid's first and last combinations: everything off, everything on.
FEW = [
    pytest.param(case, flags, id=f"{name} {spelled(flags)}")
    for name, case in CASES.items()
    for flags in ({}, combinations(case)[0], combinations(case)[-1])
    if case.half
]


def start(case: Case, dtypes: list[torch.dtype]) -> Params:
    """Parameters of every shape in every dtype."""
    generator = torch.Generator().manual_seed(0)
    return {
        f"{shape} {dtype}": torch.randn(size, generator=generator, dtype=torch.complex128).to(dtype)
        if dtype.is_complex
        else torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
        for shape, size in case.shapes.items()
        for dtype in dtypes
    }


def reals(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def flat(params: Params) -> Tensor:
    return torch.cat([reals(x.detach()).flatten().double() for x in params.values()])


def noise(x: Tensor, t: int) -> Tensor:
    """What minibatches add: it changes sign, and it fades, so that running maxima matter."""
    place = torch.arange(1, reals(x).numel() + 1, dtype=torch.float64).reshape(reals(x).shape)
    values = torch.cos(place * t + place**2) * (0.3 + 3 / (1 + t))
    return (torch.view_as_complex(values) if x.is_complex() else values).to(x.dtype)


def slope(x: Tensor, t: int) -> Tensor:
    """The gradient of a function that is not quadratic, sum(log(1 + x^2) + cos(2x)/9), and noise.

    On complex numbers it acts on the parts, as a real loss's gradient does.
    """
    parts = reals(x)
    slopes = 2 * parts / (1 + parts**2) - torch.sin(2 * parts) * (2 / 9)
    return (torch.view_as_complex(slopes) if x.is_complex() else slopes) + noise(x, t)


Gradient = Callable[[Tensor, int], Tensor]


def walk_ours(
    case: Case, flags: Flags, params: Params, gradient: Gradient, steps: int
) -> tuple[Tensor, Any]:
    tx = case.ours(**flags)
    state, path = tx.init(params), [flat(params)]
    for t in range(steps):
        grads = {name: gradient(x, t) for name, x in params.items()}
        params, state = optim.step(tx, params, grads, state)
        path.append(flat(params))
    return torch.stack(path), state


def walk_theirs(
    case: Case, flags: Flags, params: Params, gradient: Gradient, steps: int
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    leaves = {name: x.clone().requires_grad_() for name, x in params.items()}
    # torch keeps the scalars of NAdam and ASGD in the default dtype.
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return _walk_theirs(case, flags, leaves, gradient, steps)
    finally:
        torch.set_default_dtype(default)


def _walk_theirs(
    case: Case, flags: Flags, leaves: Params, gradient: Gradient, steps: int
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    optimizer = case.theirs(leaves.values(), foreach=False, **flags)
    path = [flat(leaves)]
    for t in range(steps):
        for x in leaves.values():
            x.grad = gradient(x.detach(), t)
        optimizer.step()
        path.append(flat(leaves))
    return torch.stack(path), {name: optimizer.state[x] for name, x in leaves.items()}


def gaps(ours: Tensor, theirs: Tensor) -> Tensor:
    return torch.linalg.vector_norm(ours - theirs, dim=1)


def distances(path: Tensor) -> Tensor:
    """The farthest from the start point so far."""
    return torch.linalg.vector_norm(path - path[0], dim=1).cummax(0).values


def lengths(path: Tensor) -> Tensor:
    steps = torch.linalg.vector_norm(path.diff(dim=0), dim=1)
    return torch.cat([torch.zeros(1, dtype=path.dtype), steps.cumsum(0)])


@pytest.mark.parametrize(("case", "flags"), GRID)
def test_float64(case: Case, flags: Flags) -> None:
    params = start(case, case.dtypes)
    ours, state = walk_ours(case, flags, params, slope, STEPS)
    theirs, torch_state = walk_theirs(case, flags, params, slope, STEPS)
    assert distances(theirs)[-1] > 1
    assert (gaps(ours, theirs) <= 1e-12 * distances(theirs)).all()

    # The slots are torch's too, by name and value.
    for name, their_slots in torch_state.items():
        their_slots = {slot: x for slot, x in their_slots.items() if slot != "step"}
        own = {slot for slot, x in state.slots.items() if isinstance(x, Tensor) or name in x}
        assert own == set(their_slots)
        for slot, x in their_slots.items():
            found = state.slots[slot]  # a scalar serves all leaves
            found = found if isinstance(found, Tensor) else found[name]
            torch.testing.assert_close(found, x, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("case", "flags"), FEW)
def test_low_precision(case: Case, flags: Flags, dtype: torch.dtype) -> None:
    """As exact as one rounding a step allows, and with torch as far as torch is exact.

    Rounding moves the position by up to half an eps a step, and independent roundings of t steps
    add up to sqrt(t) of them; what a step loses is proportional to its length. In bfloat16 torch
    rounds after every operation and fdnn only what it stores: torch's decoupled decay, for
    example, is lost where `lr * weight_decay` is below half an eps, and fdnn's is not. Hence the
    wider bound on the distance between the two. The gradients are given: fed back, they would
    amplify the differences. The learning rate is large, so that roundings are small beside it.
    """
    params, flags = start(case, [dtype]), {**flags, "lr": case.large}

    def rounded_noise(x: Tensor, t: int) -> Tensor:
        return noise(x.to(dtype), t).to(x.dtype)

    doubled = tree.cast(params, torch.float64)
    ours, _ = walk_ours(case, flags, params, rounded_noise, STEPS)
    theirs, _ = walk_theirs(case, flags, params, rounded_noise, STEPS)
    exact, _ = walk_theirs(case, flags, doubled, rounded_noise, STEPS)

    position = torch.linalg.vector_norm(exact, dim=1).cummax(0).values
    roots = torch.arange(STEPS + 1).sqrt()
    bound = torch.finfo(dtype).eps * (position * roots / 2 + case.roundings * lengths(exact))
    resolution = torch.finfo(dtype).eps * distances(exact)[-1]
    assert bound[-1] < 25 * case.roundings * resolution
    assert (gaps(ours, exact) <= bound).all()
    assert (gaps(ours, theirs) <= 3 * bound).all()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@given(data=st.data())
def test_drawn(case: Case, data: st.DataObject) -> None:
    """Any hyperparameters, any sequence of gradients."""
    flags = {name: data.draw(values, label=name) for name, values in case.drawn.items()}
    gradients = data.draw(
        st.lists(
            st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3),
            min_size=1,
            max_size=20,
        )
    )
    place = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64)
    params = {"w": place.reshape(case.drawn_shape)}

    def given_gradient(x: Tensor, t: int) -> Tensor:
        return torch.tensor(gradients[t], dtype=torch.float64).reshape(x.shape)

    ours, _ = walk_ours(case, flags, params, given_gradient, len(gradients))
    theirs, _ = walk_theirs(case, flags, params, given_gradient, len(gradients))
    eps = torch.finfo(torch.float64).eps
    assert (gaps(ours, theirs) <= 1e-12 * lengths(theirs) + len(gradients) * eps).all()


def test_adam_without_a_mean_forgets_at_once() -> None:
    """As torch's does: with beta1 = 0 nothing of a huge gradient is left a step later."""
    params = {"w": torch.zeros(1)}
    tx = optim.adam(betas=(0.0, 0.9))
    state = tx.init(params)
    for size in (1e6, 1e-3):
        grads = {"w": torch.tensor([size])}
        _, state = tx.update(grads, state)
    assert torch.equal(state.slots["exp_avg"]["w"], grads["w"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128], ids=str)
@given(
    data=st.data(),
    max_norm=st.floats(0.0, 100.0),
    sizes=st.lists(st.sampled_from(list(SHAPES.values())), max_size=4),
)
def test_clip_by_global_norm(
    dtype: torch.dtype, data: st.DataObject, max_norm: float, sizes: list[tuple[int, ...]]
) -> None:
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny

    def draw(size: tuple[int, ...]) -> Tensor:
        count = math.prod(size) * (2 if dtype.is_complex else 1)
        numbers = data.draw(st.lists(st.floats(-50, 50), min_size=count, max_size=count))
        values = torch.tensor(numbers, dtype=torch.float64)
        return (
            torch.view_as_complex(values.reshape(*size, 2))
            if dtype.is_complex
            else values.reshape(size)
        ).to(dtype)

    grads = {str(i): draw(size) for i, size in enumerate(sizes)}
    tx = optim.clip_by_global_norm(max_norm)
    ours, state = tx.update(grads, tx.init(grads))

    leaves = [g.clone() for g in grads.values()]
    for leaf in leaves:
        leaf.grad = leaf.clone()
    norm = torch.nn.utils.clip_grad_norm_(leaves, max_norm, foreach=False)
    torch.testing.assert_close(
        state.diagnostics["grad_norm"], norm.float(), rtol=1e-6, atol=0.0, check_dtype=False
    )
    for mine, leaf in zip(ours.values(), leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad, rtol=8 * eps, atol=tiny)


def test_clip_by_global_norm_in_bfloat16() -> None:
    """torch rounds the norm and the factor to bfloat16, fdnn only the result."""
    grads = {"w": torch.linspace(-2, 3, 20).bfloat16(), "s": torch.tensor(0.7).bfloat16()}
    tx = optim.clip_by_global_norm(1.0)
    ours, state = tx.update(grads, tx.init(grads))
    leaves = [g.clone() for g in grads.values()]
    for leaf in leaves:
        leaf.grad = leaf.clone()
    torch.nn.utils.clip_grad_norm_(leaves, 1.0)
    for mine, leaf in zip(ours.values(), leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad, rtol=3 * 2**-8, atol=0.0)
    exact = torch.cat([g.double().flatten() for g in grads.values()]).norm()
    assert state.diagnostics["grad_norm"].item() == pytest.approx(exact.item(), rel=1e-6)
