"""Pruned training: torch's trajectories under torch.nn.utils.prune, zeros that stay, schedules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from torch import Tensor, nn, vmap
from torch.nn.utils import prune

from fdnn import compress, functionalize, losses, optim, random, train, tree

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
ADAM = {"lr": 0.05, "weight_decay": 0.1}
OPTIMIZERS: dict[str, tuple[Any, Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": (optim.sgd(**SGD), lambda params: torch.optim.SGD(params, **SGD)),
    "adam": (optim.adam(**ADAM), lambda params: torch.optim.Adam(params, **ADAM)),
    "adamw": (optim.adamw(**ADAM), lambda params: torch.optim.AdamW(params, **ADAM)),
}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    keys = random.split(random.key(seed))
    x = random.normal(keys[0], (20, 4), torch.float64)
    return x, random.randint(keys[1], (20,), 0, 3, torch.int64)


MODEL = functionalize(network())
LOSS = train.supervised(MODEL, F.cross_entropy)


def begin(tx: Any, params: Any, seed: int = 0) -> train.TrainState:
    return train.TrainState(
        params, {}, tx.init(params), random.key(seed), torch.zeros((), dtype=torch.int64)
    )


def run(tx: Any, state: train.TrainState, steps: int) -> train.TrainState:
    step = train.make_step(LOSS, tx)
    for _ in range(steps):
        state, _ = step(state, batch())
    return state


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("tx", "torchs"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_trajectories_are_those_of_torchs_pruning(tx: Any, torchs: Any, clip: bool) -> None:
    net = network()
    params = functionalize(net).params
    masks = compress.l1_unstructured(params, 0.6)
    for i in (0, 2):
        prune.custom_from_mask(net[i], "weight", masks[f"{i}.weight"])
    optimizer = torchs(net.parameters())
    for _ in range(12):
        optimizer.zero_grad()
        F.cross_entropy(net(batch()[0]), batch()[1]).backward()
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
    net(batch()[0])  # which puts the masks on the weights
    pruned = compress.keep_masked(
        optim.chain(optim.clip_by_global_norm(0.1), tx) if clip else tx, masks
    )
    state = run(pruned, begin(pruned, compress.apply_masks(params, masks)), 12)
    wanted = {name: getattr(net[int(name[0])], name[2:]).detach() for name in params}
    assert_close(state.params, wanted, rtol=1e-10, atol=1e-12)
    for name, mask in masks.items():
        assert (state.params[name][~mask] == 0).all()
        assert (state.params[name][mask] != 0).all()


@pytest.mark.parametrize(
    "inner",
    [
        optim.sgd(0.1, momentum=0.9),
        optim.muon(0.01),
        optim.sam(optim.sgd(0.1), rho=0.1),
        optim.lookahead(optim.adam(0.01)),
        optim.chain(optim.sgd(0.1), optim.add_noise(0.1, 0.5, key=random.key(0))),
        optim.lbfgs(),
    ],
    ids=["momentum", "muon", "sam", "lookahead", "noise", "lbfgs"],
)
def test_zeros_stay_whatever_the_optimizer(inner: Any) -> None:
    masks = compress.global_unstructured(MODEL.params, 0.5)
    if "muon" in str(inner.parts[0].name):
        inner = optim.partition({"m": inner, "r": optim.sgd(0.1)}, {"m": "*weight", "r": "*"})
    tx = compress.keep_masked(inner, masks)
    state = run(tx, begin(tx, MODEL.params), 4)  # not 0 yet at the start
    assert_equal(compress.nonzero_masks(state.params), masks)
    assert_equal(compress.masks_of(state.opt_state), masks)


def test_dtypes() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.complex64):
        params = {"w": torch.ones(2, 3, dtype=dtype), "b": torch.ones(3, dtype=dtype)}
        masks = {"w": torch.tensor([[True, False, True], [False, True, True]])}
        tx = compress.keep_masked(optim.adam(0.1), masks)
        moved, _ = optim.step(tx, params, params, tx.init(params))
        assert_equal(moved["w"] != 0, masks["w"])
        assert moved["w"].dtype == dtype


def test_lanes_have_masks_of_their_own() -> None:
    """A sweep over amounts and seeds in one step equals the runs alone."""
    amounts, keys = (
        torch.tensor([0.0, 0.5, 0.9], dtype=torch.float64),
        random.split(random.key(0), 3),
    )

    def start(key: Tensor, amount: Tensor) -> train.TrainState:
        params, _ = MODEL.init(key)
        masks = compress.global_unstructured(params, amount)
        tx = compress.keep_masked(optim.adam(0.05), masks)
        return begin(tx, compress.apply_masks(params, masks))

    tx = compress.keep_masked(optim.adam(0.05), lambda p: compress.global_unstructured(p, 0.0))
    states = vmap(start)(keys, amounts)
    step = train.make_step(LOSS, tx)
    lanes = vmap(step, in_dims=(0, None))
    for _ in range(3):
        states, _ = lanes(states, batch())
    for i, lane in enumerate(tree.unstack(states)):
        alone = run(tx, start(keys[i], amounts[i]), 3)
        assert_close(lane, alone, rtol=1e-9, atol=1e-10)
    found = vmap(lambda p: compress.sparsity(p).total)(states.params)
    assert found.tolist() == pytest.approx([0.0, 0.5, 38 / 42], abs=1e-12)


def test_masks_are_checkpointed(tmp_path: Path) -> None:
    tx = compress.keep_masked(optim.adam(), lambda p: compress.l1_unstructured(p, 0.5))
    state = run(tx, begin(tx, MODEL.params), 2)
    train.save(tmp_path / "run", state)
    fresh = begin(tx, tree.map(torch.ones_like, MODEL.params))
    loaded = train.load(tmp_path / "run", like=fresh)
    assert_equal(compress.masks_of(loaded.opt_state), compress.masks_of(state.opt_state))
    assert_equal(run(tx, loaded, 2), run(tx, state, 2))


def test_donated_states_leave_the_masks_given() -> None:
    masks = compress.l1_unstructured(MODEL.params, 0.5)
    state = compress.keep_masked(optim.sgd(), masks).init(MODEL.params)
    assert state.slots["masks"]["0.weight"].data_ptr() != masks["0.weight"].data_ptr()


def test_masks_are_set() -> None:
    tx = compress.keep_masked(optim.sgd(), lambda p: compress.l1_unstructured(p, 0.0))
    state = begin(tx, MODEL.params)
    masks = compress.l1_unstructured(MODEL.params, 0.7)
    state = state._replace(opt_state=compress.set_masks(state.opt_state, masks))
    assert_equal(compress.nonzero_masks(run(tx, state, 1).params), masks)
    around = optim.apply_if_finite(tx, 3)
    state = begin(around, MODEL.params)
    state = state._replace(opt_state=compress.set_masks(state.opt_state, masks))
    state = run(around, state, 1)
    assert_equal(compress.nonzero_masks(state.params), masks)
    assert_equal(compress.masks_of(state.opt_state), masks)


@pytest.mark.parametrize(
    "prune_",
    [
        compress.l1_unstructured,
        compress.global_unstructured,
        functools.partial(compress.ln_structured, where="0.weight"),
    ],
    ids=["l1", "global", "ln"],
)
def test_gradual_pruning_follows_its_schedule(prune_: Any) -> None:
    schedule = compress.cubic_sparsity(0.75, begin=2, end=8, interval=2)
    tx = compress.gradual_pruning(optim.sgd(0.1, momentum=0.9), schedule, prune_)
    state = begin(tx, MODEL.params)
    step = train.make_step(LOSS, tx)
    kept: dict[str, Tensor] | None = None
    for count in range(10):
        state, info = step(state, batch())
        masks = compress.masks_of(state.opt_state)
        assert_equal(compress.nonzero_masks(state.params, list(masks)), masks)
        target = schedule(count)
        assert_equal(info["sparsity"], target)
        wanted = prune_(MODEL.params, target)
        total = [sum(int(m.sum()) for m in each.values()) for each in (masks, wanted)]
        assert total[0] == total[1]
        if kept is not None:
            assert all((kept[name] | ~mask).all() for name, mask in masks.items())
        kept = masks


def test_gradual_pruning_without_a_rise_is_keep_masked() -> None:
    """And prunes by the parameters at the time."""
    rise = compress.one_shot_sparsity(0.5, begin=3)
    tx = compress.gradual_pruning(optim.adam(0.1), rise)
    state = run(tx, begin(tx, MODEL.params), 3)
    masks = compress.l1_unstructured(state.params, 0.5)
    fixed = compress.keep_masked(optim.adam(0.1), masks)
    inner = {n: s for n, s in state.opt_state.slots.items() if n not in ("masks", "pruned_to")}
    hyper = {n: h for n, h in state.opt_state.hyperparams.items() if n != "sparsity"}
    same = state._replace(
        opt_state=state.opt_state._replace(slots={**inner, "masks": masks}, hyperparams=hyper)
    )
    assert_equal(run(tx, state, 4).params, run(fixed, same, 4).params)


def test_gradual_pruning_is_swept() -> None:
    finals = torch.tensor([0.3, 0.8], dtype=torch.float64)

    def tx_of(final: Any) -> Any:
        return compress.gradual_pruning(optim.sgd(0.1), compress.cubic_sparsity(final, 0, 4))

    def trained(final: Any) -> Any:
        return run(tx_of(final), begin(tx_of(final), MODEL.params), 5).params

    swept = vmap(trained)(finals)
    for i, final in enumerate(finals.tolist()):
        assert_close(tree.unstack(swept)[i], trained(final), rtol=1e-10, atol=1e-12)


def test_proximal_training_makes_zeros_that_masks_find() -> None:
    """The sparsity of l1 training is that of the proximal optimizer, not of the penalty."""

    def penalized(params: Any, buffers: Any, data: Any, key: Any) -> Any:
        value, buffers = LOSS(params, buffers, data, key)
        return value + 0.02 * losses.l1_penalty(params, "*weight"), buffers

    tx = optim.proximal_l1(optim.sgd(0.1), 0.02, mask="*weight")
    state = run(tx, begin(tx, MODEL.params), 150)
    found = compress.sparsity(state.params)
    assert 0.2 < found.total < 0.95
    step, other = train.make_step(penalized, optim.sgd(0.1)), begin(optim.sgd(0.1), MODEL.params)
    for _ in range(150):
        other, _ = step(other, batch())
    assert compress.sparsity(other.params).total == 0
    zeros = sum(int((~m).sum()) for m in compress.nonzero_masks(state.params).values())
    assert zeros == round(found.total.item() * 42)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: compress.keep_masked(optim.sgd(), {"x": torch.ones(1)}).init(MODEL.params),
            "must have names of parameters, got 'x'",
        ),
        (
            lambda: compress.keep_masked(compress.keep_masked(optim.sgd(), {}), {}),
            "`inner` must not keep masks",
        ),
        (
            lambda: compress.keep_masked(optim.sgd(), {}).update(
                MODEL.params, compress.keep_masked(optim.sgd(), {}).init(MODEL.params)
            ),
            "`params` must be given",
        ),
        (lambda: compress.gradual_pruning(optim.sgd(), 1.0), r"`sparsity` must be in \[0, 1\)"),
        (lambda: compress.masks_of(optim.sgd().init(MODEL.params)), "must hold masks once, got"),
        (
            lambda: compress.set_masks(
                compress.keep_masked(optim.sgd(), {"0.bias": torch.ones(6)}).init(MODEL.params),
                {"0.weight": torch.ones(6, 4)},
            ),
            "must have names of parameters, got '0.weight'",
        ),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
