"""What every transformation of `fdnn.optim` promises. A new one means a row in `TRANSFORMS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from fdnn import optim, tree
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


TRANSFORMS: dict[str, GradientTransformation] = {
    "sgd": optim.sgd(0.1),
    "sgd_momentum": optim.sgd(0.1, momentum=0.9, dampening=0.1, weight_decay=0.1, maximize=True),
    "sgd_nesterov": optim.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optim.adam(0.1, weight_decay=0.1),
    "adam_amsgrad": optim.adam(0.1, betas=(0.5, 0.6), amsgrad=True, maximize=True),
    "adam_zero_betas": optim.adam(0.1, betas=(0.0, 0.0)),
    "adamw": optim.adamw(0.1, weight_decay=0.5),
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
}
every_transform = pytest.mark.parametrize("name", TRANSFORMS)


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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_transform
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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_transform
def test_all_leaves_at_once_are_the_leaves_one_by_one(name: str, dtype: torch.dtype) -> None:
    """Under `no_grad` foreach kernels run, otherwise a loop."""
    tx, params, grads = TRANSFORMS[name], draw(0, dtype), [draw(t, dtype) for t in (1, 2, 3)]
    one_by_one = run(tx, params, grads)
    with torch.no_grad():
        assert_close(run(tx, params, grads), one_by_one)


@every_transform
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
    assert all(torch.isfinite(leaf) for leaf in tree.leaves(state))


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


@pytest.mark.parametrize(
    ("fn", "shape"),
    [(each_steps, ()), (lambda inputs: vmap(each_steps)(inputs), (LANES,))],
    ids=["solo", "vmap"],
)
def test_compiled_equals_eager(fn: Callable[..., Any], shape: tuple[int, ...]) -> None:
    """One graph of all transformations, since each compilation takes seconds."""
    params, *grads = [draw(t, torch.float32, shape) for t in range(3)]
    inputs = {}
    for name, tx in TRANSFORMS.items():
        start = vmap(run, in_dims=(None, 0, 0)) if shape else run
        after_one_step, state = start(tx, params, grads[:1])
        inputs[name] = (after_one_step, grads[1], state)
    compiled = torch.compile(fn, fullgraph=True, dynamic=False)
    assert_close(compiled(inputs), fn(inputs))
