"""Dynamic loss scaling: torch's GradScaler, as a pure state machine around an optimizer."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import functionalize, optim, random, train, tree

BATCH = random.normal(random.key(1), (8, 4)), torch.arange(8) % 3


def scaler_of(**settings: Any) -> Any:
    scaler = torch.amp.GradScaler("cpu", **settings)
    scaler.scale(torch.ones(()))  # which begins its state
    return scaler


@settings(max_examples=60)
@given(
    finite=st.lists(st.booleans() | st.just(True), max_size=30),
    arguments=st.fixed_dictionaries(
        {
            "init_scale": st.floats(2.0**-20, 2.0**20, width=32) | st.just(2.0**126),
            "growth_factor": st.floats(1.01, 8.0),
            "backoff_factor": st.floats(0.05, 0.99),
            "growth_interval": st.integers(1, 5),
        }
    ),
)
def test_the_machine_is_torchs(finite: list[bool], arguments: dict[str, Any]) -> None:
    scaler, weight = scaler_of(**arguments), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaling = train.dynamic_loss_scaling(**arguments)
    state = scaling.init()
    tensors = train.dynamic_loss_scaling(
        **{name: torch.tensor(value, dtype=torch.float64) for name, value in arguments.items()}
    )
    for good in finite:
        weight.grad = torch.tensor([1.0, 1.0 if good else torch.inf])
        scaler.step(optimizer)
        scaler.update()
        assert_equal(tensors.update(state, torch.tensor(good)), scaling.update(state, good))
        state = scaling.update(state, good)
        assert torch.equal(state.scale, scaler._scale)
        assert torch.equal(state.growth_tracker, scaler._growth_tracker)


def test_the_defaults_are_torchs() -> None:
    scaler, state = scaler_of(), train.dynamic_loss_scaling().init()
    assert torch.equal(state.scale, scaler._scale)
    for tracked in (1998, 1999):
        scaler._growth_tracker.fill_(tracked)
        torch._amp_update_scale_(
            *(scaler._scale, scaler._growth_tracker, torch.zeros(1)),
            *(scaler.get_growth_factor(), scaler.get_backoff_factor()),
            scaler.get_growth_interval(),
        )
        before = state._replace(growth_tracker=torch.tensor(tracked, dtype=torch.int32))
        after = train.dynamic_loss_scaling().update(before, True)
        assert torch.equal(after.scale, scaler._scale)
        assert torch.equal(after.growth_tracker, scaler._growth_tracker)
    assert train.dynamic_loss_scaling().update(state, False).scale == 2.0**15


def test_the_machine_in_lanes() -> None:
    scaling = train.dynamic_loss_scaling(growth_interval=2)
    states = tree.stack([scaling.init()] * 4)
    sequences = list(itertools.product((True, False), repeat=2))
    for finite in zip(*sequences, strict=True):
        states = vmap(scaling.update)(states, torch.tensor(finite))
    for state, sequence in zip(tree.unstack(states), sequences, strict=True):
        alone = scaling.init()
        for finite in sequence:
            alone = scaling.update(alone, finite)
        assert_equal(state, alone)


def test_training_is_torchs_loop() -> None:
    """In float16 from a scale that is too high: overflow, recovery, growth, overflow again."""
    settings = {"init_scale": 2.0**20, "growth_interval": 2, "growth_factor": 8.0}
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    policy = train.Policy(compute=torch.float16)
    model = train.mixed_precision(functionalize(module), policy)
    tx = train.with_loss_scaling(optim.adamw(1e-2), train.dynamic_loss_scaling(**settings))
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    state = train.init(model, tx, random.key(0))._replace(params=model.params)
    scaler = torch.amp.GradScaler("cpu", **settings)
    optimizer, skipped = torch.optim.AdamW(module.parameters(), lr=1e-2), []
    x, y = BATCH
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = F.cross_entropy(module(x), y)
        scaler.scale(loss).backward()
        used = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        state, info = step(state, BATCH)
        assert info["loss_scale"] == used
        assert info["overflow"] == (scaler.get_scale() < used)
        assert torch.equal(info["loss"], loss.detach())
        skipped.append(bool(info["overflow"]))
        assert train.loss_scale(state.opt_state) == scaler.get_scale()
    assert skipped[0] and 3 < sum(skipped) < 15
    for name, value in module.named_parameters():
        torch.testing.assert_close(state.params[name], value.detach(), rtol=1e-5, atol=1e-6)
    inner = state.opt_state.slots["inner"]
    assert inner.count == 20 - sum(skipped) == optimizer.state[module[0].weight]["step"]
    assert state.count == state.opt_state.count == 20


def steps(tx: Any, compute: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A step of a small network, and the beginning of a run."""
    module = nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)
    )
    model = train.mixed_precision(functionalize(module), train.Policy(compute=compute))
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    return step, lambda seed: train.init(model, tx, random.key(seed))


def with_scale(state: Any, scale: float | Tensor) -> Any:
    """The state with another scale."""
    slots = state.opt_state.slots
    at = slots["loss_scale"]
    slots = {**slots, "loss_scale": at._replace(scale=torch.as_tensor(scale).expand_as(at.scale))}
    return state._replace(opt_state=state.opt_state._replace(slots=slots))


def test_a_skipped_step_leaves_parameters_and_optimizer_as_they_are() -> None:
    step, begin = steps(train.with_loss_scaling(optim.adamw(0.1)), torch.float16)
    state, _ = step(with_scale(begin(0), 64.0), BATCH)
    after, info = step(with_scale(state, 2.0**100), BATCH)
    assert info["overflow"] == 1
    assert info["loss"].isfinite()
    assert_equal(after.params, state.params)
    assert_equal(after.opt_state.slots["inner"], state.opt_state.slots["inner"])
    assert after.count == state.count + 1
    assert not torch.equal(after.buffers["1.running_mean"], state.buffers["1.running_mean"])
    moved, info = step(after._replace(opt_state=state.opt_state), BATCH)
    assert info["overflow"] == 0
    assert not torch.equal(moved.params["0.weight"], after.params["0.weight"])


def test_overflow_at_another_point_is_skipped_too() -> None:
    """SAM's second gradient overflows, where the first does not."""
    scaling = train.dynamic_loss_scaling(64.0)
    tx = train.with_loss_scaling(optim.sam(optim.sgd(0.1, momentum=0.9), rho=1e6), scaling)
    step, begin = steps(tx, torch.float16)
    state = begin(0)
    after, info = step(state, BATCH)
    assert (info["overflow"], train.loss_scale(after.opt_state)) == (1, 32)
    assert info["grad_norm"] == 0, "what SAM noted is not kept either"
    assert_equal(after.params, state.params)
    assert_equal(after.opt_state.slots["inner"], state.opt_state.slots["inner"])
    many, info = vmap(step, in_dims=(0, None))(tree.stack([begin(0), begin(1)]), BATCH)
    assert info["overflow"].tolist() == [1, 1]
    assert_equal(tree.unstack(many.opt_state)[0], after.opt_state)
    fine, info = step(with_rho(state, 0.05), BATCH)
    assert info["overflow"] == 0
    assert not torch.equal(fine.params["0.weight"], state.params["0.weight"])


def with_rho(state: Any, rho: float) -> Any:
    """The state with another radius of SAM."""
    return state._replace(opt_state=optim.set_hyperparams(state.opt_state, rho=rho))


def test_lanes_have_scales_of_their_own() -> None:
    step, begin = steps(train.with_loss_scaling(optim.sgd(0.1, momentum=0.9)), torch.float16)
    begun = tree.stack([begin(seed) for seed in range(3)])
    many = with_scale(begun, torch.tensor([64.0, 2.0**100, 2.0**14]))
    solo = tree.unstack(many)
    for _ in range(2):
        many, info = vmap(step, in_dims=(0, None))(many, BATCH)
        solo, infos = zip(*(step(state, BATCH) for state in solo), strict=True)
        assert info["overflow"].tolist() == [0, 1, 0]
        assert_close(info, tree.stack(infos), rtol=2e-3, atol=2e-3)
    assert_equal(many.opt_state.slots["loss_scale"], tree.stack(solo).opt_state.slots["loss_scale"])
    assert_close(many.params, tree.stack(solo).params, rtol=5e-3, atol=5e-3)
    assert_equal(tree.unstack(many.params)[1], begin(1).params)


def test_every_lane_of_a_new_state_has_memory_of_its_own() -> None:
    tx = train.with_loss_scaling(optim.sgd(0.1))
    states = vmap(tx.init)({"w": torch.zeros(3, 2)})
    for path, leaf in tree.select(states, "*").items():
        assert leaf.shape[0] == 3 and 0 not in leaf.stride(), path


@pytest.mark.parametrize(
    "build",
    [
        lambda scaled: scaled(optim.adamw(0.1)),
        lambda scaled: optim.chain(optim.clip_by_global_norm(0.1), scaled(optim.adamw(0.1))),
        lambda scaled: optim.multi_steps(scaled(optim.adamw(0.1)), 2),
        lambda scaled: scaled(optim.multi_steps(optim.adamw(0.1), 2)),
        lambda scaled: scaled(optim.sam(optim.sgd(0.1), rho=0.1)),
        lambda scaled: optim.lookahead(scaled(optim.sgd(0.1))),
    ],
    ids=["alone", "behind clipping", "in multi_steps", "around multi_steps", "sam", "lookahead"],
)
def test_nothing_else_sees_the_scale(build: Any) -> None:
    """Wherever it stands: a scale that is a power of two changes nothing in float32."""
    step, begin = steps(build(train.with_loss_scaling))
    plain_step, plain_begin = steps(build(lambda inner: inner))
    state, plain = begin(0), plain_begin(0)
    for _ in range(3):
        assert train.loss_scale(state.opt_state) == 65536
        state, info = step(state, BATCH)
        plain, wanted = plain_step(plain, BATCH)
        assert_close({name: info[name] for name in wanted}, wanted, rtol=1e-5, atol=1e-6)
    assert_close((state.params, state.buffers), (plain.params, plain.buffers), 1e-5, 1e-6)


def test_small_gradients_survive() -> None:
    """A gradient below the smallest number of float16 (6e-8) moves the parameter."""
    policy = train.Policy(compute=torch.float16)
    model = train.mixed_precision(functionalize(nn.Linear(2, 1, bias=False)), policy)

    def moves(tx: Any) -> Tensor:
        step = train.make_step(train.supervised(model, lambda out, y: 1e-9 * (out * y).sum()), tx)
        state = train.init(model, tx, random.key(0))
        after, _ = step(state, (torch.ones(1, 2), torch.ones(1, 1)))
        return after.params["weight"] - state.params["weight"]

    assert (moves(optim.sgd(1e8)) == 0).all()
    found = moves(train.with_loss_scaling(optim.sgd(1e8)))
    torch.testing.assert_close(found, torch.full((1, 2), -0.1), rtol=1e-2, atol=0)


def test_differentiating_through_a_scaled_step() -> None:
    model = functionalize(nn.Linear(4, 3).double())

    def final_loss(lr: Tensor, wrap: Any) -> Tensor:
        tx = wrap(optim.sgd(lr))
        step = train.make_step(train.supervised(model, F.cross_entropy), tx, differentiable=True)
        state = train.init(model, tx, random.key(0))
        batch = BATCH[0].double(), BATCH[1]
        return step(step(state, batch)[0], batch)[1]["loss"]

    lr = torch.tensor(0.1, dtype=torch.float64)
    found = torch.func.grad(final_loss)(lr, train.with_loss_scaling)
    wanted = torch.func.grad(final_loss)(lr, lambda inner: inner)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_checkpoints_hold_the_scale(tmp_path: Path) -> None:
    step, begin = steps(train.with_loss_scaling(optim.adamw(0.1)))
    state, _ = step(with_scale(begin(0), 8.0), BATCH)
    train.save(tmp_path / "run", state)
    assert_equal(train.load(tmp_path / "run", like=begin(1)), state)


def test_fit_reports_the_share_of_skipped_steps() -> None:
    scaling = train.dynamic_loss_scaling(2.0**19, growth_interval=1000)
    step, begin = steps(train.with_loss_scaling(optim.sgd(0.1), scaling), torch.float16)
    data = BATCH[0].repeat(4, 1), BATCH[1].repeat(4)
    state, history = train.fit(
        step, begin(0), data, epochs=2, batch_size=8, compile=False, progress=False
    )
    overflows = torch.log2(2.0**19 / train.loss_scale(state.opt_state))
    assert overflows > 0
    torch.testing.assert_close(4 * history["overflow"].sum(), overflows)
    assert history["loss_scale"][0] > history["loss_scale"][1] - 1
    assert history["loss"].isfinite().all()


def test_a_scale_of_ones_own() -> None:
    """A machine is a pair of functions: here one that keeps its scale."""
    fixed = train.dynamic_loss_scaling(128.0)._replace(update=lambda state, finite: state)
    step, begin = steps(train.with_loss_scaling(optim.sgd(0.1), fixed), torch.float16)
    state = begin(0)
    for _ in range(2):
        state, info = step(state, BATCH)
        assert info["loss_scale"] == 128


def test_errors_name_the_argument() -> None:
    for name, value, rule in (
        ("init_scale", 0.0, "above 0"),
        ("growth_factor", 1.0, "above 1"),
        ("backoff_factor", 1.0, r"in \(0, 1\)"),
        ("growth_interval", 0, "at least 1, whole"),
        ("growth_interval", 1.5, "at least 1, whole"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be {rule}, got {value}"):
            train.dynamic_loss_scaling(**{name: value})
    model, tx = functionalize(nn.Linear(4, 3).half()), train.with_loss_scaling(optim.sgd(0.1))
    step = train.make_step(train.supervised(model, F.cross_entropy), tx)
    with pytest.raises(ValueError, match=r"`params` must be float32 .* float16 at \['weight', "):
        step(train.init(model, tx, random.key(0)), (BATCH[0].half(), BATCH[1]))
