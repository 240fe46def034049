"""`adafactor`, `muon`, `shampoo` and `soap`: what is special about them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, vmap

from fdnn import jit, optim, tree
from fdnn.types import GradientTransformation, Params

MAKERS: dict[str, Callable[[], GradientTransformation]] = {
    "adafactor": optim.adafactor,
    "muon": optim.muon,
    "shampoo": optim.shampoo,
    "soap": optim.soap,
}


def load_golden() -> Any:
    path = Path(__file__).with_name("make_preconditioned_golden.py")
    spec = importlib.util.spec_from_file_location("make_preconditioned_golden", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOLDEN = load_golden()
EXPECTED = json.loads(Path(__file__).with_name("preconditioned_golden.json").read_text())


def normal(seed: int, *size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


def directions(tx: GradientTransformation, *grads: Tensor) -> list[Tensor]:
    """What comes of some gradients of one leaf."""
    state, found = tx.init({"w": grads[0]}), []
    for g in grads:
        updates, state = tx.update({"w": g}, state, {"w": torch.zeros_like(g)})
        found.append(updates["w"])
    return found


@pytest.mark.parametrize("name", GOLDEN.CASES)
def test_walks_the_trajectory_of_pytorch_optimizer(name: str) -> None:
    """Stored by make_preconditioned_golden.py, which says with what."""
    tx = getattr(optim, name.split()[0])(**GOLDEN.CASES[name])
    params = GOLDEN.start()
    state = tx.init(params)
    for t in range(max(GOLDEN.STEPS)):
        grads = {path: GOLDEN.gradient(x, t) for path, x in params.items()}
        params, state = optim.step(tx, params, grads, state)
        if t + 1 in GOLDEN.STEPS:
            for path, x in params.items():
                expected = torch.tensor(EXPECTED[name][str(t + 1)][path], dtype=torch.float64)
                torch.testing.assert_close(x.flatten(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_complex_parameters_are_refused_by_path(name: str) -> None:
    with pytest.raises(TypeError, match=rf"'a.0': `{name}` expects real .* complex64"):
        MAKERS[name]().init({"a": [torch.ones(2, 2, dtype=torch.complex64)]})


@pytest.mark.parametrize("name", MAKERS)
def test_init_vmaps_whatever_holds_the_parameters(name: str) -> None:
    """There is no None in the slots for leaves that have no part in them."""
    w, b = normal(0, 2, 3, 4), normal(1, 2, 5)
    tx = MAKERS[name]()
    params = ([w], w) if name == "muon" else (w, [b, {"s": b[:, 0]}])
    state = vmap(tx.init)(params)
    _, new = vmap(tx.update)(params, state, params)
    tree.assert_same_structure(state, new)
    assert all(len(leaf) == 2 for leaf in tree.leaves(new))


@pytest.mark.parametrize("name", ["shampoo", "soap"])
def test_a_lane_that_diverges_spares_the_others(name: str) -> None:
    """torch.linalg.eigh raises for a matrix that is not finite, for all of a batch."""
    tx = MAKERS[name]()
    params = {"w": normal(0, 3, 4, 2)}
    grads = {"w": normal(1, 3, 4, 2)}
    grads["w"][1, 0, 0] = torch.nan

    def run(params: Params, grads: Params) -> Params:
        state = tx.init(params)
        for _ in range(2):
            params, state = optim.step(tx, params, grads, state)
        return params

    found = vmap(run)(params, grads)["w"]
    assert found[1].isnan().all()
    for lane in (0, 2):
        solo = run({"w": params["w"][lane]}, {"w": grads["w"][lane]})["w"]
        torch.testing.assert_close(found[lane], solo, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["shampoo", "soap"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_statistics_of_half_precision_are_float32(name: str, dtype: torch.dtype) -> None:
    state = MAKERS[name]().init({"w": normal(0, 2, 3, dtype=dtype)})
    for slot in {"precond", "inv_precond", "GG", "Q"} & set(state.slots):
        assert {x.dtype for x in tree.leaves(state.slots[slot])} == {torch.float32}


@pytest.mark.parametrize(
    ("tx", "calls"),
    [
        (optim.scale_by_shampoo(update_freq=3), {"eigh": [2, 0, 0, 2, 0, 0, 2], "qr": [0] * 7}),
        (
            optim.scale_by_soap(precondition_frequency=2),
            {"eigh": [2, 0, 0, 0, 0, 0, 0], "qr": [0, 0, 2, 0, 2, 0, 2]},
        ),
    ],
    ids=["shampoo", "soap"],
)
def test_eagerly_decomposes_only_when_due(
    tx: GradientTransformation, calls: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = dict.fromkeys(calls, 0)
    for name in calls:
        original = getattr(torch.linalg, name)

        def counted(x: Tensor, name: str = name, original: Any = original) -> Any:
            counts[name] += 1
            return original(x)

        monkeypatch.setattr(torch.linalg, name, counted)
    g = {"w": normal(0, 2, 3)}
    state, found = tx.init(g), []
    for _ in range(7):
        _, state = tx.update(g, state)
        found.append(dict(counts))
        counts.update(dict.fromkeys(calls, 0))
    assert {name: [each[name] for each in found] for name in calls} == calls


@pytest.mark.parametrize("name", ["shampoo", "soap"])
def test_compiled_lanes_are_eager_runs(name: str) -> None:
    tx = getattr(optim, name)(lr=0.1)
    params = {"w": normal(0, 2, 4, 3), "b": normal(1, 2, 3)}

    def run(advance: Any) -> Any:
        moved, state = params, vmap(tx.init)(params)
        for _ in range(3):
            moved, state = advance(moved, state)
        return moved, state

    advance = vmap(lambda params, state: optim.step(tx, params, params, state))
    assert_close(run(jit(advance)), run(advance), rtol=1e-9, atol=1e-12)


class TestAdafactor:
    def test_by_hand(self) -> None:
        """Second step: w_2 = 2^-0.8, and V = R C / mean(R)."""
        first, second = torch.tensor([[1.0, 2.0], [2.0, 4.0]]), torch.tensor([[3.0, 0.0]] * 2)
        tx = optim.scale_by_adafactor(d=100.0)
        found = directions(tx, first.double(), second.double())[1]
        w = 2**-0.8
        rows = [2.5 + w * (4.5 - 2.5), 10 + w * (4.5 - 10)]
        column = 2.5 + w * (9 - 2.5)
        mean = sum(rows) / 2
        expected = [3 / (row * column / mean) ** 0.5 for row in rows]
        assert found[:, 0].tolist() == pytest.approx(expected, rel=1e-12)

    def test_steps_are_relative(self) -> None:
        """At scale 1000 steps are 1000 times as long; below eps2 they no longer shrink."""
        tx = optim.adafactor(lr=0.01)
        g = normal(0, 3, 2)
        lengths = []
        for size in (1000.0, 1e-3, 1e-9):
            params = {"w": torch.full((3, 2), size, dtype=torch.float64)}
            lengths.append(tx.update({"w": g}, tx.init(params), params)[0]["w"].norm().item())
        assert lengths[0] == pytest.approx(1e6 * lengths[1], rel=1e-12)
        assert lengths[2] == pytest.approx(lengths[1], rel=1e-12)

    def test_slots_lack_what_a_leaf_has_not(self) -> None:
        params = {"w": torch.zeros(3, 2), "b": {"c": torch.zeros(3)}, "t": torch.zeros(4, 3, 2)}
        slots = optim.adafactor().init(params).slots
        shapes = {k: {p: tuple(x.shape) for p, x in slot.items()} for k, slot in slots.items()}
        assert shapes == {
            "row_var": {"w": (3, 1), "t": (4, 3, 1)},
            "col_var": {"w": (1, 2), "t": (4, 1, 2)},
            "variance": {"b.c": (3,)},
        }

    @pytest.mark.parametrize("eps", [None, 0.0, 1e-30])
    def test_zero_gradients_and_empty_leaves(self, eps: float | None) -> None:
        """torch divides by zero for the latter, and by eps = 0 for the former."""
        params = {"w": torch.zeros(3, 2), "b": torch.zeros(3), "a": torch.zeros(0, 2)}
        params["c"] = torch.zeros(2, 0)
        tx = optim.adafactor(eps=(eps, 1e-3))
        moved, state = optim.step(tx, params, params, tx.init(params))
        assert_equal(moved, params)
        assert all(x.isfinite().all() for x in tree.leaves(state))

    def test_eps_is_that_of_the_stored_dtype(self) -> None:
        """A gradient of half the machine epsilon is halved, by torch's rule, for each dtype."""
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            g = torch.full((2, 2), torch.finfo(dtype).eps / 2, dtype=dtype)
            # Its square is below eps, which bounds the mean of the row sums.
            expected = g.double() / torch.finfo(dtype).eps
            found = directions(optim.scale_by_adafactor(), g)[0].double()
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match=r"`beta2_decay` must be at most 0, got 0.8"):
            optim.adafactor(beta2_decay=0.8)
        with pytest.raises(ValueError, match=r"`d` must be at least 1, got 0.5"):
            optim.adafactor(d=0.5)
        with pytest.raises(ValueError, match=r"`eps` must be at least 0, got -1"):
            optim.adafactor(eps=(-1, 1e-3))
        with pytest.raises(ValueError, match=r"`eps2` must be at least 0, got -1"):
            optim.adafactor(eps=(None, -1))
        tx = optim.adafactor()
        with pytest.raises(ValueError, match="`params` must be given"):
            tx.update({"w": torch.ones(2)}, tx.init({"w": torch.ones(2)}))


class TestMuon:
    @pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)], ids=str)
    def test_only_matrices(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"'a\.b': `muon` expects a matrix, found shape"):
            optim.muon().init({"a": {"b": torch.zeros(shape), "w": torch.zeros(2, 2)}})

    @pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 3), (3, 1)], ids=str)
    def test_direction_is_orthogonal(self, shape: tuple[int, ...]) -> None:
        """With coefficients that converge, it is U V^T of the singular value decomposition."""
        tx = optim.scale_by_muon(
            ns_coefficients=(1.5, -0.5, 0.0),
            ns_steps=60,
            adjust_lr_fn="match_rms_adamw",
            ns_dtype=None,
        )
        g = normal(0, *shape)
        u, _, v = torch.linalg.svd(g, full_matrices=False)
        expected = u @ v * 0.2 * max(shape) ** 0.5
        torch.testing.assert_close(directions(tx, g)[0], expected, rtol=0, atol=1e-12)

    def test_bfloat16_is_near_full_precision(self) -> None:
        """Five steps multiply by up to 3.4 each, and bring singular values to 0.7 to 1.2."""
        g = normal(0, 6, 4)
        found = directions(optim.scale_by_muon(), g)[0]
        exact = directions(optim.scale_by_muon(ns_dtype=None), g)[0]
        assert 0 < (found - exact).norm() < 2**-4 * exact.norm()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_low_precision(self, dtype: torch.dtype) -> None:
        """With torch to bfloat16's precision of each direction: given gradients, no feedback."""
        params = {"a": normal(0, 4, 3, dtype=dtype), "b": normal(1, 3, 5, dtype=dtype)}
        leaves = {k: x.clone().requires_grad_() for k, x in params.items()}
        theirs = torch.optim.Muon(leaves.values(), lr=0.3)
        tx = optim.muon(lr=0.3)
        state, length, gap = tx.init(params), 0.0, 0.0
        for t in range(30):
            grads = {k: normal(t + 2, *x.shape, dtype=dtype) for k, x in params.items()}
            for k, x in leaves.items():
                x.grad = grads[k].clone()
            theirs.step()
            moved, state = optim.step(tx, params, grads, state)
            length += sum((moved[k] - params[k]).double().norm().item() for k in params)
            params = moved
            gap = sum((params[k] - leaves[k]).double().norm().item() for k in params)
        assert gap < 2**-7 * length

    def test_lanes_are_solo_runs(self) -> None:
        """Up to a rounding that tips over. vmap's own `addmm` is 2 to 5 percent off."""
        tx = optim.muon(lr=1.0)
        w = {"w": normal(0, 8, 12, 10, dtype=torch.float32)}

        def run(params: Params) -> Any:
            return tx.update(params, tx.init(params), params)

        loop = tree.stack([run(lane) for lane in tree.unstack(w)])
        tree.assert_same_structure(loop, vmap(run)(w))
        compiled = torch.compile(vmap(run), fullgraph=True, dynamic=False, backend="aot_eager")
        for fn, bound in ((vmap(run), 0.01), (compiled, 0.1)):
            gap = fn(w)[0]["w"] - loop[0]["w"]
            assert (gap.norm(dim=(1, 2)) < bound * loop[0]["w"].norm(dim=(1, 2))).all()

    def test_the_momentum_of_bfloat16_is_not_touched(self) -> None:
        """torch's is, without `nesterov`: `div_` writes into what `bfloat16()` did not copy."""
        g = normal(0, 3, 3, dtype=torch.bfloat16)
        tx = optim.muon(nesterov=False, momentum=0.5)
        _, state = tx.update({"w": g}, tx.init({"w": g}), {"w": g})
        assert torch.equal(state.slots["momentum_buffer"]["w"], g / 2)

    def test_errors(self) -> None:
        for flags, message in [
            ({"momentum": -0.1}, r"`momentum` must be at least 0, got -0.1"),
            ({"ns_steps": 100}, r"`ns_steps` must be in \[0, 100\), got 100"),
            ({"ns_coefficients": (1.0, 2.0)}, r"`ns_coefficients` must be three numbers"),
            ({"adjust_lr_fn": "mine"}, r"`adjust_lr_fn` must be one of .*, got 'mine'"),
        ]:
            with pytest.raises(ValueError, match=message):
                optim.muon(**flags)  # type: ignore[arg-type]


class TestShampoo:
    def test_matrix_by_hand(self) -> None:
        """Equal gradients: after t steps L^-1/4 G R^-1/4 is U V^T / sqrt(t)."""
        g = torch.tensor([[9.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
        found = directions(optim.scale_by_shampoo(epsilon=1e-14), g, g, g)
        for t, direction in enumerate(found, 1):
            expected = torch.eye(2, dtype=torch.float64) / t**0.5
            torch.testing.assert_close(direction, expected, rtol=0, atol=1e-12)

    def test_vector_is_full_matrix_adagrad(self) -> None:
        grads = [normal(t, 3) for t in range(4)]
        total = sum(torch.outer(g, g) for g in grads) + 0.1 * torch.eye(3).double()
        values, vectors = torch.linalg.eigh(total)
        expected = vectors @ (vectors.T @ grads[-1] / values.sqrt())
        found = directions(optim.scale_by_shampoo(epsilon=0.1), *grads)[-1]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)

    def test_scalar_is_adagrad(self) -> None:
        grads = [torch.tensor(x, dtype=torch.float64) for x in (3.0, -4.0)]
        found = directions(optim.scale_by_shampoo(epsilon=1e-9), *grads)
        assert [x.item() for x in found] == pytest.approx([1.0, -0.8], rel=1e-9)

    @given(st.integers(0, 1000), st.sampled_from([(3, 2), (2, 3, 2), (4,)]))
    def test_turns_with_the_gradients(self, seed: int, size: tuple[int, ...]) -> None:
        """Along whatever axes a gradient is written down, the direction is the same."""
        turns = {str(i): torch.linalg.qr(normal(seed + i, n, n))[0] for i, n in enumerate(size)}
        grads = [normal(seed + 10 + t, *size) for t in range(3)]
        tx = optim.scale_by_shampoo(epsilon=0.01, update_freq=2)
        found = directions(tx, *[turned(g, turns) for g in grads])
        for new, old in zip(found, directions(tx, *grads), strict=True):
            torch.testing.assert_close(new, turned(old, turns), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("shape", [(5, 1), (2, 2), (3, 1, 1), (2,), ()], ids=str)
    def test_derivative_where_eigenvalues_coincide(self, shape: tuple[int, ...]) -> None:
        """A tall matrix has seen few directions: most eigenvalues are 0, plus epsilon."""
        tx = optim.shampoo(epsilon=0.1, momentum=0.5, weight_decay=0.1, update_freq=2)
        start = normal(0, *shape)

        def end(first: Tensor, second: Tensor, epsilon: Tensor) -> Tensor:
            params = {"w": start}
            state = tx.init(params)
            state = optim.set_hyperparams(state, epsilon=epsilon)
            for g in (first, second, first * second):
                params, state = optim.step(tx, params, {"w": g}, state)
            return params["w"]

        inputs = [normal(1, *shape), torch.zeros(shape, dtype=torch.float64)]
        inputs.append(torch.tensor(0.1, dtype=torch.float64))
        assert torch.autograd.gradcheck(end, [x.requires_grad_() for x in inputs])
        jacobian = vmap(grad(lambda *x: end(*x).square().sum(), argnums=(0, 1, 2)))(
            *[torch.stack([x.detach()] * 2) for x in inputs]
        )
        expected = torch.autograd.grad(end(*inputs).square().sum(), inputs)
        for lanes, solo in zip(jacobian, expected, strict=True):
            torch.testing.assert_close(lanes[1], solo, rtol=1e-9, atol=1e-12)

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match="`epsilon` must be above 0, got 0"):
            optim.shampoo(epsilon=0)
        with pytest.raises(ValueError, match="`update_freq` must be at least 1, got 0"):
            optim.shampoo(update_freq=0)


class TestSoap:
    def test_by_hand(self) -> None:
        """Where the axes are the basis it is Adam, which starts with the second step."""
        lr, decay, beta, g = 0.1, 0.5, 0.9, torch.tensor([[0.0, 2.0], [3.0, 0.0]]).double()
        tx = optim.soap(lr, (beta, beta), weight_decay=decay, eps=0.0)
        params = {"w": torch.full((2, 2), 4.0, dtype=torch.float64)}
        still, state = optim.step(tx, params, {"w": g}, tx.init(params))
        assert_equal(still, params)
        moved, state = optim.step(tx, still, {"w": g}, state)
        expected = (4 - lr * torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()) * (1 - lr * decay)
        torch.testing.assert_close(moved["w"], expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(state.slots["exp_avg"]["w"], (1 - beta) * g, rtol=1e-12, atol=0)
        torch.testing.assert_close(
            state.slots["GG"]["w"]["1"],
            torch.diag(torch.tensor([9.0, 4.0])).double() * (1 - beta**2),
            rtol=1e-12,
            atol=0,
        )

    def test_unrotated_is_adam_a_step_late(self) -> None:
        grads = [normal(t, 3, 2) for t in range(8)]
        tx = optim.scale_by_soap((0.9, 0.99), eps=1e-30, max_precondition_dim=1)
        adam = directions(optim.scale_by_adam((0.9, 0.99), eps=1e-30), *grads[1:])
        soap = directions(tx, *grads)
        assert tx.init({"w": grads[0]}).slots["GG"] == {}
        assert torch.equal(soap[0], torch.zeros_like(grads[0]))
        for found, expected in zip(soap[1:], adam, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=0)

    @given(st.integers(0, 1000), st.sampled_from([(2, 2), (3, 2), (2, 3, 2)]))
    def test_turns_with_the_gradients(self, seed: int, size: tuple[int, ...]) -> None:
        turns = {str(i): torch.linalg.qr(normal(seed + i, n, n))[0] for i, n in enumerate(size)}
        grads = [normal(seed + 10 + t, *size) for t in range(5)]
        tx = optim.scale_by_soap(eps=0.01, precondition_frequency=2)
        found = directions(tx, *[turned(g, turns) for g in grads])
        for new, old in zip(found, directions(tx, *grads), strict=True):
            torch.testing.assert_close(new, turned(old, turns), rtol=0, atol=1e-6)

    def test_bases_stay_orthogonal(self) -> None:
        tx = optim.scale_by_soap(precondition_frequency=1)
        g = {"w": normal(0, 5, 2)}
        state = tx.init(g)
        for t in range(6):
            _, state = tx.update({"w": normal(t, 5, 2)}, state)
            for q in tree.leaves(state.slots["Q"]):
                assert_close(q.T @ q, torch.eye(len(q), dtype=q.dtype), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("shape", [(3, 2), (2,), ()], ids=str)
    def test_derivatives_but_for_the_basis(self, shape: tuple[int, ...]) -> None:
        """Until the first refreshment it hangs on the first gradient only."""
        tx = optim.soap(0.1, eps=0.1, precondition_1d=True, weight_decay=0.1)
        start, first = normal(0, *shape), normal(1, *shape)
        state = tx.init({"w": start})
        names = list(state.hyperparams)

        def end(start: Tensor, second: Tensor, third: Tensor, *values: Tensor) -> Tensor:
            params = {"w": start}
            state = tx.init(params)._replace(hyperparams=dict(zip(names, values, strict=True)))
            for g in (first, second, third):
                params, state = optim.step(tx, params, {"w": g}, state)
            return params["w"]

        zero = torch.zeros(shape, dtype=torch.float64)  # as a dead unit's
        inputs = [start, zero, normal(2, *shape), *state.hyperparams.values()]
        assert torch.autograd.gradcheck(end, [x.clone().requires_grad_() for x in inputs])

    def test_derivatives_are_finite_where_the_basis_has_none(self) -> None:
        """A tall matrix: most eigenvalues are zero, and eigh's own derivative is NaN."""
        tx = optim.soap(0.1, precondition_frequency=1)

        def end(g: Tensor) -> Tensor:
            params = {"w": torch.ones(4, 1, dtype=torch.float64)}
            state = tx.init(params)
            for factor in (1.0, -0.5, 2.0, 0.3):
                params, state = optim.step(tx, params, {"w": g * factor}, state)
            return params["w"].square().sum()

        axes = torch.eye(4, dtype=torch.float64)[:3].unsqueeze(-1)  # with exact zeros
        assert vmap(grad(end))(axes).isfinite().all()

    def test_errors(self) -> None:
        for flags, message in [
            ({"shampoo_beta": 1.0}, r"`shampoo_beta` must be in \[0, 1\), got 1.0"),
            ({"precondition_frequency": 0}, r"`precondition_frequency` must be at least 1, got 0"),
            ({"max_precondition_dim": 0}, r"`max_precondition_dim` must be at least 1, got 0"),
            ({"betas": (1.0, 0.9)}, r"`beta1` must be in \[0, 1\), got 1.0"),
        ]:
            with pytest.raises(ValueError, match=message):
                optim.soap(**flags)  # type: ignore[arg-type]
        tx = optim.soap()
        with pytest.raises(ValueError, match="`params` must be given"):
            tx.update({"w": torch.ones(2)}, tx.init({"w": torch.ones(2)}))


def turned(x: Tensor, turns: dict[str, Tensor]) -> Tensor:
    for i, turn in turns.items():
        x = torch.tensordot(x, turn, dims=([int(i)], [1])).movedim(-1, int(i))
    return x
