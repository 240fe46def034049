"""Building blocks with optax's names do what optax's do: trajectories in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fdnn import optim
from fdnn.types import GradientTransformation

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

STEPS = 50
SHAPES = {"w": (4, 3), "kernel": (2, 3, 2, 2), "volume": (2, 1, 2, 2, 2), "b": (3,), "s": ()}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def start() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=shape) for name, shape in SHAPES.items()}


def slope(x: np.ndarray, t: int) -> np.ndarray:
    place = np.arange(1, x.size + 1, dtype=np.float64).reshape(x.shape)
    return 2 * x / (1 + x**2) + np.cos(place * t + place**2) * (0.3 + 3 / (1 + t))


def flat(params: dict[str, Any]) -> Tensor:
    return torch.cat([torch.tensor(np.asarray(x)).reshape(-1) for x in params.values()])


def walk_ours(tx: GradientTransformation) -> Tensor:
    params = {name: torch.from_numpy(x.copy()) for name, x in start().items()}
    state, path = tx.init(params), [flat(params)]
    for t in range(STEPS):
        grads = {n: torch.from_numpy(np.asarray(slope(x.numpy(), t))) for n, x in params.items()}
        params, state = optim.step(tx, params, grads, state)
        path.append(flat(params))
    return torch.stack(path)


def walk_theirs(tx: Any) -> Tensor:
    params: dict[str, Any] = start()
    state, path = tx.init(params), [flat(params)]
    for t in range(STEPS):
        grads = {name: jax.numpy.asarray(slope(x, t)) for name, x in params.items()}
        updates, state = tx.update(grads, state, params)
        params = {name: np.asarray(params[name] + updates[name]) for name in params}
        path.append(flat(params))
    return torch.stack(path)


def wide(params: Any) -> Any:
    return {name: np.ndim(x) > 1 for name, x in params.items()}


def is_wide(path: str, leaf: Tensor) -> bool:
    return leaf.ndim > 1


def fading(count: Any) -> Any:
    return -0.5 / (2.0 + count)


def ours(*parts: Any) -> Callable[[], Any]:
    return lambda: optim.chain(*parts, optim.scale(-0.05))


def theirs(*parts: Any) -> Callable[[], Any]:
    return lambda: optax.chain(*parts, optax.scale(-0.05))


PAIRS = {
    "identity": (ours(optim.identity()), theirs(optax.identity())),
    "scale_by_schedule": (
        # A number and an integer tensor make the default dtype in torch, float32.
        lambda: optim.scale_by_schedule(lambda count: fading(count.double())),
        lambda: optax.scale_by_schedule(fading),
    ),
    "trace": (ours(optim.trace(0.9)), theirs(optax.trace(0.9))),
    "trace_nesterov": (ours(optim.trace(0.9, True)), theirs(optax.trace(0.9, True))),
    "ema": (ours(optim.ema(0.9)), theirs(optax.ema(0.9))),
    "ema_biased": (ours(optim.ema(0.9, debias=False)), theirs(optax.ema(0.9, debias=False))),
    "add_decayed_weights": (
        ours(optim.add_decayed_weights(0.3, mask=is_wide)),
        theirs(optax.add_decayed_weights(0.3, mask=wide)),
    ),
    "clip": (ours(optim.clip(0.4)), theirs(optax.clip(0.4))),
    "clip_by_block_rms": (ours(optim.clip_by_block_rms(0.5)), theirs(optax.clip_by_block_rms(0.5))),
    "centralize": (ours(optim.centralize()), theirs(optax.centralize())),
    "normalize_by_update_norm": (
        ours(optim.normalize_by_update_norm(2.0, 1e-3)),
        theirs(optax.normalize_by_update_norm(2.0, 1e-3)),
    ),
    "keep_params_nonnegative": (
        lambda: optim.chain(optim.sgd(0.1), optim.keep_params_nonnegative()),
        lambda: optax.chain(optax.sgd(0.1), optax.keep_params_nonnegative()),
    ),
    "flatten": (
        lambda: optim.flatten(optim.chain(optim.clip_by_block_rms(0.5), optim.adam(0.1))),
        lambda: optax.flatten(optax.chain(optax.clip_by_block_rms(0.5), optax.adam(0.1))),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_trajectory(name: str) -> None:
    make_ours, make_theirs = PAIRS[name]
    mine, reference = walk_ours(make_ours()), walk_theirs(make_theirs())
    distance = (reference - reference[0]).norm(dim=1).cummax(0).values
    assert distance[-1] > 1
    assert ((mine - reference).norm(dim=1) <= 1e-12 * distance).all()


@pytest.mark.parametrize(
    ("shape", "to_theirs", "to_ours"),
    [
        ((), (), ()),
        ((5,), (0,), (0,)),
        ((4, 3), (1, 0), (1, 0)),
        ((4, 1), (1, 0), (1, 0)),
        ((4, 3, 2, 2), (2, 3, 1, 0), (3, 2, 0, 1)),
        ((4, 3, 2, 2, 1), (2, 3, 4, 1, 0), (4, 3, 0, 1, 2)),
    ],
)
def test_adaptive_grad_clip(
    shape: tuple[int, ...], to_theirs: tuple[int, ...], to_ours: tuple[int, ...]
) -> None:
    """Units are the same where layers keep them: the output first in torch, last in optax."""
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(shape, generator=generator, dtype=torch.float64)
    grads = 9 * torch.randn(shape, generator=generator, dtype=torch.float64)
    if params.ndim:
        params[:1] *= 1e-3  # a unit for which eps counts
    tx, reference = optim.adaptive_grad_clip(0.7, 0.1), optax.adaptive_grad_clip(0.7, 0.1)
    found, _ = tx.update(grads, tx.init(params), params)
    theirs_p, theirs_g = (jax.numpy.asarray(x.permute(to_theirs).numpy()) for x in (params, grads))
    expected, _ = reference.update(theirs_g, reference.init(theirs_p), theirs_p)
    expected = torch.tensor(np.asarray(expected).transpose(to_ours))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0.0)
    assert not torch.equal(found, grads)


def test_zero_nans() -> None:
    grads = np.array([1.0, np.nan, np.inf, -np.inf, np.nan])
    tx, reference = optim.zero_nans(), optax.zero_nans()
    found, state = tx.update(torch.tensor(grads), tx.init(torch.tensor(grads)))
    expected, _ = reference.update(grads, reference.init(grads))
    assert found.tolist() == np.asarray(expected).tolist()
    assert state.diagnostics["nan_count"].item() == 2


@pytest.mark.parametrize("scale", [0.5, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_projections(seed: int, scale: float) -> None:
    x = np.random.default_rng(seed).normal(size=(4, 3)) * 3
    bound = np.abs(x[0])
    for mine, reference in [
        (
            optim.projection_non_negative(torch.tensor(x)),
            optax.projections.projection_non_negative(x),
        ),
        (
            optim.projection_box(torch.tensor(x), -scale, torch.tensor(bound)),
            optax.projections.projection_box(x, -scale, bound),
        ),
        (
            optim.projection_l2_ball(torch.tensor(x), scale),
            optax.projections.projection_l2_ball(x, scale),
        ),
        (
            optim.projection_simplex(torch.tensor(x), scale),
            optax.projections.projection_simplex(x, scale),
        ),
    ]:
        torch.testing.assert_close(
            mine, torch.tensor(np.asarray(reference)), rtol=1e-13, atol=1e-14
        )
