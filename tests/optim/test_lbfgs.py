"""`lbfgs` walks torch.optim.LBFGS's trajectory: eagerly, in lanes, compiled, differentiated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import vmap
from torch.optim.lbfgs import _strong_wolfe  # the search that ours must repeat

from fdnn import functionalize, jit, optim, random, train, tree
from fdnn.optim.strong_wolfe import advance, begin, best
from fdnn.types import Params

Loss = Callable[[Params], Tensor]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


A, B = draw(12, 12), draw(12, seed=1)
INPUTS = draw(40, 4, seed=2)
TARGETS = torch.sin(INPUTS).sum(1)


def rosenbrock(params: Params) -> Tensor:
    x = torch.cat([params["x"], params["y"].reshape(-1)])
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def quadratic(params: Params) -> Tensor:
    x = params["x"].reshape(-1)
    return x @ (A @ A.mT / 12 + 0.1 * torch.eye(12)) @ x / 2 - B @ x


def network(params: Params) -> Tensor:
    hidden = torch.tanh(INPUTS @ params["w"].mT + params["b"])
    return ((hidden @ params["v"] - TARGETS) ** 2).mean()


def complex_bowl(params: Params) -> Tensor:
    z, a = params["z"], torch.complex(draw(4, 4), draw(4, 4, seed=1))
    return (a @ z - 1).abs().square().sum() + z.real.pow(4).sum()


PROBLEMS: dict[str, tuple[Loss, Params]] = {
    "rosenbrock": (
        rosenbrock,
        {"x": torch.tensor([-1.2, 1.0, 0.5]).double(), "y": torch.tensor(-0.3).double()},
    ),
    "quadratic": (quadratic, {"x": torch.zeros(3, 4, dtype=torch.float64)}),
    "network": (
        network,
        {"w": 0.3 * draw(5, 4), "b": torch.zeros(5).double(), "v": 0.3 * draw(5, seed=3)},
    ),
    "complex": (complex_bowl, {"z": torch.zeros(4, dtype=torch.complex128)}),
}


def evaluator(loss: Loss) -> Callable[[Params], tuple[Tensor, Params]]:
    """The loss and its gradient, by autograd's tape, itself differentiable."""

    def value_and_grad(params: Params) -> tuple[Tensor, Params]:
        grads, value = torch.func.grad_and_value(loss)(params)
        return value, grads

    return value_and_grad


def step(tx: Any, params: Params, state: Any, loss: Loss) -> tuple[Params, Any]:
    evaluate = evaluator(loss)
    value, grads = evaluate(params)
    return optim.step(tx, params, grads, state, value=value, value_and_grad=evaluate)


class Torchs:
    """torch's optimizer, on a copy of the parameters that may start a little aside."""

    def __init__(self, params: Params, aside: float, flags: dict[str, Any]):
        self.leaves = {
            name: (x * (1 + aside) + aside).requires_grad_() for name, x in params.items()
        }
        # In the order of our vector.
        self.optimizer = torch.optim.LBFGS([self.leaves[n] for n in sorted(self.leaves)], **flags)
        self.state = self.optimizer.state[self.optimizer.param_groups[0]["params"][0]]

    def step(self, loss: Loss) -> Tensor:
        def closure() -> Tensor:
            self.optimizer.zero_grad()
            value = loss(self.leaves)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        self.optimizer.step(closure)
        return flat({name: x.detach() for name, x in self.leaves.items()})


def flat(params: Params) -> Tensor:
    leaves = [params[name] for name in sorted(params)]
    return torch.cat([(torch.view_as_real(x) if x.is_complex() else x).flatten() for x in leaves])


FLAGS = [
    dict(zip(("line_search_fn", "lr", "history_size", "max_iter"), values, strict=True))
    for values in itertools.product([None, "strong_wolfe"], [1.0, 0.1], [3, 100], [20, 4])
]


class TestAgainstTorch:
    @pytest.mark.parametrize("flags", FLAGS, ids=str)
    @pytest.mark.parametrize("problem", PROBLEMS)
    def test_trajectory(self, problem: str, flags: dict[str, Any]) -> None:
        """As long as torch's own, started in the next float, stays where it is.

        On a function with curved valleys the distance of two runs grows tenfold in a few
        iterations, whoever makes them.
        """
        loss, params = PROBLEMS[problem]
        if problem == "rosenbrock" and flags["line_search_fn"] is None:
            flags = {**flags, "lr": flags["lr"] / 10}  # others leap away
        theirs, *others = [Torchs(params, aside, flags) for aside in (0.0, 2e-16, -3e-16)]
        tx, start = optim.lbfgs(**flags), flat(params)
        state, steps = tx.init(params), 0
        for _ in range(5):
            wanted = theirs.step(loss)
            distance = (wanted - start).norm()
            if any((other.step(loss) - wanted).norm() > 1e-11 * distance for other in others):
                break
            with torch.no_grad():
                params, state = step(tx, params, state, loss)
            assert (flat(params) - wanted).norm() <= 1e-10 * distance
            for name in ("n_iter", "func_evals"):
                assert state.slots[name].item() == theirs.state[name]
            steps += 1
        assert steps >= 1

    @pytest.mark.parametrize("search", [None, "strong_wolfe"])
    def test_slots(self, search: Any) -> None:
        loss, params = PROBLEMS["network"]
        flags = {"max_iter": 4, "max_eval": 20, "history_size": 6, "line_search_fn": search}
        theirs, tx = Torchs(params, 0.0, flags), optim.lbfgs(**flags)
        state = tx.init(params)
        for used in (3, 6, 6):
            params, state = step(tx, params, state, loss)
            theirs.step(loss)
            assert len(theirs.state["ro"]) == used
            for name in ("old_dirs", "old_stps", "ro"):
                wanted = torch.stack(list(theirs.state[name]))
                torch.testing.assert_close(
                    state.slots[name][-len(wanted) :], wanted, rtol=1e-6, atol=1e-9
                )
                assert not state.slots[name][: -len(wanted)].any()
            for name in ("d", "t", "H_diag", "prev_flat_grad", "prev_loss", "n_iter"):
                wanted = torch.as_tensor(theirs.state[name]).to(state.slots[name].dtype)
                torch.testing.assert_close(state.slots[name], wanted, rtol=1e-6, atol=1e-9)
        tree.assert_same_structure(tx.init(params), state)

    @pytest.mark.parametrize("search", [None, "strong_wolfe"])
    @pytest.mark.parametrize(
        "flags",
        [
            {"max_eval": 1},
            {"max_eval": 2},
            {"max_eval": 7},
            {"max_iter": 1},
            {"tolerance_grad": 0.5},
            {"tolerance_change": 0.3},
            {"lr": 30.0},
            {"lr": 1e-3},
        ],
        ids=str,
    )
    def test_reasons_to_stop(self, search: Any, flags: dict[str, Any]) -> None:
        loss, params = PROBLEMS["network"]
        flags = {"lr": 0.5, "line_search_fn": search, **flags}
        if flags["lr"] > 1 and not search:
            return
        theirs, tx, state = Torchs(params, 0.0, flags), optim.lbfgs(**flags), None
        state = tx.init(params)
        for _ in range(2):
            wanted = theirs.step(loss)
            params, state = step(tx, params, state, loss)
            torch.testing.assert_close(flat(params), wanted, rtol=1e-9, atol=1e-11)
            for name in ("n_iter", "func_evals"):
                assert state.slots[name].item() == theirs.state[name]

    def test_a_new_batch_every_step(self) -> None:
        """The memory mixes batches, as torch's does."""
        _, params = PROBLEMS["network"]
        flags = {"lr": 0.3, "max_iter": 3, "history_size": 4}
        theirs, tx = Torchs(params, 0.0, flags), optim.lbfgs(**flags)
        state = tx.init(params)
        for t in range(8):

            def loss(params: Params, t: int = t) -> Tensor:
                return network(params) + (params["v"] * draw(5, seed=t)).sum() / 10

            wanted = theirs.step(loss)
            params, state = step(tx, params, state, loss)
            torch.testing.assert_close(flat(params), wanted, rtol=1e-9, atol=1e-11)

    def test_at_a_minimum_only_the_evaluation_is_counted(self) -> None:
        params = {"x": torch.zeros(3)}
        tx = optim.lbfgs()
        after, state = step(tx, params, tx.init(params), lambda params: params["x"].square().sum())
        assert torch.equal(after["x"], params["x"])
        assert (state.slots["n_iter"].item(), state.slots["func_evals"].item()) == (0, 1)

    def test_value_may_be_left_out(self) -> None:
        loss, params = PROBLEMS["quadratic"]
        evaluate, tx = evaluator(loss), optim.lbfgs(max_iter=3, line_search_fn="strong_wolfe")
        grads = evaluate(params)[1]
        found = optim.step(tx, params, grads, tx.init(params), value_and_grad=evaluate)
        assert_close(found, step(tx, params, tx.init(params), loss), rtol=0, atol=0)


Function = Callable[[Tensor], Tensor]


@st.composite
def functions(draw: st.DrawFn) -> Function:
    """Functions of one number that fall at 0: with waves, flat places, walls, cliffs."""
    number = st.floats(-3, 3)
    slope, wave = draw(st.floats(-3, -0.01)), draw(number)
    square, cube, fourth = draw(number), draw(number), draw(st.floats(0, 1))
    frequency = draw(st.floats(0.1, 10))
    wall = draw(st.sampled_from([math.inf, 0.7, 3.0]))
    round_to = draw(st.sampled_from([0, 1]))

    def function(t: Tensor) -> Tensor:
        value = slope * t + square * t**2 + cube * t**3 + fourth * t**4
        value = value + wave * (torch.cos(frequency * t) - 1)
        if wall < math.inf:
            value = value - 0.1 * torch.log(1 - t / wall)  # nan behind it
        return value + (value.detach().round(decimals=round_to) - value.detach()) * round_to

    return function


class TestStrongWolfe:
    @settings(max_examples=200)
    @given(
        function=functions(),
        t=st.floats(1e-3, 10),
        limit=st.integers(1, 25),
        tolerance=st.sampled_from([1e-9, 1e-2]),
    )
    def test_is_torchs(self, function: Function, t: float, limit: int, tolerance: float) -> None:
        seen: list[list[float]] = [[], []]

        def evaluate(t: Tensor, which: int) -> tuple[Tensor, Tensor]:
            x = t.detach().reshape(1).requires_grad_()
            value = function(x).sum()
            seen[which].append(t.item())
            return value.detach(), torch.autograd.grad(value, x)[0]

        def theirs(x: Tensor, t: Any, d: Tensor) -> tuple[float, Tensor]:
            value, grad = evaluate(torch.as_tensor(t, dtype=torch.float64) * 2.0, 0)
            return value.item(), grad

        zero = torch.zeros((), dtype=torch.float64)
        value, grad = evaluate(zero, 0)
        seen[0].clear()
        d = torch.tensor([2.0]).double()
        try:
            wanted = _strong_wolfe(
                theirs, zero, t, d, value.item(), grad, grad @ d,
                tolerance_change=tolerance, max_ls=limit,
            )  # fmt: skip
        except IndexError:  # theirs, where a loss that is no number has a slope of 0
            return
        first = torch.tensor(t, dtype=torch.float64)
        search = begin(first, value, grad, grad @ d, torch.tensor(limit))
        while not search.done:
            loss, g = evaluate(search.t * 2.0, 1)
            search = advance(
                search,
                loss,
                g,
                g @ d,
                torch.tensor(2.0),
                torch.tensor(tolerance, dtype=torch.float64),
            )
        assert not any(map(math.isnan, seen[1]))
        if any(map(math.isnan, seen[0])):  # as theirs goes on after 0 / 0
            both = zip(*seen, strict=False)
            same = list(itertools.takewhile(lambda pair: not math.isnan(pair[0]), both))
            assert [ours for _, ours in same] == pytest.approx([them for them, _ in same])
            return
        far = next((i for i, t in enumerate(seen[0]) if abs(t) > 1e4), None)
        if far is not None:  # the last digits of losses of 1e16 decide where the cubic is least
            assert seen[1][:far] == pytest.approx(seen[0][:far], rel=1e-5, abs=1e-9)
            return
        assert seen[1] == pytest.approx(seen[0], rel=1e-5, abs=1e-9)
        end = best(search)
        assert [end.t.item(), end.loss.item()] == pytest.approx(
            [float(wanted[2]), float(wanted[0])], rel=1e-5, abs=1e-9, nan_ok=True
        )
        assert len(seen[1]) == wanted[3] <= limit + 1

    def test_an_infinite_loss(self) -> None:
        """Where torch's next step length is NaN, and all parameters with it."""
        zero, tolerance = torch.zeros(()).double(), torch.tensor(1e-9).double()
        one, slope = torch.ones(1).double(), torch.tensor(-2.0).double()
        search = begin(zero + 100, zero, -2 * one, slope, torch.tensor(25))
        search = advance(search, zero + math.inf, one, slope + math.inf, one[0], tolerance)
        assert search.t.item() == 50

    @pytest.mark.parametrize("t", [1e-4, 0.9, 20.0])
    def test_finds_what_it_looks_for(self, t: float) -> None:
        """Along exp(t) - 3 t - 1, whose minimum is at log(3), from steps too short and too long."""
        d = torch.ones(1).double()
        zero, slope = torch.zeros(()).double(), torch.tensor(-2.0).double()
        search = begin(torch.tensor(t).double(), zero, -2 * d, slope, torch.tensor(25))
        while not search.done:
            loss, slope = search.t.exp() - 3 * search.t - 1, search.t.exp() - 3
            search = advance(search, loss, slope * d, slope, torch.tensor(1.0), zero + 1e-9)
        end = best(search)
        assert end.loss <= 1e-4 * end.t * -2
        assert abs(end.slope) <= 0.9 * 2
        assert end.t.item() == pytest.approx(math.log(3), abs=1)


class TestTransforms:
    """No value is looked at: the iterations are bounded and masked."""

    @pytest.mark.parametrize("search", [None, "strong_wolfe"])
    def test_lanes_stop_when_they_would_alone(self, search: Any) -> None:
        tx = optim.lbfgs(
            0.5, max_iter=8, history_size=3, tolerance_grad=1e-2, line_search_fn=search
        )
        scales = torch.tensor([0.0, 0.02, 0.3, 1.0])
        starts = {"x": scales[:, None] * draw(5, seed=5)}

        def bowl(params: Params) -> Tensor:
            x = params["x"]
            return x[0].exp() - x[0] + (x**2 * torch.arange(1, 6)).sum() + (x[1:] * x[:-1]).sum()

        def run(params: Params) -> Any:
            state, iterations = tx.init(params), []
            for _ in range(2):
                params, state = step(tx, params, state, bowl)
                iterations.append(state.diagnostics["iterations"])
            return params, state, torch.stack(iterations)

        found = vmap(run)(starts)
        alone = tree.stack([run({"x": x}) for x in starts["x"]])
        assert len(alone[2][:, 0].unique()) > 2
        assert_close(found, alone, rtol=1e-6, atol=1e-8)

    def test_compiled_search(self) -> None:
        tx = optim.lbfgs(5.0, max_iter=2, max_eval=3, history_size=2, line_search_fn="strong_wolfe")
        starts = {"x": torch.stack([draw(4, seed=seed) for seed in (1, 2, 3)])}

        def run(params: Params) -> Any:
            def evaluate(params: Params) -> tuple[Tensor, Params]:
                x = params["x"]
                return (x**4 / 4 + x**2 / 2).sum(), {"x": x**3 + x}

            value, grads = evaluate(params)
            return optim.step(
                tx, params, grads, tx.init(params), value=value, value_and_grad=evaluate
            )

        wanted = tree.stack([run({"x": x}) for x in starts["x"]])
        assert wanted[1].slots["func_evals"].tolist() != [1, 1, 1]
        assert_close(jit(vmap(run))(starts), wanted, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("search", [None, "strong_wolfe"])
    def test_derivatives(self, search: Any) -> None:
        """Through masks they are those of the branches taken, and those of finite differences."""
        tx = optim.lbfgs(0.7, max_iter=4, history_size=2, line_search_fn=search)
        start = {"x": torch.tensor([0.5, -0.3, 1.0]).double()}
        initial = tx.init(start)

        def bowl(params: Params) -> Tensor:
            x = params["x"]
            return (x**4).sum() + (x[1:] * x[:-1]).sum() + 1.5 * x.square().sum() + x[0]

        def after(x: Tensor, lr: Tensor) -> Tensor:
            state = initial._replace(hyperparams={**initial.hyperparams, "lr": lr})
            params, _ = step(tx, {"x": x}, state, bowl)
            return params["x"] @ torch.tensor([1.0, 2.0, -1.0]).double()

        given = [start["x"].requires_grad_(), initial.hyperparams["lr"].requires_grad_()]
        assert torch.autograd.gradcheck(after, given, eps=1e-7, atol=1e-5, rtol=1e-4)
        slopes = torch.autograd.grad(
            after(*given), given, allow_unused=True, materialize_grads=True
        )
        masked = torch.func.grad(after, argnums=(0, 1))(*[x.detach() for x in given])
        lanes = vmap(torch.func.grad(after), (0, None))(
            torch.stack([given[0], 2 * given[0]]).detach(), given[1].detach()
        )
        for one, other in zip(slopes, masked, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(lanes[0], slopes[0], rtol=1e-9, atol=1e-10)

    @pytest.mark.parametrize("search", [None, "strong_wolfe"])
    def test_derivatives_of_a_lane_that_stands_still(self, search: Any) -> None:
        tx = optim.lbfgs(max_iter=2, line_search_fn=search)

        def after(x: Tensor) -> Tensor:
            params, _ = step(tx, {"x": x}, tx.init({"x": x}), lambda p: p["x"].square().sum())
            return params["x"].sum()

        slopes = vmap(torch.func.grad(after))(torch.tensor([[0.0, 0.0], [1.0, -2.0]]).double())
        assert torch.isfinite(slopes).all()
        torch.testing.assert_close(slopes[0], torch.ones(2).double())


class TestPrecision:
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)], ids=str
    )
    def test_finds_the_minimum(self, dtype: torch.dtype, tolerance: float) -> None:
        params = {
            "x": torch.tensor([3.0, -2.0, 1.0], dtype=dtype),
            "y": torch.ones((), dtype=dtype),
        }
        scales = torch.tensor([1.0, 10.0, 0.1])

        def loss(params: Params) -> Tensor:
            gap = params["x"].float() - torch.tensor([1.0, 0.5, -1.0])
            return (scales * gap**2).sum() + (params["y"].float() + 2) ** 2

        tx = optim.lbfgs(line_search_fn="strong_wolfe", history_size=5)
        state = tx.init(params)
        for _ in range(3):
            params, state = step(tx, params, state, loss)
        torch.testing.assert_close(
            flat(params).float(), torch.tensor([1.0, 0.5, -1.0, -2.0]), rtol=0, atol=tolerance
        )
        assert params["x"].dtype == dtype
        assert state.slots["old_dirs"].dtype == torch.float32


class TestTraining:
    model = functionalize(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)))
    batch = (draw(30, 4).float(), torch.sin(draw(30, 4)).sum(1, keepdim=True).float())

    @pytest.mark.parametrize("search", [None, "strong_wolfe"])
    def test_with_make_step(self, search: Any) -> None:
        tx = optim.lbfgs(0.5, max_iter=10, history_size=10, line_search_fn=search)
        train_step = train.make_step(train.supervised(self.model, F.mse_loss), tx)
        states = tree.stack([train.init(self.model, tx, random.key(i)) for i in range(3)])
        for _ in range(4):
            states, info = vmap(train_step, (0, None))(states, self.batch)
        assert (info["loss"] < 0.3).all()
        assert set(info) >= {"loss", "lr", "iterations", "evaluations"}
        assert (states.opt_state.slots["n_iter"] > 20).all()

    def test_updates_of_a_frozen_body(self) -> None:
        tx = optim.freeze(optim.lbfgs(max_iter=5, line_search_fn="strong_wolfe"), "0.*")
        train_step = train.make_step(train.supervised(self.model, F.mse_loss), tx)
        first = state = train.init(self.model, tx, random.key(0))
        losses = []
        for _ in range(3):
            state, info = train_step(state, self.batch)
            losses.append(info["loss"].item())
        assert losses[0] > losses[1] > losses[2]
        assert torch.equal(state.params["0.weight"], first.params["0.weight"])
        assert state.opt_state.slots["d"].shape == (7,)


class TestErrors:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ({"lr": -1.0}, "`lr` must be at least 0, got -1.0"),
            ({"max_iter": 0}, "`max_iter` must be a whole number of at least 1, got 0"),
            ({"max_eval": 0}, "`max_eval` must be a whole number of at least 1, got 0"),
            ({"history_size": 2.5}, "`history_size` must be a whole number of at least 1, got 2.5"),
            ({"tolerance_grad": -1}, "`tolerance_grad` must be at least 0, got -1"),
            ({"tolerance_change": -1}, "`tolerance_change` must be at least 0, got -1"),
            (
                {"line_search_fn": "armijo"},
                "`line_search_fn` must be None or 'strong_wolfe', got 'armijo'",
            ),
        ],
    )
    def test_arguments(self, flags: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}$"):
            optim.lbfgs(**flags)

    def test_no_function(self) -> None:
        params, tx = {"x": torch.ones(2)}, optim.lbfgs()
        with pytest.raises(ValueError, match=r"`value_and_grad` must be given .*train\.make_step"):
            optim.step(tx, params, params, tx.init(params), value=torch.ones(()))

    def test_no_parameters(self) -> None:
        params, tx = {"x": torch.ones(2)}, optim.lbfgs()
        with pytest.raises(ValueError, match="`params` must be given to `update`"):
            tx.update(params, tx.init(params), value_and_grad=evaluator(quadratic))
