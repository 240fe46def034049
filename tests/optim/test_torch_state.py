"""A run goes over to `torch.optim` and back, and its trajectory does not notice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from asserts import assert_equal
from torch import Tensor, nn

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params

Optimizer = torch.optim.Optimizer
Flags = dict[str, Any]

# The optimizer's name in fdnn and in torch, and flags of both.
CASES: dict[str, tuple[Callable[..., GradientTransformation], type[Optimizer], Flags]] = {
    "sgd": (optim.sgd, torch.optim.SGD, {"lr": 0.1}),
    "sgd momentum": (
        optim.sgd,
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1, "maximize": True},
    ),
    "adam": (optim.adam, torch.optim.Adam, {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "adam amsgrad": (optim.adam, torch.optim.Adam, {"lr": 0.1, "amsgrad": True, "eps": 0.01}),
    "adamw": (optim.adamw, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.2}),
    "adadelta": (optim.adadelta, torch.optim.Adadelta, {"lr": 0.5, "rho": 0.8}),
    "adafactor": (optim.adafactor, torch.optim.Adafactor, {"lr": 0.1, "eps": (1e-6, 1e-2)}),
    "adafactor eps": (optim.adafactor, torch.optim.Adafactor, {"lr": 0.1, "weight_decay": 0.1}),
    "adagrad": (
        optim.adagrad,
        torch.optim.Adagrad,
        {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5},
    ),
    "adamax": (optim.adamax, torch.optim.Adamax, {"lr": 0.1, "betas": (0.8, 0.9)}),
    "asgd": (optim.asgd, torch.optim.ASGD, {"lr": 0.1, "t0": 3.0, "lambd": 0.1}),
    "nadam": (optim.nadam, torch.optim.NAdam, {"lr": 0.1, "momentum_decay": 0.01}),
    "radam": (optim.radam, torch.optim.RAdam, {"lr": 0.1, "betas": (0.8, 0.9)}),
    "rmsprop": (optim.rmsprop, torch.optim.RMSprop, {"lr": 0.1}),
    "rmsprop centered": (
        optim.rmsprop,
        torch.optim.RMSprop,
        {"lr": 0.1, "momentum": 0.5, "centered": True, "alpha": 0.9, "weight_decay": 0.1},
    ),
    "rprop": (
        optim.rprop,
        torch.optim.Rprop,
        {"lr": 0.1, "etas": (0.6, 1.3), "step_sizes": (1e-4, 1.0)},
    ),
    "muon": (optim.muon, torch.optim.Muon, {"lr": 0.1, "weight_decay": 0.2}),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
SPLITS = [0, 1, 5]
STEPS = 30


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    """torch keeps NAdam's product and ASGD's eta in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def begin(case: Any = None) -> Params:
    generator = torch.Generator().manual_seed(0)
    shapes = {"z": (3, 2), "a": (2, 4)}
    if case is None or case[1] is not torch.optim.Muon:
        shapes |= {"m": (4,), "s": ()}
    return {name: torch.randn(size, generator=generator) for name, size in shapes.items()}


def slope(x: Tensor, t: int) -> Tensor:
    place = torch.arange(1, x.numel() + 1, dtype=torch.float64).reshape(x.shape)
    return (2 * x / (1 + x**2) + torch.cos(place * t + place**2)).to(x.dtype)


def walk_ours(
    tx: GradientTransformation, params: Params, state: Any, times: range
) -> tuple[Params, Any]:
    for t in times:
        params, state = optim.step(tx, params, tree.map(lambda p, t=t: slope(p, t), params), state)
    return params, state


def walk_theirs(optimizer: Optimizer, leaves: dict[str, nn.Parameter], times: range) -> None:
    for t in times:
        for leaf in leaves.values():
            leaf.grad = slope(leaf.detach(), t)
        optimizer.step()


def parameters(params: Params) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(value.clone()) for name, value in params.items()}


def values(leaves: dict[str, nn.Parameter]) -> Params:
    return {name: leaf.detach().clone() for name, leaf in leaves.items()}


def assert_same_way(found: Params, expected: Params, start: Params) -> None:
    way = math.sqrt(sum((expected[n] - x).abs().square().sum().item() for n, x in start.items()))
    assert way > 0.1
    for name, x in expected.items():
        assert (found[name] - x).abs().max() <= 1e-12 * way, name


def whole(case: Any) -> Params:
    """What torch alone arrives at."""
    _, theirs, flags = case
    leaves = parameters(begin(case))
    walk_theirs(theirs(leaves.values(), **flags), leaves, range(STEPS))
    return values(leaves)


@every_case
@pytest.mark.parametrize("split", SPLITS)
def test_from_torch(case: Any, split: int) -> None:
    ours, theirs, flags = case
    start, leaves = begin(case), parameters(begin(case))
    optimizer = theirs(leaves.values(), **flags)
    walk_theirs(optimizer, leaves, range(split))
    params, tx = values(leaves), ours(**{**flags, "lr": 100.0})
    state = optim.from_torch(optimizer.state_dict(), tx, params)
    assert state.hyperparams["lr"] == flags["lr"]
    tree.assert_same_structure(tx.init(params), state)
    before = tree.map(torch.clone, state)
    walk_theirs(optimizer, leaves, range(split, split + 1))
    assert_equal(state, before)  # it shares no memory with torch's
    params, state = walk_ours(tx, params, state, range(split, STEPS))
    assert_same_way(params, whole(case), start)
    if theirs not in (torch.optim.SGD, torch.optim.Muon):
        assert state.count == STEPS


@every_case
@pytest.mark.parametrize("split", SPLITS)
def test_to_torch(case: Any, split: int) -> None:
    ours, theirs, flags = case
    start, tx = begin(case), ours(**flags)
    params, state = walk_ours(tx, start, tx.init(start), range(split))
    leaves = parameters(tree.map(torch.zeros_like, start))
    rest = {name: value for name, value in flags.items() if isinstance(value, bool)}
    for name in ("weight_decay", "momentum"):  # kept only where they are not 0
        rest |= {name: flags[name] / 2} if name in flags else {}
    optimizer = theirs(leaves.values(), **rest)
    walk_theirs(optimizer, leaves, range(3))  # what is there is overwritten
    before = tree.map(torch.clone, (params, state))
    optim.to_torch(state, params, optimizer)
    walk_theirs(optimizer, leaves, range(split, STEPS))
    assert_same_way(values(leaves), whole(case), start)
    assert_equal((params, state), before)  # they share no memory


@every_case
def test_there_and_back(case: Any) -> None:
    """The state of fdnn is the same to the bit."""
    ours, theirs, flags = case
    tx, start = ours(**flags), begin(case)
    params, state = walk_ours(tx, start, tx.init(start), range(4))
    leaves = parameters(start)
    optimizer = theirs(leaves.values(), **flags)
    optim.to_torch(state, params, optimizer)
    again = optim.from_torch(optimizer.state_dict(), tx, values(leaves), count=4)
    assert_equal(values(leaves), params)
    assert_equal(again, state)


GROUPS: dict[str, list[Flags]] = {
    "adamw": [{"lr": 0.1, "weight_decay": 0.3}, {"lr": 0.02, "weight_decay": 0.0}],
    "sgd": [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.2, "momentum": 0.5, "weight_decay": 0.1}],
    "sgd mixed": [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.2}],
}


@pytest.mark.parametrize("how", ["order", "names", "tensors"])
@pytest.mark.parametrize("name", GROUPS)
def test_groups(name: str, how: str) -> None:
    """Torch's groups are the labels of a partition, their hyperparameters `label.lr`."""
    ours, theirs, _ = CASES[name.split()[0]]
    flags = GROUPS[name]
    # In another order than that of `params`.
    tx = optim.partition(
        {"odd": ours(**flags[0]), "even": ours(**flags[1])}, {"odd": ["s", "z"], "even": "*"}
    )
    start = begin()
    members = [["z", "s"], ["a", "m"]]
    if how != "order":
        members = [["s", "z"], ["m", "a"]]

    def torchs(leaves: dict[str, nn.Parameter], flags: list[Flags]) -> Optimizer:
        groups = [
            {
                "params": [(n, leaves[n]) if how == "names" else leaves[n] for n in names],
                **each,
            }
            for names, each in zip(members, flags, strict=True)
        ]
        return theirs(groups, lr=1.0)

    leaves = parameters(start)
    walk_theirs(torchs(leaves, flags), leaves, range(STEPS))
    expected = values(leaves)

    # From fdnn to torch ...
    params, state = walk_ours(tx, start, tx.init(start), range(5))
    leaves = parameters(start)
    blunt = [{**each, "lr": 1.0} for each in flags]
    optimizer = torchs(leaves, blunt)
    if how == "tensors":
        with torch.no_grad():
            for n, leaf in leaves.items():
                leaf.copy_(params[n])
        optim.to_torch(state, dict(leaves), optimizer)
    else:
        optim.to_torch(state, params, optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [each["lr"] for each in flags]
    walk_theirs(optimizer, leaves, range(5, 10))
    # ... and back.
    if how == "tensors":
        with pytest.raises(ValueError, match="at path 'z': expected"):
            optim.from_torch(optimizer.state_dict(), tx, values(leaves))
        return
    state = optim.from_torch(optimizer.state_dict(), tx, values(leaves), count=10)
    assert state.hyperparams["even.lr"] == flags[1]["lr"]
    params, state = walk_ours(tx, values(leaves), state, range(10, STEPS))
    assert_same_way(params, expected, start)
    assert state.count == STEPS


def test_frozen_parameters_are_not_torchs() -> None:
    tx, start = optim.freeze(optim.adam(0.1), "m"), begin()
    params, state = walk_ours(tx, start, tx.init(start), range(3))
    leaves = {name: leaf for name, leaf in parameters(start).items() if name != "m"}
    optimizer = torch.optim.Adam(leaves.values())
    optim.to_torch(state, params, optimizer)
    walk_theirs(optimizer, leaves, range(3, 6))
    state = optim.from_torch(optimizer.state_dict(), tx, {**start, **values(leaves)})
    expected, _ = walk_ours(tx, start, tx.init(start), range(6))
    assert_same_way({**start, **values(leaves)}, expected, start)
    assert state.count == 6


def test_bfloat16_and_complex() -> None:
    start = {
        "h": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "c": torch.tensor([1 + 2j, -1j], dtype=torch.complex64),
    }
    grads = {"h": start["h"] / 3, "c": start["c"] / 3}
    tx = optim.adam(0.1)
    params, state = optim.step(tx, start, grads, tx.init(start))
    leaves = parameters(start)
    optimizer = torch.optim.Adam(leaves.values())
    optim.to_torch(state, params, optimizer)
    for name, leaf in leaves.items():
        assert torch.equal(optimizer.state[leaf]["exp_avg_sq"], state.slots["exp_avg_sq"][name])
    again = optim.from_torch(optimizer.state_dict(), tx, values(leaves))
    assert_equal(again, state)


def test_averages_begin_anew_and_tensors_stay_tensors() -> None:
    leaves = parameters(begin())
    optimizer = torch.optim.Adam(leaves.values(), lr=torch.tensor(0.1))
    walk_theirs(optimizer, leaves, range(3))
    tx = optim.chain(optim.adam(), optim.swa(0))
    state = optim.from_torch(optimizer.state_dict(), tx, values(leaves))
    assert_equal(optim.averaged_params(state), values(leaves))
    optim.to_torch(optim.set_hyperparams(state, lr=0.3), values(leaves), optimizer)
    lr = optimizer.param_groups[0]["lr"]
    assert isinstance(lr, Tensor)
    assert lr.item() == 0.3


def test_a_schedule_goes_on() -> None:
    """It is a function of the count, which SGD of torch does not keep."""
    start, leaves = begin(), parameters(begin())
    schedule = lambda count: 0.1 / (1 + count.double())  # noqa: E731
    tx = optim.sgd(schedule, momentum=0.9)
    expected, _ = walk_ours(tx, start, tx.init(start), range(STEPS))
    optimizer = torch.optim.SGD(leaves.values(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    for t in range(7):
        walk_theirs(optimizer, leaves, range(t, t + 1))
        scheduler.step()
    with pytest.raises(ValueError, match="`count` must be given: `tx` follows a schedule"):
        optim.from_torch(optimizer.state_dict(), tx, values(leaves))
    state = optim.from_torch(optimizer.state_dict(), tx, values(leaves), count=7)
    params, _ = walk_ours(tx, values(leaves), state, range(7, STEPS))
    assert_same_way(params, expected, start)


class TestErrors:
    def stepped(self, kind: Any = torch.optim.Adam, **flags: Any) -> tuple[Any, Any]:
        leaves = parameters(begin())
        optimizer = kind(leaves.items(), **flags)
        walk_theirs(optimizer, leaves, range(2))
        return optimizer, leaves

    def from_torch(self, message: str, optimizer: Any, tx: Any, params: Any, **how: Any) -> None:
        with pytest.raises(ValueError, match=message):
            optim.from_torch(optimizer.state_dict(), tx, params, **how)

    def test_names(self) -> None:
        optimizer, leaves = self.stepped()
        params = {**values(leaves), "new": torch.zeros(1)}
        self.from_torch(r"torch lacks \['new'\]", optimizer, optim.adam(), params)
        del params["new"], params["m"]
        self.from_torch(r"`params` lack \['m'\]", optimizer, optim.adam(), params)
        state = optim.adam().init(params)
        with pytest.raises(ValueError, match=r"`params` lack \['m'\]"):
            optim.to_torch(state, params, optimizer)

    def test_shapes(self) -> None:
        optimizer, leaves = self.stepped()
        params = {**values(leaves), "m": torch.zeros(5)}
        message = r"at path 'm': expected `exp_avg` of shape \(5,\), found \(4,\)"
        self.from_torch(message, optimizer, optim.adam(), params)
        tx = optim.adam()
        with pytest.raises(ValueError, match=r"at path 'm': expected \(4,\) .* found \(5,\)"):
            optim.to_torch(tx.init(params), params, optimizer)

    def test_slots(self) -> None:
        optimizer, leaves = self.stepped()
        params = values(leaves)
        for tx in (optim.adam(amsgrad=True), optim.rmsprop(), optim.sgd()):
            message = r"torch's state has \['exp_avg', 'exp_avg_sq'\]; are the flags the same"
            self.from_torch(message, optimizer, tx, params)
            message = r"Adam with these flags keeps \['exp_avg', 'exp_avg_sq'\]"
            with pytest.raises(ValueError, match=message):
                optim.to_torch(tx.init(params), params, optimizer)
        lbfgs = torch.optim.LBFGS(leaves.values())
        with pytest.raises(ValueError, match=r"`optimizer` must be one of .*, got LBFGS"):
            optim.to_torch(optim.adam().init(params), params, lbfgs)

    def test_hyperparameters(self) -> None:
        optimizer, leaves = self.stepped(weight_decay=0.1)
        params = values(leaves)
        message = "torch's group has `weight_decay` 0.1, the state no `weight_decay`"
        self.from_torch(message, optimizer, optim.adam(), params)
        with pytest.raises(ValueError, match=r"`weight_decay` 0.1, `opt_state` has none"):
            optim.to_torch(optim.adam().init(params), params, optimizer)
        self.from_torch("must have an `lr`", optimizer, optim.scale_by_adam(), params)

    def test_steps(self) -> None:
        optimizer, leaves = self.stepped()
        leaves["m"].grad = None
        optimizer.step()
        message = "the same number of steps, got {'z': 3, 'a': 3, 'm': 2, 's': 3}"
        self.from_torch(message, optimizer, optim.adam(), values(leaves))
        optimizer, leaves = self.stepped()
        del optimizer.state[leaves["m"]]  # it never had a gradient
        self.from_torch("'m': 0", optimizer, optim.adam(), values(leaves))
        optimizer, leaves = self.stepped()
        self.from_torch(
            "`count` must be torch's 2, got 5", optimizer, optim.adam(), values(leaves), count=5
        )

    def test_groups(self) -> None:
        leaves = parameters(begin())
        groups = [
            {"params": [leaves["z"], leaves["a"]], "lr": 0.1},
            {"params": [leaves["m"], leaves["s"]], "lr": 0.2},
        ]
        optimizer = torch.optim.Adam(groups)
        walk_theirs(optimizer, leaves, range(2))
        params = values(leaves)
        message = "2 groups have no names .* make the optimizer from `module.named_parameters"
        self.from_torch(message, optimizer, optim.adam(), params)
        with pytest.raises(ValueError, match=message):
            optim.to_torch(optim.adam().init(params), params, optimizer)
        named = torch.optim.Adam(
            [
                {"params": [(n, leaves[n]) for n in names], "lr": lr}
                for names, lr in (("za", 0.1), ("ms", 0.2))
            ]
        )
        walk_theirs(named, leaves, range(2))
        message = "`lr` is 0.1 in torch's group 0 and 0.2 in group 1; .* use `optim.partition`"
        self.from_torch(message, named, optim.adam(), values(leaves))
        crossed = optim.partition({"x": optim.adam(), "y": optim.adam()}, {"x": "z", "y": "*"})
        self.from_torch(r"labels \['x', 'y'\]: \['z', 'a'\]", named, crossed, params)

    def test_many_runs(self) -> None:
        params = tree.stack([begin(), begin()])
        state = torch.vmap(optim.adam().init)(params)
        optimizer = torch.optim.Adam(parameters(begin()).values())
        with pytest.raises(ValueError, match=r"`opt_state` must be of one run, got 2; .*unstack"):
            optim.to_torch(state, params, optimizer)

    def test_foreign_transformations(self) -> None:
        optimizer, leaves = self.stepped()
        foreign = optim.with_extra_args(GradientTransformation(lambda p: (), lambda *a: a))
        self.from_torch("`tx` must be an optimizer of fdnn", optimizer, foreign, values(leaves))
