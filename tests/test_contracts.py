"""The contract that every public function keeps, as a registry crossed with the transforms.

A row gives a function of tensors and the arguments of lane i. A new public function needs a row
here, or a reason in `EXEMPT`; the tests then come for free: it is pure, vmap is a loop, chunks
change nothing, and it compiles as one graph, vmapped too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from torch import Tensor, nn, vmap

import fdnn
from fdnn import functionalize, initializers, metrics, optim, random, train, tree

LANES = 3


class Row(NamedTuple):
    """A pure function, and its arguments in lane i.

    Attributes:
        fn: takes and returns trees of tensors.
        args: the arguments of a lane.
        exact: whether a vmapped or compiled call gives the same bits.
    """

    fn: Callable[..., Any]
    args: Callable[[int], tuple[Any, ...]]
    exact: bool = True


def key(lane: int) -> tuple[Tensor]:
    return (random.key(lane),)


def normal(lane: int, *shape: int) -> Tensor:
    return random.normal(random.key(100 + lane), shape)


def nested(lane: int) -> tuple[Any]:
    return ({"a": normal(lane, 3), "b": (normal(lane + 50, 2, 2), []), "c": {}},)


def two(lane: int) -> tuple[Any, Any]:
    return nested(lane)[0], nested(lane + 7)[0]


def params(lane: int) -> dict[str, Tensor]:
    return {"w": normal(lane, 4, 3), "b": normal(lane + 9, 4), "s": normal(lane, 1)[0]}


def draw(fn: Callable[[Tensor], Any], exact: bool = True) -> Row:
    return Row(fn, key, exact)


def initializer(fn: Any, *shape: int, exact: bool = True) -> Row:
    return Row(lambda key: fn(key, shape or (6, 4), torch.float32), key, exact)


def optimizer(tx: Any) -> Row:
    """Three steps on changing gradients: new parameters, and the whole state."""

    def run(params: Any, grads: Any) -> Any:
        state = tx.init(params)
        for factor in (1.0, -0.5, 2.0):
            scaled = tree.map(lambda g, factor=factor: g * factor, grads)
            params, state = optim.step(tx, params, scaled, state)
        return params, state

    return Row(run, lambda lane: (params(lane), params(lane + 20)), exact=False)


def metric(
    m: metrics.Metric, output: Callable[[int], Tensor], target: Callable[[int], Tensor]
) -> Row:
    def run(*batch: Tensor) -> Tensor:
        return m.compute(m.update(m.update(m.init(), *batch), *batch))

    return Row(run, lambda lane: (output(lane), target(lane)), exact=False)


def labels(lane: int) -> Tensor:
    return random.randint(random.key(lane), (5,), 0, 3, torch.int64)


def logits(lane: int) -> Tensor:
    return normal(lane, 5, 3)


MODEL = functionalize(
    nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
    )
)
TX = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(lr=lambda count: 0.1 / (count + 1)))
LOSS = train.supervised(MODEL, F.cross_entropy)
STEP = train.make_step(LOSS, TX)


def batch(lane: int) -> tuple[Tensor, Tensor]:
    return normal(lane, 5, 4), labels(lane)


def weights(lane: int) -> tuple[Any, Any]:
    return MODEL.init(random.key(lane))


def state(lane: int) -> train.TrainState:
    return train.init(MODEL, TX, random.key(lane))


ROWS: dict[str, Row] = {
    "random.bernoulli": draw(lambda key: random.bernoulli(key, 0.3, (40,))),
    "random.bits": draw(lambda key: random.bits(key, (5,)).to(torch.int64)),
    "random.categorical": Row(
        lambda k, x: random.categorical(k, x), lambda i: (*key(i), logits(i))
    ),
    "random.choice": Row(lambda k, x: random.choice(k, x, (3,)), lambda i: (*key(i), normal(i, 9))),
    "random.exponential": draw(lambda key: random.exponential(key, (9,)), exact=False),
    "random.fold_in": Row(random.fold_in, lambda i: (*key(i), torch.tensor(i))),
    "random.gumbel": draw(lambda key: random.gumbel(key, (9,)), exact=False),
    "random.normal": draw(lambda key: random.normal(key, (9,)), exact=False),
    "random.permutation": Row(random.permutation, lambda i: (*key(i), normal(i, 9))),
    "random.randint": draw(lambda key: random.randint(key, (9,), -3, 1000)),
    "random.split": draw(lambda key: random.split(key, 3)),
    "random.threefry2x32": Row(
        lambda *words: random.threefry2x32(*words),
        lambda i: tuple(torch.arange(5) * 10**n + i for n in range(4)),
    ),
    "random.truncated_normal": draw(
        lambda key: random.truncated_normal(key, -2, 1, (9,)), exact=False
    ),
    "random.uniform": draw(lambda key: random.uniform(key, (9,))),
    "tree.cast": Row(lambda t: tree.cast(t, torch.float64), nested),
    "tree.columns": Row(lambda a, b: tree.columns(a, b), two),
    "tree.combine": Row(lambda t: tree.combine(*tree.partition(t, "a")), nested),
    "tree.global_norm": Row(tree.global_norm, nested, exact=False),
    "tree.leaves": Row(tree.leaves, nested),
    "tree.map": Row(lambda a, b: tree.map(torch.maximum, a, b), two),
    "tree.map_with_path": Row(lambda t: tree.map_with_path(lambda p, x: x * len(p), t), nested),
    "tree.partition": Row(lambda t: tree.partition(t, "b.*"), nested),
    "tree.ravel": Row(lambda t: tree.ravel(t)[1](tree.ravel(t)[0] * 2), nested),
    "tree.select": Row(lambda t: tree.select(t, "b*"), nested),
    "tree.stack": Row(lambda a, b: tree.stack([a, b]), two),
    "tree.unstack": Row(lambda x: tree.unstack({"x": x}), lambda i: (normal(i, 2, 3),)),
    "tree.where": Row(lambda a, b: tree.where(a["a"].sum() > 0, a, b), two),
    "tree.zeros_like": Row(tree.zeros_like, nested),
    "initializers.constant": initializer(initializers.constant(0.3)),
    "initializers.dirac": initializer(initializers.dirac(), 4, 3, 3),
    "initializers.glorot_normal": initializer(initializers.glorot_normal(), exact=False),
    "initializers.glorot_uniform": initializer(initializers.glorot_uniform()),
    "initializers.he_normal": initializer(initializers.he_normal(), exact=False),
    "initializers.he_uniform": initializer(initializers.he_uniform()),
    "initializers.identity": initializer(initializers.identity()),
    "initializers.lecun_normal": initializer(initializers.lecun_normal(), exact=False),
    "initializers.lecun_uniform": initializer(initializers.lecun_uniform()),
    "initializers.normal": initializer(initializers.normal(), exact=False),
    "initializers.ones": initializer(initializers.ones),
    "initializers.orthogonal": initializer(initializers.orthogonal(), exact=False),
    "initializers.sparse": initializer(initializers.sparse(0.5), exact=False),
    "initializers.torch_default": initializer(
        initializers.torch_default(nn.Linear(4, 6))["weight"]
    ),
    "initializers.truncated_normal": initializer(initializers.truncated_normal(), exact=False),
    "initializers.uniform": initializer(initializers.uniform()),
    "initializers.variance_scaling": initializer(
        initializers.variance_scaling(1.0, "fan_in", "uniform")
    ),
    "initializers.zeros": initializer(initializers.zeros),
    "optim.adam": optimizer(optim.adam(amsgrad=True, weight_decay=0.1, maximize=True)),
    "optim.adamw": optimizer(optim.adamw()),
    "optim.add_decayed_weights": optimizer(optim.add_decayed_weights(0.1)),
    "optim.apply_updates": Row(optim.apply_updates, lambda i: (params(i), params(i + 1))),
    "optim.chain": optimizer(TX),
    "optim.clip_by_global_norm": optimizer(optim.clip_by_global_norm(0.5)),
    "optim.diagnostics": Row(lambda p: optim.diagnostics(TX.init(p)), lambda i: (params(i),)),
    "optim.freeze": optimizer(optim.freeze(optim.adam(0.1), lambda path, leaf: path == "b")),
    "optim.masked": optimizer(optim.masked(optim.adam(0.1), lambda path, leaf: leaf.ndim > 1)),
    "optim.partition": optimizer(
        optim.partition(
            {"momentum": optim.sgd(0.1, momentum=0.9), "rest": optim.adamw(0.1)},
            {"momentum": lambda path, leaf: path == "w", "rest": lambda *_: True},
        )
    ),
    "optim.set_hyperparams": Row(
        lambda p: optim.set_hyperparams(optim.adam().init(p), lr=0.3, beta1=torch.tensor(0.5)),
        lambda i: (params(i),),
    ),
    "optim.set_to_zero": optimizer(optim.set_to_zero()),
    "optim.maximize": optimizer(optim.maximize()),
    "optim.scale_by_adam": optimizer(optim.scale_by_adam()),
    "optim.scale_by_learning_rate": optimizer(optim.scale_by_learning_rate(0.1)),
    "optim.scale_by_momentum": optimizer(optim.scale_by_momentum(0.9, nesterov=True)),
    "optim.sgd": optimizer(optim.sgd(0.1, momentum=0.9, dampening=0.1, weight_decay=0.01)),
    "optim.step": optimizer(optim.sgd(0.1)),
    "train.epoch_order": draw(lambda key: train.epoch_order(key, 3, 20)),
    "train.evaluate": Row(
        lambda state, data: train.evaluate(MODEL, state, data, {"accuracy": metrics.accuracy()}),
        lambda i: (state(i), batch(i)),
        exact=False,
    ),
    "train.init": draw(lambda key: train.init(MODEL, TX, key)),
    "train.make_step": Row(STEP, lambda i: (state(i), batch(i)), exact=False),
    "train.supervised": Row(LOSS, lambda i: (*weights(i), batch(i), *key(i)), exact=False),
    "train.value_and_grad": Row(
        train.value_and_grad(LOSS), lambda i: (*weights(i), batch(i), *key(i)), exact=False
    ),
    "metrics.accuracy": metric(metrics.accuracy(), logits, labels),
    "metrics.cross_entropy": metric(metrics.cross_entropy(), logits, labels),
    "metrics.mean_absolute_error": metric(metrics.mean_absolute_error(), logits, logits),
    "metrics.mean_squared_error": metric(metrics.mean_squared_error(), logits, logits),
    "functionalize": Row(
        lambda p, b, x, k: MODEL.apply(p, b, x, key=k, train=True),
        lambda i: (*weights(i), batch(i)[0], *key(i)),
        exact=False,
    ),
}

EXEMPT = {
    "jit": "compiles; donation is tested with it",
    "data.california_housing": "reads files",
    "data.diabetes": "reads files",
    "data.digits": "reads files",
    "data.fashion_mnist": "reads files",
    "data.read_idx": "reads files",
    "initializers.calculate_gain": "a number from a name",
    "initializers.fan_in_and_fan_out": "numbers from a shape",
    "metrics.from_torchmetrics": "does not vmap; its purity is tested with it",
    "model.functionalize": "is fdnn.functionalize",
    "optim.names_by_type": "names from a module",
    "optim.with_extra_args": "returns a transformation; tested with it",
    "random.key": "takes a number",
    "train.fit": "a loop with progress and interruption",
    "tree.assert_same_structure": "returns nothing",
    "tree.paths": "returns names",
}

every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def assert_same(found: Any, expected: Any, exact: bool) -> None:
    if exact:
        assert_equal(found, expected)
    else:
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


def looped(row: Row) -> Any:
    return tree.stack([row.fn(*row.args(lane)) for lane in range(LANES)])


def stacked(row: Row) -> Any:
    return tree.stack([row.args(lane) for lane in range(LANES)])


def test_registry_is_complete() -> None:
    public = {
        f"{package}.{name}"
        for package in (
            "random",
            "tree",
            "initializers",
            "optim",
            "train",
            "metrics",
            "model",
            "data",
        )
        for name in getattr(fdnn, package).__all__
        if not isinstance(getattr(getattr(fdnn, package), name), type | tuple)
    } | {"jit", "functionalize"}
    assert set(ROWS) | set(EXEMPT) == public
    assert not set(ROWS) & set(EXEMPT)


@every_row
def test_pure(row: Row) -> None:
    args, before, generator = row.args(0), row.args(0), torch.get_rng_state()
    first, second = row.fn(*args), row.fn(*args)
    assert torch.equal(torch.get_rng_state(), generator)
    assert_same(args, before, exact=True)
    assert_same(second, first, exact=True)


@every_row
def test_vmap_is_a_loop(row: Row) -> None:
    assert_same(vmap(row.fn)(*stacked(row)), looped(row), row.exact)


@every_row
def test_chunk_size_changes_nothing(row: Row) -> None:
    assert_same(vmap(row.fn, chunk_size=2)(*stacked(row)), looped(row), row.exact)


@every_row
def test_compiles(row: Row) -> None:
    """As one graph, by dynamo and autograd; what inductor makes of it is tested by package."""
    torch._dynamo.reset()  # rows share code, and dynamo counts compilations of code
    for fn, args, wanted in (
        (row.fn, row.args(1), row.fn(*row.args(1))),
        (vmap(row.fn), stacked(row), looped(row)),
    ):
        traced = torch.compile(fn, fullgraph=True, dynamic=False, backend="aot_eager")
        assert_same(traced(*args), wanted, row.exact)


@pytest.mark.parametrize("empty", [{}, (), {"a": {}, "b": []}], ids=str)
@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("optim.")])
def test_optimizers_take_empty_trees(name: str, empty: Any) -> None:
    if name.split(".")[1] in ("apply_updates", "diagnostics", "set_hyperparams", "step"):
        return
    moved, state = ROWS[name].fn(empty, empty)
    assert moved == empty
    assert state.count == 3
