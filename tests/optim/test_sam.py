"""`sam`: by hand, against pytorch-optimizer and optax, with the state of what it wraps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close
from torch import Tensor, nn
from torch.func import vmap

from fdnn import functionalize, optim, random, train, tree
from fdnn.types import GradientTransformation, Params

GOLDEN = json.loads(Path(__file__).with_name("sam_golden.json").read_text())
Evaluate = Callable[[Params], tuple[Tensor, Params]]


def loss(params: Params) -> Tensor:
    x, y = params["x"], params["y"]
    return torch.log(1 + (x - 1) ** 2).sum() + (0.1 * x.sum() * y + (y + 0.5) ** 2 / 2).sum()


def differentiated(loss: Callable[[Params], Tensor]) -> Evaluate:
    def value_and_grad(params: Params) -> tuple[Tensor, Params]:
        grads, value = torch.func.grad_and_value(loss)(params)
        return value, grads

    return value_and_grad


def walk(
    tx: GradientTransformation, params: Params, evaluate: Evaluate, steps: int
) -> tuple[list[Params], Any]:
    state, path = tx.init(params), [params]
    for _ in range(steps):
        value, grads = evaluate(params)
        params, state = optim.step(tx, params, grads, state, value=value, value_and_grad=evaluate)
        path.append(params)
    return path, state


def start() -> Params:
    return {
        "x": torch.tensor([[0.5, -1.2], [2.0, 0.3]], dtype=torch.float64),
        "y": torch.tensor([-0.7, 1.5, 0.1], dtype=torch.float64),
    }


@pytest.mark.parametrize("case", GOLDEN)
def test_pytorch_optimizer(case: str) -> None:
    """As far as theirs is exact, which holds the norm in float32."""
    flags, wanted = dict(GOLDEN[case]["flags"]), GOLDEN[case]["path"]
    lr = flags.pop("lr")
    inner = optim.sgd(lr, momentum=0.9) if case.startswith("sgd") else optim.adam(lr)
    path, _ = walk(optim.sam(inner, **flags), start(), differentiated(loss), 30)
    for step, expected in wanted.items():
        expected = {name: torch.tensor(x, dtype=torch.float64) for name, x in expected.items()}
        assert_close(path[int(step)], expected, rtol=1e-7, atol=1e-7)


def test_optax() -> None:
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    contrib = pytest.importorskip("optax.contrib")
    with jax.enable_x64(True):

        def their_loss(params: Any) -> Any:
            x, y = params["x"], params["y"]
            bowl = 0.1 * x.sum() * y + (y + 0.5) ** 2 / 2
            return jax.numpy.log(1 + (x - 1) ** 2).sum() + bowl.sum()

        point = optax.chain(contrib.normalize(), optax.sgd(0.3))
        tx = contrib.sam(optax.adam(0.1), point, opaque_mode=True)
        params = {name: jax.numpy.asarray(x.numpy()) for name, x in start().items()}
        gradient = jax.jit(jax.grad(their_loss))
        state, theirs = tx.init(params), []
        for _ in range(20):
            updates, state = tx.update(
                gradient(params), state, params, grad_fn=lambda params, _: gradient(params)
            )
            params = optax.apply_updates(params, updates)
            theirs.append(
                {name: torch.tensor(x.tolist(), dtype=torch.float64) for name, x in params.items()}
            )
    ours, _ = walk(optim.sam(optim.adam(0.1), 0.3), start(), differentiated(loss), 20)
    for mine, other in zip(ours[1:], theirs, strict=True):
        assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("adaptive", "point"),
    [
        # The gradient of (3 x^2 + y^2) / 2 at (1, 4) is (3, 4), of norm 5.
        (False, (1 + 0.5 * 3 / 5, 4 + 0.5 * 4 / 5)),
        # Times the parameters it is (3, 16), of norm sqrt(265); times their squares (3, 64).
        (True, (1 + 0.5 * 3 / 265**0.5, 4 + 0.5 * 64 / 265**0.5)),
    ],
)
def test_by_hand(adaptive: bool, point: tuple[float, float]) -> None:
    curvature = {"x": 3.0, "y": 1.0}

    def evaluate(params: Params) -> tuple[Tensor, Params]:
        grads = {name: a * params[name] for name, a in curvature.items()}
        return sum(g * params[name] / 2 for name, g in grads.items()), grads  # type: ignore[return-value]

    params = {"x": torch.tensor(1.0).double(), "y": torch.tensor(4.0).double()}
    tx = optim.sam(optim.sgd(0.1), 0.5, adaptive)
    (_, after), state = walk(tx, params, evaluate, 1)
    assert after["x"].item() == pytest.approx(1 - 0.1 * 3 * point[0], rel=1e-14)
    assert after["y"].item() == pytest.approx(4 - 0.1 * point[1], rel=1e-14)
    assert state.diagnostics["grad_norm"].item() == 5


@pytest.mark.parametrize("adaptive", [False, True])
def test_at_a_zero_gradient_nothing_moves(adaptive: bool) -> None:
    """And the derivatives are numbers, as they are where a parameter is zero."""
    params = {"x": torch.zeros(2, dtype=torch.float64, requires_grad=True)}

    def evaluate(params: Params) -> tuple[Tensor, Params]:
        return params["x"].square().sum() / 2, params

    (_, after), state = walk(optim.sam(optim.sgd(0.1), 0.5, adaptive), params, evaluate, 1)
    assert torch.equal(after["x"], params["x"])
    assert state.diagnostics["grad_norm"].item() == 0
    (slope,) = torch.autograd.grad(after["x"].sum(), [params["x"]])
    assert torch.isfinite(slope).all()


def test_the_inner_state_is_found() -> None:
    inner = optim.chain(optim.add_decayed_weights(0.1), optim.adam(0.1))
    tx = optim.sam(inner, rho=lambda count: 0.1 / (1 + count))
    path, state = walk(tx, start(), differentiated(loss), 3)
    assert list(state.slots) == ["inner"]
    assert set(state.slots["inner"].slots) == {"exp_avg", "exp_avg_sq"}
    assert state.count == state.slots["inner"].count == 3
    values = optim.diagnostics(state)
    assert values["rho"].item() == pytest.approx(0.1 / 3)
    assert values["lr"].item() == 0.1
    value, grads = differentiated(loss)(path[-1])
    stopped = optim.set_hyperparams(state, lr=0.0)
    params, _ = optim.step(
        tx, path[-1], grads, stopped, value=value, value_and_grad=differentiated(loss)
    )
    assert_close(params, path[-1], rtol=0, atol=0)


def test_inner_gets_the_loss_at_the_point() -> None:
    """Polyak's step is then of one function, with its own gradient."""
    params = {"x": torch.tensor([3.0, 4.0]).double()}

    def evaluate(params: Params) -> tuple[Tensor, Params]:
        return params["x"].square().sum() / 2, params

    (_, after), state = walk(optim.sam(optim.polyak_sgd(), 1.0), params, evaluate, 1)
    assert state.slots["inner"].diagnostics["step_size"].item() == 0.5
    torch.testing.assert_close(after["x"], params["x"] * (1 - 0.5 * 6 / 5))


def test_a_whole_and_a_building_block() -> None:
    """What it wraps decides whether `masked` lets the other leaves' gradients through."""
    assert optim.sam(optim.sgd()).parts[0].is_step
    assert not optim.sam(optim.scale_by_adam()).parts[0].is_step


@pytest.mark.parametrize("inner", [optim.sgd(0.1), optim.lbfgs(0.5, max_iter=3)])
def test_some_leaves(inner: GradientTransformation) -> None:
    """`value_and_grad` of a group is a function of its leaves; the others stay where they are."""
    tx = inner if inner.init(start()).slots else optim.sam(inner, 0.3)
    frozen, params = optim.freeze(tx, "x"), start()

    def evaluate(params: Params) -> tuple[Tensor, Params]:
        value, grads = differentiated(loss)({**start(), **params})
        return value, {"y": grads["y"]}

    path, _ = walk(frozen, params, differentiated(loss), 3)
    alone, _ = walk(tx, {"y": params["y"]}, evaluate, 3)
    assert_close(path[-1], {"x": params["x"], "y": alone[-1]["y"]}, rtol=0, atol=0)
    assert not torch.equal(path[-1]["y"], params["y"])


class TestTraining:
    """With a step that `train.make_step` builds: batch norm, dropout, lanes."""

    model = functionalize(
        nn.Sequential(
            nn.Linear(3, 5, bias=False), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2)
        )
    )
    batch = (torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)

    def step(self, tx: GradientTransformation) -> train.Step:
        return train.make_step(train.supervised(self.model, F.cross_entropy), tx)

    def test_is_plain_training_where_the_radius_is_zero(self) -> None:
        """The second gradient drops the same units and leaves the running statistics alone."""
        ends = []
        for tx in (optim.sgd(0.1), optim.sam(optim.sgd(0.1), rho=0.0)):
            state = train.init(self.model, tx, random.key(0))
            for _ in range(2):
                state, _ = self.step(tx)(state, self.batch)
            ends.append((state.params, state.buffers))
        assert_close(ends[1], ends[0], rtol=1e-5, atol=1e-6)

    def test_lanes(self) -> None:
        tx = optim.sam(optim.adam(0.1), rho=0.5)
        states = [train.init(self.model, tx, random.key(i)) for i in range(3)]
        found, info = vmap(self.step(tx), (0, None))(tree.stack(states), self.batch)
        alone = [self.step(tx)(state, self.batch)[0] for state in states]
        assert_close(found.params, tree.stack([state.params for state in alone]), 1e-4, 1e-5)
        assert info["grad_norm"].shape == (3,)


class TestErrors:
    def test_radius(self) -> None:
        with pytest.raises(ValueError, match=r"^`rho` must be at least 0, got -0.1$"):
            optim.sam(optim.sgd(), rho=-0.1)

    def test_no_function(self) -> None:
        tx, params = optim.sam(optim.sgd()), start()
        with pytest.raises(
            ValueError, match=r"`value_and_grad` must be given .*`sam` needs a func"
        ):
            optim.step(tx, params, params, tx.init(params))

    def test_no_parameters(self) -> None:
        tx, params = optim.sam(optim.sgd()), start()
        with pytest.raises(ValueError, match="`params` must be given to `update`"):
            tx.update(params, tx.init(params), value_and_grad=differentiated(loss))
