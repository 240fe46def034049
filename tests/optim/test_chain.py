"""`OptState` and `chain`: hyperparameters, schedules, names, diagnostics, errors."""

from __future__ import annotations

import functools
import math
from typing import Any

import optree
import pytest
import torch
from asserts import assert_equal
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params

PARAMS = {"w": torch.tensor([[1.0, -2.0], [0.5, 3.0]]), "s": torch.tensor(0.7)}
GRADS = {"w": torch.tensor([[0.3, 0.1], [-1.0, 0.2]]), "s": torch.tensor(-0.4)}


def halving(count: Any) -> Tensor:
    return 0.1 * torch.as_tensor(0.5, dtype=torch.float64) ** count


def trace(decay: float) -> GradientTransformation:
    """A hand-written pair, as optax spells it."""

    def init(params: Params) -> Any:
        return {"ema": tree.zeros_like(params), "seen": torch.zeros((), dtype=torch.int32)}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        ema = tree.map(lambda e, u: decay * e + u, state["ema"], updates)
        return ema, {"ema": ema, "seen": state["seen"] + 1}

    return GradientTransformation(init, update)


def walk(tx: GradientTransformation, params: Params, steps: int) -> tuple[Params, Any]:
    state = tx.init(params)
    for _ in range(steps):
        params, state = optim.step(tx, params, GRADS, state)
    return params, state


class TestHyperparameters:
    def test_are_scalars_of_the_state(self) -> None:
        tx = optim.adam(lr=0.1, betas=(0.8, torch.tensor(0.9)), weight_decay=halving)
        hyperparams = tx.init(PARAMS).hyperparams
        assert {name: x.item() for name, x in hyperparams.items()} == {
            "weight_decay": 0.1,
            "beta1": 0.8,
            "beta2": pytest.approx(0.9, rel=1e-7),
            "eps": 1e-8,
            "lr": 0.1,
        }
        assert all(x.shape == () and x.dtype == torch.float64 for x in hyperparams.values())

    def test_what_the_state_holds_is_what_the_next_step_uses(self) -> None:
        tx = optim.sgd(lr=0.1, momentum=0.5)
        _, state = walk(tx, PARAMS, 1)
        state.hyperparams["lr"] = torch.tensor(0.25, dtype=torch.float64)
        state.hyperparams["momentum"] = torch.tensor(0.0, dtype=torch.float64)
        updates, state = tx.update(GRADS, state, PARAMS)
        assert_equal(updates, tree.map(lambda g: -0.25 * g, GRADS))
        assert state.hyperparams["lr"].item() == 0.25

    def test_a_change_does_not_recompile(self) -> None:
        graphs = []

        def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            graphs.append(graph)
            return graph

        tx = optim.adam(lr=0.1)

        @torch.compile(backend=backend, fullgraph=True, dynamic=False)
        def step(params: Params, state: Any) -> Any:
            return optim.step(tx, params, GRADS, state)

        state = tx.init(PARAMS)
        params, state = step(PARAMS, state)
        for lr in (0.2, 0.3, 0.0):
            state.hyperparams["lr"] = torch.tensor(lr, dtype=torch.float64)
            before = params
            params, state = step(params, state)
        assert len(graphs) == 1
        assert_equal(params, before)  # the last learning rate was 0

    def test_lanes_have_their_own_from_the_first_step(self) -> None:
        """Else a stacked state could not be written to, and the second step would recompile."""
        graphs = []

        def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            graphs.append(graph)
            return graph

        tx = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(lr=halving))
        params, grads = tree.stack([PARAMS] * 3), tree.stack([GRADS] * 3)
        state = vmap(tx.init)(params)
        for leaf in tree.leaves(state):
            assert leaf.shape[0] == 3
            leaf[0] += 1
            assert not torch.equal(leaf[0], leaf[1])

        @torch.compile(backend=backend, fullgraph=True, dynamic=False)
        def step(params: Params, state: Any) -> Any:
            return vmap(lambda p, g, s: optim.step(tx, p, g, s))(params, grads, state)

        state = vmap(tx.init)(params)
        for _ in range(3):
            params, state = step(params, state)
        assert len(graphs) == 1

    def test_a_tensor_is_copied(self) -> None:
        lr = torch.tensor(0.1)
        state = optim.sgd(lr=lr).init(PARAMS)
        lr.zero_()
        assert state.hyperparams["lr"].item() == pytest.approx(0.1)


class TestSchedules:
    def test_see_torchs_count(self) -> None:
        counts = []

        def schedule(count: Tensor) -> float:
            counts.append(count.item())
            return 0.1

        tx = optim.sgd(lr=schedule)
        state = tx.init(PARAMS)
        assert (state.count.item(), counts) == (0, [0])
        for _ in range(3):
            _, state = tx.update(GRADS, state)
        assert (state.count.item(), counts) == (3, [0, 0, 1, 2])
        assert (state.count.shape, state.count.dtype) == ((), torch.int64)

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [(optim.sgd, torch.optim.SGD), (optim.adam, torch.optim.Adam)],
        ids=["sgd", "adam"],
    )
    def test_equal_lambda_lr(self, ours: Any, theirs: Any) -> None:
        def factor(count: Any) -> Any:
            return 1 / (1 + 0.3 * torch.as_tensor(count, dtype=torch.float64)) ** 2

        params = {name: x.double() for name, x in PARAMS.items()}
        leaves = [x.clone() for x in params.values()]
        optimizer = theirs(leaves, lr=0.1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: factor(n).item())
        tx = ours(lr=lambda count: 0.1 * factor(count))
        state = tx.init(params)
        for _ in range(10):
            for leaf, grad in zip(leaves, GRADS.values(), strict=True):
                leaf.grad = grad.double()
            rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            params, state = optim.step(tx, params, tree.cast(GRADS, torch.float64), state)
            assert state.hyperparams["lr"].item() == pytest.approx(rate, rel=1e-15)
        for x, leaf in zip(params.values(), leaves, strict=True):
            torch.testing.assert_close(x, leaf, rtol=1e-14, atol=1e-14)

    def test_any_hyperparameter_takes_one(self) -> None:
        tx = optim.sgd(lr=1.0, momentum=lambda count: 0.5 * (count == 1))
        state, moved = tx.init(PARAMS), []
        for _ in range(3):
            updates, state = tx.update(GRADS, state)
            moved.append((updates["s"] / -GRADS["s"]).item())
        assert moved == [1.0, 1.5, 1.0]

    def test_overrule_the_state(self) -> None:
        tx = optim.sgd(lr=halving)
        state = tx.init(PARAMS)
        state.hyperparams["lr"] = torch.tensor(7.0, dtype=torch.float64)
        _, state = tx.update(GRADS, state)
        assert state.hyperparams["lr"].item() == 0.1


class TestNames:
    def test_unique_ones_are_plain(self) -> None:
        tx = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(amsgrad=True))
        state = tx.init(PARAMS)
        assert set(state.hyperparams) == {
            "max_norm", "beta1", "beta2", "eps", "weight_decay", "lr"
        }  # fmt: skip
        assert list(state.slots) == ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
        assert list(state.diagnostics) == ["grad_norm"]

    def test_clashing_ones_are_qualified(self) -> None:
        def init(params: Params) -> dict[str, Any]:
            return {"exp_avg": tree.zeros_like(params)}

        def update(updates: Any, slots: Any, params: Any, hyper: Any, count: Any, **_: Any) -> Any:
            return updates, {"exp_avg": updates}, {}

        mine = optim.Part("mine", init, update, {"eps": 2.0}, slots=("exp_avg",))
        tx = optim.chain(mine, optim.scale_by_adam(eps=1.0))
        _, state = walk(tx, PARAMS, 2)
        assert list(state.hyperparams) == ["mine.eps", "beta1", "beta2", "adam.eps"]
        assert list(state.slots) == ["mine.exp_avg", "adam.exp_avg", "exp_avg_sq"]
        assert [state.hyperparams[name].item() for name in ("mine.eps", "adam.eps")] == [2.0, 1.0]
        assert_equal(state.slots["mine.exp_avg"], GRADS)
        torch.testing.assert_close(state.slots["adam.exp_avg"]["s"], 0.19 * GRADS["s"])

    @pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
    def test_repeated_parts_are_numbered(self, nested: bool) -> None:
        one, two, three = [optim.clip_by_global_norm(n) for n in (3.0, 2.0, 1.0)]
        tx = optim.chain(optim.chain(one, two), three) if nested else optim.chain(one, two, three)
        state = tx.init(PARAMS)
        assert {name: x.item() for name, x in state.hyperparams.items()} == {
            "clip.max_norm": 3.0, "clip_1.max_norm": 2.0, "clip_2.max_norm": 1.0
        }  # fmt: skip
        _, state = tx.update(tree.map(lambda g: 10 * g, GRADS), state)
        norms = [state.diagnostics[f"{name}.grad_norm"].item() for name in ("clip_1", "clip_2")]
        assert norms == pytest.approx([3.0, 2.0], rel=1e-5)

    def test_a_pair_is_called_after_its_factory(self) -> None:
        state = optim.chain(trace(0.5), trace(0.9), optim.sgd()).init(PARAMS)
        assert list(state.slots) == ["trace.trace", "trace_1.trace"]
        nameless = functools.partial(trace(0.5).init), trace(0.5).update
        assert list(optim.chain(nameless).init(PARAMS).slots) == ["transform"]


class TestChain:
    def test_of_chains_is_flat(self) -> None:
        a, b, c = optim.clip_by_global_norm(0.5), trace(0.5), optim.adamw(0.1)
        nested = optim.chain(optim.chain(a, optim.chain(b)), c)
        flat = optim.chain(a, b, c)
        assert [part.name for part in nested.parts] == [part.name for part in flat.parts]
        for one, other in zip(walk(nested, PARAMS, 3), walk(flat, PARAMS, 3), strict=True):
            assert_equal(one, other)

    def test_applies_its_parts_in_order(self) -> None:
        grads = {"w": torch.tensor([3.0, 4.0])}
        clip, climb, rate = (
            optim.clip_by_global_norm(1.0),
            optim.maximize(),
            optim.scale_by_learning_rate(10.0),
        )
        for parts, expected in [((clip, climb, rate), 10.0), ((rate, climb, clip), 1.0)]:
            tx = optim.chain(*parts)
            updates, _ = tx.update(grads, tx.init(grads))
            torch.testing.assert_close(updates["w"], expected * torch.tensor([0.6, 0.8]))

    def test_of_nothing_passes_gradients_on(self) -> None:
        tx = optim.chain()
        updates, state = tx.update(GRADS, tx.init(PARAMS))
        assert_equal(updates, GRADS)
        assert state.count.item() == 1

    def test_runs_a_pair_as_it_would_run_alone(self) -> None:
        """With everything after it: the pair sees leaves as stored, `params` and `extra`."""
        params: Params = {
            "half": torch.ones(2, dtype=torch.bfloat16),
            "wave": torch.ones(2, dtype=torch.complex64),
        }
        seen = []

        def update(updates: Any, state: Any, params: Any = None, *, value: float) -> Any:
            seen.append(({n: x.dtype for n, x in {**updates, **params}.items()}, value))
            return tree.map(lambda u: u * value, updates), tree.map(lambda s: s + 1, state)

        def init(params: Params) -> Any:
            return {"n": torch.zeros((), dtype=torch.int16)}

        tx = optim.chain(optim.maximize(), (init, update), optim.scale_by_learning_rate(0.5))
        updates, state = tx.update(params, tx.init(params), params, value=3.0)
        assert seen == [({"half": torch.bfloat16, "wave": torch.complex64}, 3.0)]
        assert_equal(updates, tree.map(lambda x: 1.5 * x, params))
        (slot,) = state.slots.values()
        assert_equal(slot, {"n": torch.ones((), dtype=torch.int16)})

    def test_hands_extra_arguments_to_its_parts(self) -> None:
        def update(updates: Any, slots: Any, *_: Any, value: float, **extra: Any) -> Any:
            return tree.map(lambda u: u * value, updates), {}, {}

        tx = optim.chain(optim.maximize(), optim.Part("scale", lambda params: {}, update))
        updates, _ = tx.update(GRADS, tx.init(PARAMS), value=2.0)
        assert_equal(updates, tree.map(lambda g: -2.0 * g, GRADS))


class TestDiagnostics:
    def test_hold_what_the_last_step_left(self) -> None:
        tx = optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(lr=halving))
        state = tx.init(PARAMS)
        before = optim.diagnostics(state)
        assert (before["grad_norm"].item(), before["lr"].item()) == (0.0, 0.1)
        _, state = tx.update(GRADS, state)
        _, state = tx.update(tree.map(lambda g: 2 * g, GRADS), state)
        after = optim.diagnostics(state)
        assert list(after) == list(before) == ["max_norm", "lr", "grad_norm"]
        assert after["lr"].item() == 0.05
        norm = math.sqrt(sum(g.square().sum().item() for g in GRADS.values()))
        assert after["grad_norm"].item() == pytest.approx(2 * norm, rel=1e-6)


class TestTree:
    def test_is_one_for_torch_and_optree(self) -> None:
        _, state = walk(optim.chain(trace(0.5), optim.adam()), PARAMS, 1)
        leaves, spec = _pytree.tree_flatten(state)
        assert all(isinstance(leaf, Tensor) for leaf in leaves)
        assert_equal(_pytree.tree_unflatten(leaves, spec), state)
        assert len(leaves) == len(optree.tree_leaves(state)) == len(tree.paths(state))
        assert "slots.exp_avg.w" in tree.paths(state)
        assert "hyperparams.lr" in tree.paths(state)

    def test_can_be_mapped_over(self) -> None:
        tx = optim.adam()
        state = tree.stack([walk(tx, PARAMS, n)[1] for n in (1, 2)])
        doubled = vmap(lambda s: s._replace(count=2 * s.count))(state)
        assert doubled.count.tolist() == [2, 4]


BAD = [
    (lambda: optim.sgd(lr=-0.1), "`lr` must be at least 0, got -0.1"),
    (lambda: optim.sgd(lr=math.nan), "`lr` must be at least 0, got nan"),
    (lambda: optim.adam(lr=-1), "`lr` must be at least 0, got -1"),
    (lambda: optim.adamw(lr=-1), "`lr` must be at least 0, got -1"),
    (lambda: optim.scale_by_learning_rate(-2.0), "`lr` must be at least 0, got -2.0"),
    (lambda: optim.sgd(momentum=1.2), r"`momentum` must be in \[0, 1\), got 1.2"),
    (lambda: optim.sgd(momentum=-0.1), r"`momentum` must be in \[0, 1\), got -0.1"),
    (lambda: optim.scale_by_momentum(1), r"`momentum` must be in \[0, 1\), got 1"),
    (lambda: optim.scale_by_momentum(0.5, math.nan), "`dampening` must be at least -inf, got nan"),
    (
        lambda: optim.sgd(nesterov=True),
        "`nesterov` must come with a momentum above 0 and no dampening, got momentum 0.0 and "
        "dampening 0.0",
    ),
    (
        lambda: optim.sgd(momentum=0.9, dampening=0.1, nesterov=True),
        "`nesterov` must come with .*, got momentum 0.9 and dampening 0.1",
    ),
    (lambda: optim.adam(betas=(1.0, 0.9)), r"`beta1` must be in \[0, 1\), got 1.0"),
    (lambda: optim.adamw(betas=(0.9, -0.5)), r"`beta2` must be in \[0, 1\), got -0.5"),
    (lambda: optim.scale_by_adam(eps=-1e-8), "`eps` must be at least 0, got -1e-08"),
    (lambda: optim.sgd(weight_decay=-0.1), "`weight_decay` must be at least 0, got -0.1"),
    (lambda: optim.adam(weight_decay=-0.1), "`weight_decay` must be at least 0, got -0.1"),
    (lambda: optim.adamw(weight_decay=-0.1), "`weight_decay` must be at least 0, got -0.1"),
    (lambda: optim.add_decayed_weights(-3), "`weight_decay` must be at least 0, got -3"),
    (lambda: optim.clip_by_global_norm(-1.0), "`max_norm` must be at least 0, got -1.0"),
]


class TestErrors:
    @pytest.mark.parametrize(("build", "message"), BAD)
    def test_range(self, build: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}$"):
            build()

    def test_bounds_themselves_are_allowed(self) -> None:
        optim.adamw(lr=0, betas=(0, 0), eps=0, weight_decay=0)
        optim.sgd(lr=math.inf, momentum=0, dampening=-2)
        optim.clip_by_global_norm(math.inf)

    @pytest.mark.parametrize("lr", [None, "0.1", torch.tensor([0.1, 0.2])])
    def test_not_a_scalar(self, lr: Any) -> None:
        with pytest.raises(TypeError, match="`lr` must be a number, a 0-d tensor or a schedule"):
            optim.adam(lr=lr)

    @pytest.mark.parametrize("what", [0.1, None, ("init", "update"), (lambda p: p,), optim.adam])
    def test_not_a_transformation(self, what: Any) -> None:
        with pytest.raises(TypeError, match=r"`transforms` must be .*\(init, update\), got "):
            optim.chain(optim.sgd(), what)

    def test_decay_without_params(self) -> None:
        tx = optim.adamw()
        with pytest.raises(ValueError, match="`params` must be given to `update`"):
            tx.update(GRADS, tx.init(PARAMS))

    @pytest.mark.parametrize("tx", [optim.sgd(), optim.adam()], ids=["sgd", "adam"])
    def test_gradients_of_another_structure(self, tx: GradientTransformation) -> None:
        with pytest.raises(ValueError, match=r"at path 's': expected .*, found nothing"):
            optim.step(tx, PARAMS, {"w": GRADS["w"]}, tx.init(PARAMS))
