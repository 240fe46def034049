"""What every transformation of `fdnn.optim` promises. A new one means a row in `TRANSFORMS`."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from losses import with_loss
from torch import Tensor
from torch.func import vmap

from fdnn import optim, random, tree
from fdnn.types import GradientTransformation, Params

LANES = 3
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64]
TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 5e-2}  # a few eps


def decaying(count: Tensor) -> Tensor:
    return 0.1 / (1 + count)


def centre() -> GradientTransformation:
    """A hand-written pair: subtract the mean gradient so far."""

    def init(params: Any) -> Any:
        return {"total": tree.zeros_like(params)}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        total = tree.map(lambda s, u: s + u, state["total"], updates)
        return tree.map(lambda u, s: u - s / 10, updates, total), {"total": total}

    return GradientTransformation(init, update)


def mixed(decayed: Tensor, lr: Tensor) -> GradientTransformation:
    """A hand-written pair with a closure, and one of fdnn's blocks, for `inject_hyperparams`."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        trace = tree.map(lambda t, u: t * decayed + u, state, updates)
        return trace, trace

    pair = GradientTransformation(tree.zeros_like, update)
    return optim.chain(pair, optim.scale_by_learning_rate(lr))


TRANSFORMS: dict[str, GradientTransformation] = {
    "lbfgs": with_loss(optim.lbfgs(0.3, max_iter=2, history_size=2)),
    "polyak_sgd": with_loss(optim.polyak_sgd(0.2, scaling=0.9, f_min=0.1, eps=0.1)),
    "polyak_sgd_plus": with_loss(optim.polyak_sgd(0.2, variant="sps+")),
    "sam": with_loss(optim.sam(optim.sgd(0.1, momentum=0.9), rho=0.1)),
    "sam_adaptive": with_loss(optim.sam(optim.adam(0.1), rho=0.1, adaptive=True)),
    "scale": optim.scale(-0.3),
    "trace_nesterov": optim.trace(0.5, nesterov=True),
    "ema": optim.ema(0.9),
    "add_l1": optim.add_l1(0.3),
    "proximal_l1_masked": optim.proximal_l1(optim.adam(0.1), 0.5, lambda path, leaf: leaf.ndim > 1),
    "clip_by_value": optim.clip_by_value(-0.4, 0.2),
    "clip_by_block_rms": optim.clip_by_block_rms(0.3),
    "adaptive_grad_clip": optim.adaptive_grad_clip(0.2),
    "centralize": optim.centralize(),
    "normalize_by_update_norm": optim.normalize_by_update_norm(0.5),
    "zero_nans": optim.zero_nans(),
    "flatten": optim.flatten(optim.adam(0.1, weight_decay=0.1)),
    "max_norm": optim.chain(optim.sgd(0.1), optim.max_norm(0.8)),
    "sgd": optim.sgd(0.1),
    "sgd_momentum": optim.sgd(0.1, momentum=0.9, dampening=0.1, weight_decay=0.1, maximize=True),
    "sgd_nesterov": optim.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optim.adam(0.1, weight_decay=0.1),
    "adam_amsgrad": optim.adam(0.1, betas=(0.5, 0.6), amsgrad=True, maximize=True),
    "adam_zero_betas": optim.adam(0.1, betas=(0.0, 0.0)),
    "adamw": optim.adamw(0.1, weight_decay=0.5),
    "adam_decoupled": optim.adam(0.1, weight_decay=0.5, decoupled_weight_decay=True),
    "adadelta": optim.adadelta(1.0, eps=1e-2, weight_decay=0.1, maximize=True),
    "adagrad": optim.adagrad(0.1, 0.1, initial_accumulator_value=0.5),
    "adamax": optim.adamax(0.1, betas=(0.5, 0.9), weight_decay=0.1),
    "asgd": optim.asgd(0.1, lambd=0.5, t0=0.5, weight_decay=0.1),
    "nadam": optim.nadam(0.1, weight_decay=0.5, decoupled_weight_decay=True),
    "radam": optim.radam(0.1, weight_decay=0.1),
    "rmsprop": optim.rmsprop(0.1, alpha=0.9, weight_decay=0.1),
    "rmsprop_centered": optim.rmsprop(0.1, momentum=0.9, centered=True),
    "rprop": optim.rprop(0.1, etas=(0.4, 1.3), step_sizes=(1e-2, 0.12)),
    "scale_by_adam": optim.scale_by_adam(),
    "scale_by_momentum": optim.scale_by_momentum(0.9),
    "scale_by_learning_rate": optim.scale_by_learning_rate(0.3),
    "maximize": optim.maximize(),
    "add_decayed_weights": optim.add_decayed_weights(0.1),
    "clip_by_global_norm": optim.clip_by_global_norm(0.5),
    "masked": optim.masked(optim.adam(0.1), lambda path, leaf: leaf.ndim > 1),
    "masked_block": optim.masked(optim.add_decayed_weights(0.1), lambda path, leaf: leaf.ndim > 1),
    "partition": optim.partition(
        {"wide": optim.sgd(0.1, momentum=0.9), "rest": optim.adamw(0.1)},
        lambda path, leaf: "wide" if leaf.ndim > 1 else "rest",
    ),
    "freeze": optim.freeze(optim.adam(0.1), lambda path, leaf: leaf.ndim == 0),
    "scheduled": optim.sgd(lr=decaying, momentum=lambda count: 0.9 - 0.1 / (1 + count)),
    "chain": optim.chain(optim.clip_by_global_norm(1.0), centre(), optim.adamw(0.1)),
    "multi_steps": optim.multi_steps(optim.adam(0.1), 2),
    "apply_if_finite": optim.apply_if_finite(optim.sgd(0.1, momentum=0.9), 2),
    "conditionally_transform": optim.conditionally_transform(
        optim.adam(0.1), lambda count: count != 1
    ),
    "ema_params": optim.chain(optim.adam(0.1), optim.ema_params(0.9, debias=True)),
    "swa": optim.chain(optim.sgd(0.1, momentum=0.9), optim.swa(1, every=1)),
    "inject_hyperparams": optim.inject_hyperparams(mixed)(decayed=0.9, lr=decaying),
    "ademamix": optim.ademamix(0.1, (0.5, 0.9, 0.99), 2.0, weight_decay=0.1),
    "adopt": optim.adopt(0.1, (0.5, 0.9), weight_decay=0.1, decoupled_weight_decay=True),
    "lamb": optim.lamb(0.1, weight_decay=0.1),
    "lion": optim.lion(0.1, (0.5, 0.9), weight_decay=0.1),
    "lookahead": optim.lookahead(optim.adam(0.1), sync_period=2),
    "scale_by_trust_ratio": optim.scale_by_trust_ratio(0.1, 0.5, 0.1),
    "schedule_free": optim.schedule_free(optim.sgd(0.1, momentum=0.5), 0.8, 5, 1.0),
    "schedule_free_adamw": optim.schedule_free_adamw(0.1, weight_decay=0.1),
    "adafactor": optim.adafactor(0.1, d=1.2),  # at 1, the first direction is on the bend
    "adafactor_all": optim.adafactor(0.1, -0.5, (0.1, 0.3), 1.5, 0.1, maximize=True),
    "muon": optim.partition(
        {"muon": optim.scale_by_muon(ns_dtype=None), "rest": optim.scale_by_adam()},
        lambda path, leaf: "muon" if leaf.ndim == 2 else "rest",
    ),
    "shampoo": optim.shampoo(0.1, 0.9, 0.1, epsilon=0.1, update_freq=2),
    "soap": optim.soap(0.1, shampoo_beta=0.8, eps=0.1, precondition_frequency=2),
}
every_transform = pytest.mark.parametrize("name", TRANSFORMS)
# To compile one of these takes 15 s or more, others 4; test_contracts.py traces them.
COMPILED = [name for name in TRANSFORMS if name not in ("lbfgs", "shampoo", "soap")]
# As they say in an error: test_preconditioned.py.
REAL_ONLY = {"adafactor", "adafactor_all", "muon", "shampoo", "soap"}
UNDIFFERENTIATED = {
    "soap": "takes its bases for constants, since eigenvectors of equal eigenvalues have no"
    " derivative; the rest of it is differentiated in test_preconditioned.py",
}
every_transform_and_dtype = pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, id=f"{name}-{dtype}")
        for name in TRANSFORMS
        for dtype in DTYPES
        if not (dtype.is_complex and name in REAL_ONLY)
    ],
)


def normal(seed: int, number: int, *shape: int) -> Tensor:
    return random.normal(random.fold_in(random.key(seed), number), shape)


class Point(NamedTuple):
    x: Tensor
    rest: list[Tensor]


def draw(seed: int, dtype: torch.dtype, shape: tuple[int, ...] = ()) -> Params:
    """A tree with a matrix, a scalar, an empty leaf and a unit that is dead, or `shape` of them."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.complex128 if dtype.is_complex else torch.float64

    def normal(*size: int) -> Tensor:
        return torch.randn((*shape, *size), generator=generator, dtype=drawn).to(dtype)

    w = normal(2, 3)
    w[..., 0, 0] = 0
    return {"w": w, "s": normal(), "none": normal(0, 2)}


def walk(
    tx: GradientTransformation, params: Params, state: Any, grads: list[Params]
) -> tuple[Params, Any]:
    """Steps whose gradients depend on where they are."""
    for g in grads:
        bent = tree.map(lambda g, p: g * (1 + p * p), g, params)
        params, state = optim.step(tx, params, bent, state)
    return params, state


def run(tx: GradientTransformation, params: Params, grads: list[Params]) -> Any:
    return walk(tx, params, tx.init(params), grads)


def assert_close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    tree.assert_same_structure(expected, found)
    for path, x, y in zip(
        tree.paths(found), tree.leaves(found), tree.leaves(expected), strict=True
    ):
        rtol = TOLERANCES.get(x.dtype, 1e-12 if x.dtype == torch.float64 else tolerance)
        torch.testing.assert_close(x, y, rtol=rtol, atol=rtol, msg=lambda m, p=path: f"{p}: {m}")


@every_transform_and_dtype
class TestDtypes:
    def test_state_and_updates_keep_theirs(self, name: str, dtype: torch.dtype) -> None:
        tx, params, grads = TRANSFORMS[name], draw(0, dtype), draw(1, dtype)
        state = first = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(grads, state, params)
            tree.assert_same_structure(params, updates)
            tree.assert_same_structure(first, state)
        assert state.count.item() == 2

    def test_vmap_equals_a_loop(self, name: str, dtype: torch.dtype) -> None:
        tx, params = TRANSFORMS[name], draw(0, dtype, (LANES,))
        grads = [draw(t, dtype, (LANES,)) for t in (1, 2, 3)]
        found = vmap(lambda p, g: run(tx, p, g))(params, grads)
        lanes = zip(tree.unstack(params), tree.unstack(grads), strict=True)
        assert_close(found, tree.stack([run(tx, p, g) for p, g in lanes]))

    def test_vmapped_hyperparameters_equal_a_loop(self, name: str, dtype: torch.dtype) -> None:
        """A sweep: stacked hyperparameters, one initialisation."""
        tx, params = TRANSFORMS[name], draw(0, dtype)
        grads = [draw(t, dtype) for t in (1, 2, 3)]
        states = [
            tx.init(params)._replace(
                hyperparams={n: x * factor for n, x in tx.init(params).hyperparams.items()}
            )
            for factor in (1.0, 0.9, 0.5)
        ]
        found = vmap(lambda s: walk(tx, params, s, grads))(tree.stack(states))
        loop = [walk(tx, params, state, grads) for state in states]
        assert_close(found, tree.stack(loop))
        if states[0].hyperparams and name != "scheduled":
            assert not torch.equal(loop[0][0]["w"], loop[2][0]["w"])


@every_transform
def test_updates_are_in_the_dtype_of_params(name: str) -> None:
    tx, params, grads = TRANSFORMS[name], draw(0, torch.bfloat16), draw(1, torch.float32)
    updates, _ = tx.update(grads, tx.init(params), params)
    tree.assert_same_structure(params, updates)


@every_transform
def test_pure(name: str) -> None:
    tx, params, grads = TRANSFORMS[name], draw(0, torch.float32), draw(1, torch.float32)
    _, state = run(tx, params, [grads])
    given = (grads, state, params)
    copies, versions = tree.map(torch.clone, given), tree.map(lambda x: x._version, given)
    generator = torch.get_rng_state()
    first = tx.update(*given)
    again = tx.update(*given)
    for before, after in ((copies, given), (first, again)):
        tree.assert_same_structure(before, after)
        for x, y in zip(tree.leaves(before), tree.leaves(after), strict=True):
            assert torch.equal(x, y)
    assert versions == tree.map(lambda x: x._version, given)
    assert torch.equal(generator, torch.get_rng_state())


@every_transform_and_dtype
def test_all_leaves_at_once_are_the_leaves_one_by_one(name: str, dtype: torch.dtype) -> None:
    """Under `no_grad` foreach kernels run, otherwise a loop."""
    tx, params, grads = TRANSFORMS[name], draw(0, dtype), [draw(t, dtype) for t in (1, 2, 3)]
    one_by_one = run(tx, params, grads)
    with torch.no_grad():
        assert_close(run(tx, params, grads), one_by_one)


def turned(tree_: Any) -> Any:
    """The same tree, the keys of every dict in the opposite order."""
    if isinstance(tree_, dict):
        return {key: turned(tree_[key]) for key in reversed(tree_)}
    if isinstance(tree_, tuple):
        made = [turned(part) for part in tree_]
        return type(tree_)(*made) if hasattr(tree_, "_fields") else tuple(made)
    return tree_


@every_transform
@pytest.mark.parametrize("plain", [True, False], ids=["at once", "one by one"])
def test_order_of_keys_does_not_matter(name: str, plain: bool) -> None:
    """Gradients and states come from anywhere; the leaves are alike, so that no shape tells."""
    tx = TRANSFORMS[name]
    params, grads = ({k: normal(s, i, 2, 3) for i, k in enumerate("abc")} for s in (0, 1))
    with torch.set_grad_enabled(not plain):
        _, state = optim.step(tx, params, grads, tx.init(params))
        wanted = optim.step(tx, params, grads, state)
        found = optim.step(tx, params, turned(grads), turned(state))
        updates, _ = tx.update(turned(grads), turned(state), params)
    assert_close(found, wanted)
    assert_close({k: params[k] + updates[k] for k in params}, wanted[0])


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name not in REAL_ONLY])
def test_conjugate_views(name: str) -> None:
    """Autograd hands out complex gradients that are conjugated only in name."""
    tx, params, grads = TRANSFORMS[name], draw(0, torch.complex64), draw(1, torch.complex64)
    lazy = tree.map(torch.conj, grads)
    assert_close(
        tx.update(lazy, tx.init(params), tree.map(torch.conj, params)),
        tx.update(
            tree.map(torch.resolve_conj, lazy),
            tx.init(params),
            tree.map(torch.conj_physical, params),
        ),
    )


@every_transform
def test_empty_tree(name: str) -> None:
    tx = TRANSFORMS[name]
    updates, state = tx.update({}, tx.init({}), {})
    assert updates == {}
    tree.assert_same_structure(tx.init({}), state)
    assert all(torch.isfinite(leaf).all() for leaf in tree.leaves(state))


@every_transform
def test_nested_tree(name: str) -> None:
    """The same numbers, whatever holds them."""
    tx = TRANSFORMS[name]

    def nest(flat: Params) -> Any:
        return {"a": {"b": Point(flat["w"], [flat["s"]])}, "c": (None, flat["none"])}

    params, grads = draw(0, torch.float64), [draw(t, torch.float64) for t in (1, 2, 3)]
    nested, _ = run(tx, nest(params), [nest(g) for g in grads])
    assert_close(nested, nest(run(tx, params, grads)[0]))


@every_transform
def test_differentiable_through_steps(name: str) -> None:
    """With respect to every hyperparameter, the gradients and the start, by finite differences.

    Of the gradients, one is exactly zero, as a dead unit's is: square roots must survive it.
    """
    if name in UNDIFFERENTIATED:
        pytest.skip(UNDIFFERENTIATED[name])
    tx, start = TRANSFORMS[name], draw(0, torch.float64)
    grads = [draw(t, torch.float64) for t in (1, 2, 3)]
    state = tx.init(start)
    # Not what is at the edge of its range, within which differences are taken.
    names = [n for n, x in state.hyperparams.items() if x > 1e-6]

    def end(*inputs: Tensor) -> tuple[Tensor, ...]:
        hyperparams = {**state.hyperparams, **dict(zip(names, inputs[2:], strict=True))}
        params = {**start, "s": inputs[0]}
        first = {**grads[0], "s": inputs[1]}
        params, _ = walk(tx, params, state._replace(hyperparams=hyperparams), [first, *grads[1:]])
        return params["w"], params["s"]

    inputs = [start["s"], grads[0]["s"], *[state.hyperparams[n] for n in names]]
    inputs = [x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(end, inputs, eps=1e-7, atol=1e-5, rtol=1e-4)


def each_steps(inputs: dict[str, tuple[Params, Params, Any]]) -> dict[str, Any]:
    return {name: optim.step(TRANSFORMS[name], *given) for name, given in inputs.items()}


@pytest.mark.parametrize("batched", [False, True], ids=["solo", "vmap"])
@pytest.mark.parametrize("names", [COMPILED[i::6] for i in range(6)], ids=lambda n: n[0])
def test_compiled_equals_eager(names: list[str], batched: bool) -> None:
    """One graph of several transformations, since each compilation takes seconds."""
    params, *grads = [draw(t, torch.float32, (LANES,) if batched else ()) for t in range(3)]
    start = vmap(run, in_dims=(None, 0, 0)) if batched else run
    fn = (lambda inputs: vmap(each_steps)(inputs)) if batched else each_steps
    inputs = {}
    for name in names:
        after_one_step, state = start(TRANSFORMS[name], params, grads[:1])
        inputs[name] = (after_one_step, grads[1], state)
    compiled = torch.compile(fn, fullgraph=True, dynamic=False)
    after = fn(inputs)
    assert_close(compiled(inputs), after)
    later = {
        name: (params, grads[2 % len(grads)], state) for name, (params, state) in after.items()
    }
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_close(compiled(later), fn(later))
