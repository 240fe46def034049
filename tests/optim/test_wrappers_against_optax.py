"""optax's trajectories in float64, where its conventions are those of the papers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fdnn import optim
from fdnn.types import Params

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
contrib = pytest.importorskip("optax.contrib")

STEPS = 50
SIZES = {"matrix": (3, 2), "vector": (4,), "scalar": (), "empty": (0, 2)}


def rising(count: Any) -> Any:
    return 0.05 * (count + 1.0)


def approaching(count: Any) -> Any:
    return 1 - 1 / (count + 2.0)


def doubled(schedule: Callable[[Any], Any]) -> Callable[[Tensor], Tensor]:
    return lambda count: schedule(count.double())


CASES: dict[str, tuple[Any, Callable[[], Any]]] = {
    "lion": (
        optim.lion(0.03, (0.8, 0.95), weight_decay=0.1),
        lambda: optax.lion(0.03, b1=0.8, b2=0.95, weight_decay=0.1),
    ),
    "lamb": (
        optim.lamb(0.03, (0.8, 0.95), eps=1e-3, weight_decay=0.1),
        lambda: optax.lamb(0.03, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1),
    ),
    "trust_ratio": (
        optim.chain(optim.scale_by_trust_ratio(0.5, 0.3, 0.1), optim.scale_by_learning_rate(0.1)),
        lambda: optax.chain(
            optax.scale_by_trust_ratio(0.5, 0.3, 0.1), optax.scale_by_learning_rate(0.1)
        ),
    ),
    "ademamix": (
        optim.ademamix(0.03, (0.8, 0.9, 0.99), 3.0, eps=1e-3, weight_decay=0.1),
        lambda: contrib.ademamix(0.03, 0.8, 0.9, 0.99, 3.0, eps=1e-3, weight_decay=0.1),
    ),
    "ademamix with schedules": (
        optim.ademamix(0.03, (0.8, 0.9, doubled(approaching)), doubled(rising)),
        lambda: contrib.ademamix(0.03, 0.8, 0.9, approaching, rising),
    ),
    "adopt": (
        optim.adopt(0.1, (0.8, 0.9), eps=0.1),
        lambda: contrib.adopt(0.1, 0.8, 0.9, eps=0.1),
    ),
    "adopt without clipping": (
        optim.adopt(0.1, (0.8, 0.9), clip_value=None),
        lambda: contrib.adopt(0.1, 0.8, 0.9, use_clipping=False),
    ),
    "lookahead": (
        optim.lookahead(optim.adam(0.1), 3, 0.4),
        lambda: optax.lookahead(optax.adam(0.1), 3, 0.4),
    ),
    "schedule_free": (
        optim.schedule_free(optim.adam(0.1, (0.0, 0.9)), 0.8, weight_lr_power=1.0),
        lambda: contrib.schedule_free(
            optax.adam(0.1, b1=0.0, b2=0.9), 0.1, b1=0.8, weight_lr_power=1.0
        ),
    ),
    "schedule_free_sgd": (
        optim.schedule_free_sgd(0.3, weight_decay=0.1),
        lambda: contrib.schedule_free_sgd(0.3, weight_decay=0.1),
    ),
    "schedule_free_adamw": (
        optim.schedule_free_adamw(0.1, (0.8, 0.9), eps=1e-3, weight_decay=0.1),
        lambda: contrib.schedule_free_adamw(0.1, b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.1),
    ),
}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def start() -> Params:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(size, generator=generator, dtype=torch.float64)
        for name, size in SIZES.items()
    }


def gradient(x: Tensor, t: int) -> Tensor:
    place = torch.arange(1, x.numel() + 1, dtype=torch.float64).reshape(x.shape)
    return 2 * x / (1 + x**2) + torch.cos(place * (t + 1) + place**2)


def theirs(x: Params) -> Any:
    return {name: jax.numpy.asarray(leaf.numpy()) for name, leaf in x.items()}


def gap(ours: Params, other: Any) -> float:
    found = [
        x - torch.tensor(other[name].tolist(), dtype=x.dtype).reshape(x.shape)
        for name, x in ours.items()
    ]
    return max([x.abs().max().item() for x in found if x.numel()])


@pytest.mark.parametrize("name", CASES)
def test_trajectory(name: str) -> None:
    tx, make = CASES[name]
    other = make()
    params = start()
    state = tx.init(params)
    their_params = theirs(params)
    if name == "lookahead":
        their_params = optax.LookaheadParams.init_synced(their_params)
    their_state = other.init(their_params)
    update = jax.jit(other.update)
    origin, travelled = params, 0.0
    for t in range(STEPS):
        grads = {path: gradient(x, t) for path, x in params.items()}
        params, state = optim.step(tx, params, grads, state)
        moves, their_state = update(theirs(grads), their_state, their_params)
        their_params = optax.apply_updates(their_params, moves)
        travelled = max(travelled, gap(params, theirs(origin)))
        if name == "lookahead":
            assert gap(params, their_params.fast) <= 1e-12 * travelled
            assert gap(state.slots["slow_params"], their_params.slow) <= 1e-12 * travelled
            continue
        assert gap(params, their_params) <= 1e-12 * travelled, t
        if name.startswith("schedule_free"):
            average = contrib.schedule_free_eval_params(their_state, their_params)
            ours = optim.schedule_free_eval_params(state, params)
            assert gap(ours, average) <= 1e-12 * travelled
    assert travelled > 0.5


def test_warm_up_of_ademamix_is_optax_s_one_step_earlier() -> None:
    """optax, like fdnn, counts from 0; the paper and `alpha_warmup` from 1."""
    ours = optim.scale_by_ademamix(alpha=3.0, alpha_warmup=4)
    state, found = ours.init(start()), []
    for _ in range(6):
        _, state = ours.update(start(), state)
        found.append(state.hyperparams["alpha"].item())
    schedule = optax.linear_schedule(0.0, 3.0, 4)
    assert found == pytest.approx([float(schedule(t)) for t in range(1, 7)], rel=1e-15)
