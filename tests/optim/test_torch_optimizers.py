"""What is special about torch's optimizers: the edges at which implementations go wrong."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import grad, vmap

from fdnn import optim, tree
from fdnn.types import GradientTransformation

THEIRS = {
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "asgd": torch.optim.ASGD,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "rprop": torch.optim.Rprop,
    "sgd": torch.optim.SGD,
}
KERNELS = {"params", "foreach", "capturable", "differentiable", "fused"}
ADAMS = ["adagrad", "adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "adadelta"]
every_optimizer = pytest.mark.parametrize("name", THEIRS)


def one(value: float, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {"w": torch.tensor([value], dtype=dtype)}


def moves(tx: GradientTransformation, gradients: list[float]) -> list[float]:
    """What one parameter is moved by, step by step."""
    params, state, moved = one(0.0), tx.init(one(0.0)), []
    for g in gradients:
        updates, state = tx.update(one(g), state, params)
        params = optim.apply_updates(params, updates)
        moved.append(updates["w"].item())
    return moved


@every_optimizer
def test_arguments_and_defaults_are_those_of_torch(name: str) -> None:
    ours = inspect.signature(getattr(optim, name)).parameters
    theirs = inspect.signature(THEIRS[name]).parameters
    wanted = {n: p.default for n, p in theirs.items() if n not in KERNELS}
    assert {n: p.default for n, p in ours.items()} == wanted
    by_place = [n for n, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert by_place == [n for n in wanted if n in by_place]


@every_optimizer
def test_numbers_are_hyperparameters_by_name(name: str) -> None:
    spread = {
        "betas": ("beta1", "beta2"),
        "etas": ("eta_minus", "eta_plus"),
        "step_sizes": ("step_size_min", "step_size_max"),
    }
    numbers = {"weight_decay": 0.1, "momentum": 0.1} if name in ("sgd", "rmsprop") else {}
    if name not in ("rprop", "sgd", "rmsprop"):
        numbers = {"weight_decay": 0.1}
    tx = getattr(optim, name)(**numbers)
    parameters = inspect.signature(getattr(optim, name)).parameters.values()
    wanted = [p.name for p in parameters if not isinstance(p.default, bool)]
    flat = {n for each in wanted for n in spread.get(each, (each,))}
    flat.discard("initial_accumulator_value")  # which fills a slot, once
    assert set(tx.init(one(0.0)).hyperparams) == flat


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optim.adadelta(rho=1.5), r"`rho` must be in \[0, 1\), got 1.5"),
        (lambda: optim.adadelta(eps=-1), "`eps` must be at least 0, got -1"),
        (lambda: optim.adagrad(lr_decay=-0.1), "`lr_decay` must be at least 0, got -0.1"),
        (
            lambda: optim.adagrad(initial_accumulator_value=-2),
            "`initial_accumulator_value` must be at least 0, got -2",
        ),
        (lambda: optim.adamax(betas=(0.9, 1.0)), r"`beta2` must be in \[0, 1\), got 1.0"),
        (lambda: optim.asgd(lr=-1), "`lr` must be at least 0, got -1"),
        (lambda: optim.nadam(momentum_decay=-1), "`momentum_decay` must be at least 0, got -1"),
        (lambda: optim.radam(betas=(-0.1, 0.9)), r"`beta1` must be in \[0, 1\), got -0.1"),
        (lambda: optim.rmsprop(alpha=1.2), r"`alpha` must be in \[0, 1\), got 1.2"),
        (lambda: optim.rmsprop(momentum=1.2), r"`momentum` must be in \[0, 1\), got 1.2"),
        (lambda: optim.rprop(etas=(0.5, 0.9)), r"`eta_plus` must be at least 1, got 0.9"),
        (lambda: optim.rprop(etas=(0.0, 1.2)), r"`etas` must be .*, got \(0.0, 1.2\)"),
        (lambda: optim.rprop(etas=(0.5, 1)), r"`etas` must be .*, got \(0.5, 1\)"),
    ],
)
def test_values_are_checked(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@every_optimizer
def test_sparse_gradients_are_refused_by_path(name: str) -> None:
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 1])).sum().backward()
    params = {"body": {"w": torch.ones(2)}, "words": embedding.weight.detach()}
    grads = {"body": {"w": torch.ones(2)}, "words": embedding.weight.grad}
    tx = getattr(optim, name)()
    message = r"`grads` must be dense, got \{'words': 'torch.sparse_coo'\}; .*to_dense"
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(params), params)
    with pytest.raises(ValueError, match=message):
        optim.step(tx, params, grads, tx.init(params))


@pytest.mark.parametrize("eps", [None, 0.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ADAMS)
def test_no_gradient_is_no_nan(name: str, dtype: torch.dtype, eps: float | None) -> None:
    """In float16 an epsilon of 1e-8 is 0, and so is the square of 1e-4 (optax's #1755)."""
    tx = getattr(optim, name)(lr=0.1, **({} if eps is None else {"eps": eps}))
    params = {"w": torch.tensor([1.0, -2.0], dtype=dtype)}
    state = tx.init(params)
    for _ in range(8):
        grads = {"w": torch.tensor([0.0, 1e-4], dtype=dtype)}
        updates, state = tx.update(grads, state, tree.zeros_like(params))
        assert updates["w"][0] == 0
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves((updates, state)))


def test_rprop_is_not_stale() -> None:
    """As worked out by hand; optax's first step was 0 and each later one a step late (#1725)."""
    tx = optim.rprop(lr=0.1, etas=(0.5, 1.2))
    wanted = [-0.1, -0.12, -0.144, 0.0, 0.072, 0.0864]
    assert moves(tx, [2.0, 0.1, 5.0, -1.0, -3.0, -0.2]) == pytest.approx(wanted, rel=1e-12)


def test_rprop_keeps_step_sizes_within_their_range() -> None:
    tx = optim.rprop(lr=0.1, step_sizes=(0.06, 0.13))
    wanted = [-0.1, -0.12, -0.13, -0.13, 0.0, 0.065, 0.0, -0.06]
    assert moves(tx, [1, 1, 1, 1, -1, -1, 1, 1]) == pytest.approx(wanted, rel=1e-12)
    assert moves(optim.rprop(lr=9.0, step_sizes=(0.0, 0.5)), [1.0]) == [-0.5]


@given(power=st.integers(-120, -80))
def test_rprop_sees_the_signs_of_tiny_gradients(power: int) -> None:
    """Their product is 0 in float32."""
    tx = optim.rprop(lr=0.1)
    state = tx.init(one(0.0, torch.float32))
    for _ in range(2):
        updates, state = tx.update(one(2.0**power, torch.float32), state)
    assert updates["w"].item() == pytest.approx(-0.12)


def test_amsgrad_takes_the_maximum_before_the_bias_is_corrected() -> None:
    """optax's #1423. By hand: v is 0.5 and 0.25 + 0.005, corrected 1 and 0.34."""
    tx = optim.adam(lr=1.0, betas=(0.0, 0.5), eps=0.0, amsgrad=True)
    wanted = [-1.0, -0.1 / math.sqrt(0.5 / 0.75)]
    assert moves(tx, [1.0, 0.1]) == pytest.approx(wanted, rel=1e-12)


def test_epsilon_of_rmsprop_is_outside_the_root() -> None:
    """optax's #532."""
    assert moves(optim.rmsprop(lr=1.0, alpha=0.75, eps=0.5), [1.0]) == [-1.0]
    assert moves(optim.adagrad(lr=1.0, eps=1.0), [1.0]) == [-0.5]
    assert moves(optim.adadelta(eps=1.0, rho=0.0), [2.0]) == [-2.0 / math.sqrt(5)]


def test_centered_rmsprop_survives_a_constant_gradient() -> None:
    """Rounding makes the variance negative, of which torch takes the root."""
    params, g = torch.zeros(64), torch.linspace(0.1, 3, 64)
    theirs = torch.optim.RMSprop([x := params.clone().requires_grad_()], alpha=0.5, centered=True)
    tx = optim.rmsprop(alpha=0.5, centered=True)
    state = tx.init({"w": params})
    for _ in range(60):
        x.grad = g
        theirs.step()
        updates, state = tx.update({"w": g}, state)
        assert torch.isfinite(updates["w"]).all()
    assert x.isnan().any()


@pytest.mark.parametrize("name", ["rmsprop", "asgd", "nadam", "rprop", "adagrad"])
def test_a_scheduled_learning_rate_acts_as_in_torch(name: str) -> None:
    """RMSprop's momentum comes before it, ASGD heeds it a step late, Rprop only once."""
    flags: dict[str, Any] = {"rmsprop": {"momentum": 0.9}, "asgd": {"lambd": 0.1}}.get(name, {})
    tx = getattr(optim, name)(lr=lambda count: 0.1 / (1 + count.double()) ** 2, **flags)
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # for the scalars of ASGD and NAdam
    theirs, path = THEIRS[name]([x], lr=0.1, **flags), []
    schedule = torch.optim.lr_scheduler.LambdaLR(theirs, lambda t: 1 / (1 + t) ** 2)
    gradients = [1.0, 0.5, -2.0, 0.3, 0.3, 0.3]
    for g in gradients:
        before = x.item()
        x.grad = torch.tensor([g])
        theirs.step()
        schedule.step()
        path.append(x.item() - before)
    torch.set_default_dtype(default)
    assert moves(tx, gradients) == pytest.approx(path, rel=1e-12)


def test_asgd_averages_from_t0_on() -> None:
    t0, gradients = 3, [1.0, -0.5, 2.0, 0.3, -1.0, 0.7, 0.1]
    tx = optim.asgd(lr=0.1, t0=t0)
    params, state, path = one(1.0), tx.init(one(1.0)), []
    for t, g in enumerate(gradients, 1):
        params, state = optim.step(tx, params, one(g), state)
        path.append(params["w"])
        mean = torch.stack(path[t0 + 1 :] if t > t0 + 1 else path[-1:]).mean(0)
        torch.testing.assert_close(state.slots["ax"]["w"], mean, rtol=1e-14, atol=0.0)
    with pytest.raises(ValueError, match="`params` must be given to `update`: ASGD"):
        tx.update(one(1.0), state)


def test_adagrad_sums_from_the_initial_value() -> None:
    values = torch.tensor([0.0, 3.0, 8.0], dtype=torch.float64)

    def stepped(value: Tensor) -> Tensor:
        tx = optim.adagrad(lr=1.0, initial_accumulator_value=value, eps=0.0)
        return optim.step(tx, one(0.0), one(1.0), tx.init(one(0.0)))[0]["w"][0]

    wanted = -((1 + values) ** -0.5)
    torch.testing.assert_close(vmap(stepped)(values), wanted, rtol=1e-14, atol=0.0)
    assert grad(stepped)(values[1]).item() == pytest.approx(0.5 * 4**-1.5, rel=1e-12)
    complex_sum = optim.adagrad(initial_accumulator_value=2.0).init({"w": torch.ones(1) * 1j})
    assert complex_sum.slots["sum"]["w"].item() == 2 + 2j
    with pytest.raises(TypeError, match="`initial_accumulator_value` must be a number or a 0-d"):
        optim.adagrad(initial_accumulator_value=lambda count: 0.1)  # type: ignore[arg-type]


def test_nadam_has_one_product_of_momenta() -> None:
    tx = optim.nadam(betas=(0.8, 0.9), momentum_decay=0.5)
    params = {"a": torch.ones(2), "b": torch.ones(3)}
    state, product = tx.init(params), 1.0
    for t in range(1, 6):
        _, state = tx.update(params, state)
        product *= 0.8 * (1 - 0.5 * 0.96 ** (0.5 * t))
        found = state.slots["mu_product"]
        assert found.shape == () and found.dtype == torch.float64
        assert found.item() == pytest.approx(product, rel=1e-14)


def test_radam_waits_for_its_sixth_step() -> None:
    """rho is 4.99 after five steps, and 5.98 after six."""
    tx = optim.radam(lr=1.0, betas=(0.0, 0.999), eps=0.0)
    found = moves(tx, [2.0] * 6)
    assert found[:5] == pytest.approx([-2.0] * 5, rel=1e-12)
    rho_inf, power = 1999.0, 0.999**6
    rho = rho_inf - 12 * power / (1 - power)
    rect = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    assert found[5] == pytest.approx(-math.sqrt(rect), rel=1e-9)


def radam_step(params: Any, grads: Any, hyperparams: Any, count: Tensor) -> Any:
    state = RADAM.init(params)._replace(hyperparams=hyperparams, count=count)
    return optim.step(RADAM, params, grads, state)


RADAM = optim.radam(0.1, betas=(0.9, 0.99))
COUNTS = torch.tensor([0, 4, 5, 50])


def test_radam_under_transforms_on_both_sides_of_the_threshold() -> None:
    params, grads = {"w": torch.tensor([0.5, 0.0])}, {"w": torch.tensor([0.3, 0.0])}
    hyper = RADAM.init(params).hyperparams
    loop = tree.stack([radam_step(params, grads, hyper, count) for count in COUNTS])
    batched = vmap(radam_step, in_dims=(None, None, None, 0))
    compiled = torch.compile(batched, fullgraph=True, dynamic=False, backend="eager")
    for fn in (batched, compiled):
        found = fn(params, grads, hyper, COUNTS)
        for x, y in zip(tree.leaves(found), tree.leaves(loop), strict=True):
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize("count", COUNTS.tolist())
@pytest.mark.parametrize("beta2", [0.5, 0.6, 0.99])  # rho is at most 3, 4 and 199
def test_radam_is_differentiable_on_both_sides(count: int, beta2: float) -> None:
    def end(w: Tensor, g: Tensor, beta2: Tensor) -> Tensor:
        hyper = {**RADAM.init({"w": w}).hyperparams, "beta2": beta2}
        found: Tensor = radam_step({"w": w}, {"w": g}, hyper, torch.tensor(count))[0]["w"]
        return found

    inputs = [torch.tensor(x, dtype=torch.float64) for x in ([0.5, 0.2], [0.3, -0.1], beta2)]
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(end, inputs, eps=1e-7, atol=1e-5, rtol=1e-4)
    zero = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.grad(end(inputs[0], zero, inputs[2]).sum(), [zero, inputs[2]])
    assert all(torch.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("name", ["asgd", "rprop"])
def test_steps_are_steps(name: str) -> None:
    """So that a mask leaves other parameters where they are."""
    params = {"a": torch.ones(2), "b": torch.ones(2)}
    for tx in (getattr(optim, name)(0.1), getattr(optim, f"scale_by_{name}")(0.1)):
        masked = optim.masked(tx, "a")
        moved, _ = optim.step(masked, params, params, masked.init(params))
        assert torch.equal(moved["b"], params["b"])
        assert (moved["a"] < 1).all()
