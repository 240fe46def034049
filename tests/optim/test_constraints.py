"""Projections, and transformations that keep parameters in a set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from asserts import assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import vmap

from fdnn import optim, random, tree
from fdnn.types import GradientTransformation, Params

DOUBLE = torch.float64


def drawn(seed: int, *shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return random.normal(random.key(seed), shape, DOUBLE).to(dtype)


def after(tx: GradientTransformation, params: Params, updates: Params) -> Params:
    """Where `tx` lets the steps `updates` end."""
    return optim.apply_updates(params, tx.update(updates, tx.init(params), params)[0])


matrices = st.builds(
    lambda seed, rows, columns, size: size * drawn(seed, rows, columns),
    st.integers(0, 1000),
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
)
scales = st.sampled_from([0.0, 1e-2, 1.0, 7.3])
dtypes = st.sampled_from([torch.float64, torch.float32])

# The set, as a function that says by how much a tensor is outside of it.
OUTSIDE: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor, float], Tensor]]] = {
    "l2_ball": (
        lambda x, scale: optim.projection_l2_ball(x, scale, dim=1),
        lambda y, scale: (y.norm(dim=1) - scale).clamp(min=0).amax(),
    ),
    "simplex": (
        lambda x, scale: optim.projection_simplex(x, scale, dim=1),
        lambda y, scale: torch.maximum((y.sum(1) - scale).abs().amax(), -y.amin().clamp(max=0)),
    ),
    "box": (
        lambda x, scale: optim.projection_box(x, -scale, scale / 2),
        lambda y, scale: torch.maximum(y.amax() - scale / 2, -scale - y.amin()).clamp(min=0),
    ),
    "non_negative": (
        lambda x, scale: optim.projection_non_negative(x),
        lambda y, scale: -y.amin().clamp(max=0),
    ),
}
every_projection = pytest.mark.parametrize("name", OUTSIDE)


@every_projection
class TestProjections:
    @given(x=matrices, scale=scales, other=matrices, dtype=dtypes)
    def test_nearest_point(
        self, name: str, x: Tensor, scale: float, other: Tensor, dtype: torch.dtype
    ) -> None:
        """In the set; and no way into the set leads nearer to x: <x - y, z - y> <= 0."""
        projection, outside = OUTSIDE[name]
        x = x.to(dtype)
        y = projection(x, scale)
        rounding = 16 * torch.finfo(dtype).eps * (1 + scale + x.abs().amax().item())
        assert outside(y, scale) <= rounding
        size = (min(x.shape[0], other.shape[0]), min(x.shape[1], other.shape[1]))
        z = torch.zeros_like(x)
        z[: size[0], : size[1]] = other[: size[0], : size[1]].to(dtype)
        z = projection(z, scale)
        product = ((x - y).double() * (z - y).double()).sum()
        assert product <= 4 * x.numel() * rounding * (scale + x.abs().amax().item() + 1)

    @given(x=matrices, scale=scales, dtype=dtypes)
    def test_twice_is_once(self, name: str, x: Tensor, scale: float, dtype: torch.dtype) -> None:
        projection, _ = OUTSIDE[name]
        once = projection(x.to(dtype), scale)
        twice = projection(once, scale)
        if name == "simplex":  # whose sums are exact but for rounding
            eps = torch.finfo(dtype).eps
            torch.testing.assert_close(twice, once, rtol=0.0, atol=8 * eps * scale)
        else:
            assert torch.equal(twice, once)

    @pytest.mark.parametrize("scale", [0.5, 2.0])
    def test_derivatives(self, name: str, scale: float) -> None:
        projection, _ = OUTSIDE[name]
        x = drawn(3, 3, 4).requires_grad_()
        radius = torch.tensor(scale, dtype=DOUBLE, requires_grad=True)
        assert torch.autograd.gradcheck(projection, (x, radius))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision(self, name: str, dtype: torch.dtype) -> None:
        projection, _ = OUTSIDE[name]
        x = drawn(0, 3, 40, dtype=dtype)
        found = projection(x, 2.0)
        assert found.dtype == dtype
        exact = projection(x.double(), 2.0)
        torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1)])
    def test_odd_shapes(self, name: str, shape: tuple[int, int]) -> None:
        assert OUTSIDE[name][0](torch.ones(shape), 1.0).shape == shape


def test_projections_of_scalars() -> None:
    x = torch.tensor(-3.0)
    assert optim.projection_l2_ball(x, 2.0) == -2.0
    assert optim.projection_simplex(x, 2.0) == 2.0
    assert optim.projection_simplex(torch.zeros(0)).shape == (0,)


def test_projections_of_complex_numbers() -> None:
    z = torch.tensor([3 + 4j, -1 - 1j])
    assert optim.projection_l2_ball(z[:1], 1.0)[0].abs().item() == pytest.approx(1.0)
    assert optim.projection_non_negative(z).tolist() == [3 + 4j, 0]
    assert optim.projection_box(z, 0.0, 2.0).tolist() == [2 + 2j, 0]
    with pytest.raises(ValueError, match=r"`x` must be real, got torch.complex64"):
        optim.projection_simplex(z)


def test_simplex_by_hand() -> None:
    found = optim.projection_simplex(torch.tensor([3.0, 2.5, -1.0, 0.0]), 1.0)
    assert found.tolist() == [0.75, 0.25, 0.0, 0.0]
    columns = torch.tensor([[0.5, 9.0], [0.5, 9.0]])
    assert optim.projection_simplex(columns, 1.0, dim=0).tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: optim.projection_box(x, 1.0, 0.0), "`lower` must be at most `upper`, got 1.0"),
        (lambda x: optim.projection_l2_ball(x, -1.0), "`scale` must be at least 0, got -1.0"),
        (lambda x: optim.projection_simplex(x, -1.0), "`scale` must be at least 0, got -1.0"),
    ],
)
def test_projection_errors(fn: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fn(torch.ones(2))


class TestMaxNorm:
    @given(x=matrices, u=matrices, radius=st.sampled_from([0.0, 0.3, 1.0, 2.0, 50.0]), dtype=dtypes)
    def test_is_renorm(self, x: Tensor, u: Tensor, radius: float, dtype: torch.dtype) -> None:
        rows, columns = min(x.shape[0], u.shape[0]), min(x.shape[1], u.shape[1])
        params = {"w": x[:rows, :columns].to(dtype)}
        updates = {"w": u[:rows, :columns].to(dtype)}
        free = params["w"] + updates["w"]
        found = after(optim.max_norm(radius), params, updates)["w"]
        eps = torch.finfo(dtype).eps
        largest = (params["w"].norm() + free.norm()).item()
        expected = torch.renorm(free, 2, 0, radius)
        torch.testing.assert_close(found, expected, rtol=8 * eps, atol=2 * eps * largest)

    @pytest.mark.parametrize(
        ("shape", "dim", "unit"),
        [
            ((5, 7), None, 0),
            ((5, 7), 1, 0),
            ((5, 7), [0], 1),
            ((5, 3, 2, 2), None, 0),
            ((5, 3, 2, 2), [1, 2, 3], 0),
            ((5, 3, 2, 2), (0, -2, -1), 1),
        ],
    )
    def test_dims(self, shape: tuple[int, ...], dim: Any, unit: int) -> None:
        """Neurons, kernels as the chapter has them, and those of a transposed convolution."""
        params, updates = {"w": 0.1 * drawn(0, *shape)}, {"w": drawn(1, *shape)}
        tx = optim.max_norm(2.0, dim=dim)
        found, state = tx.update(updates, tx.init(params), params)
        free = params["w"] + updates["w"]
        expected = torch.renorm(free, 2, unit, 2.0)
        torch.testing.assert_close(params["w"] + found["w"], expected, rtol=1e-14, atol=1e-15)
        units = free.movedim(unit, 0).reshape(shape[unit], -1)
        moved = (units.norm(dim=1) > 2.0).float().mean()
        assert moved > 0
        assert state.diagnostics["max_norm_moved"] == moved

    def test_spares_vectors_and_counts_all_units(self) -> None:
        """A batch norm's weights have one dimension, where a norm over `dim=1` would raise."""
        net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 7))
        params = {name: torch.full_like(p, 0.01) for name, p in net.named_parameters()}
        updates = {name: torch.full_like(p, 9.0) for name, p in params.items()}
        updates["3.weight"][2:] = 0.0
        tx = optim.max_norm(1.0)
        state = tx.init(params)
        assert state.diagnostics == {"max_norm_moved": torch.tensor(0.0)}
        found, state = tx.update(updates, state, params)
        assert state.diagnostics["max_norm_moved"].item() == pytest.approx((3 + 2) / (3 + 7))
        for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
            assert torch.equal(found[name], updates[name])

    def test_where(self) -> None:
        params = {"a": torch.ones(2, 2), "b": torch.ones(2, 2)}
        found = after(optim.max_norm(1.0, where="a"), params, tree.zeros_like(params))
        assert torch.equal(found["b"], params["b"])
        assert found["a"].norm(dim=1).max() <= 1.0

    def test_inside_nothing_moves_by_a_bit(self) -> None:
        params, updates = {"w": drawn(0, 4, 5)}, {"w": 1e-3 * drawn(1, 4, 5)}
        tx = optim.max_norm(100.0)
        found, state = tx.update(updates, tx.init(params), params)
        assert_equal(found, updates)
        assert state.diagnostics["max_norm_moved"] == 0

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
    def test_stays_once_it_is_there(self, dtype: torch.dtype) -> None:
        """A second step of nothing moves nothing, though the first landed with a rounding."""
        params = {"w": drawn(0, 50, 300, dtype=dtype)}
        tx, still = optim.max_norm(2.0), tree.zeros_like(params)
        once = after(tx, params, still)
        twice = after(tx, once, still)
        assert_equal(after(tx, twice, still), twice)
        eps = torch.finfo(dtype).eps
        assert (twice["w"].double().norm(dim=1) <= 2.0 * (1 + 2 * eps)).all()
        if dtype != torch.bfloat16:
            _, state = tx.update(still, tx.init(params), twice)
            assert state.diagnostics["max_norm_moved"] == 0

    def test_a_sweep_with_and_without(self) -> None:
        """An infinite radius is none; every lane has its own fraction."""
        tx = optim.chain(optim.sgd(lr=1.0), optim.max_norm(1.0))
        params = {"w": drawn(0, 6, 5)}
        state = tree.stack([tx.init(params)] * 3)
        state = optim.set_hyperparams(state, max_norm=torch.tensor([0.5, 2.0, math.inf]))
        grads = {"w": drawn(1, 6, 5)}
        found, state = vmap(lambda s: optim.step(tx, params, grads, s))(state)
        free = params["w"] - grads["w"]
        for lane, radius in enumerate([0.5, 2.0, 1e9]):
            torch.testing.assert_close(found["w"][lane], torch.renorm(free, 2, 0, radius))
            moved = (free.norm(dim=1) > radius).float().mean()
            assert state.diagnostics["max_norm_moved"][lane] == moved

    def test_rows_of_he_layers_are_inside(self) -> None:
        """The chapter's r = 2 does nothing at the start: norms are near sqrt(2)."""
        w = torch.nn.init.kaiming_uniform_(
            torch.empty(100, 784), generator=torch.Generator().manual_seed(0)
        )
        tx = optim.max_norm(2.0)
        _, state = tx.update({"w": 0 * w}, tx.init({"w": w}), {"w": w})
        assert state.diagnostics["max_norm_moved"] == 0

    @pytest.mark.parametrize(
        ("dim", "shape"),
        [([1, 2, 3], (4, 5)), ((1, 1), (4, 5)), (1, (3,)), (None, (3,)), ((), (2, 2))],
    )
    def test_dims_that_do_not_fit(self, dim: Any, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"at path 'w': `dim` must name dimensions .* `where`"):
            optim.max_norm(1.0, dim, where="w").init({"w": torch.ones(shape)})

    def test_range(self) -> None:
        with pytest.raises(ValueError, match="`max_norm` must be at least 0, got -1"):
            optim.max_norm(-1)


class TestProject:
    def test_zeros_are_zeros(self) -> None:
        """u' = -p, and p - p is 0 in every precision, though p + (P - p) is seldom P."""
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            params = {"w": drawn(0, 200, dtype=dtype).abs()}
            updates = {"w": drawn(1, 200, dtype=dtype)}
            found = after(optim.keep_params_nonnegative(), params, updates)["w"]
            free = params["w"] + updates["w"]
            assert torch.equal(found, free.clamp(min=0))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_lands_within_a_rounding(self, dtype: torch.dtype) -> None:
        params, updates = {"w": drawn(0, 400, dtype=dtype)}, {"w": drawn(1, 400, dtype=dtype)}
        tx = optim.project(optim.projection_box, lower=-1 / 3, upper=1 / 7)
        p, free = params["w"], params["w"] + updates["w"]
        found, exact = after(tx, params, updates)["w"], free.double().clamp(-1 / 3, 1 / 7)
        eps = torch.finfo(dtype).eps
        assert ((found - exact).abs() <= eps * (p.abs() + exact.abs())).all()
        inside = (free > -0.3) & (free < 0.14)
        assert inside.any() and torch.equal(found[inside], free[inside])

    def test_each_leaf_by_itself_in_its_own_shape(self) -> None:
        params = {"mix": torch.full((2, 2), 0.25), "wave": torch.ones(2) * 1j, "b": torch.ones(3)}
        updates = tree.map(lambda p: 2 * p, params)
        found = after(optim.project(optim.projection_simplex, "mix"), params, updates)
        torch.testing.assert_close(found["mix"], torch.full((2, 2), 0.25))
        assert torch.equal(found["b"], torch.full((3,), 3.0))
        found = after(optim.project(lambda x: x / 3), params, updates)
        tree.assert_same_structure(params, found)
        torch.testing.assert_close(found["wave"], params["wave"])

    def test_hyperparameters_are_the_projections_arguments(self) -> None:
        tx = optim.chain(
            optim.sgd(lr=1.0),
            optim.project(optim.projection_box, lower=lambda count: count / 4, upper=1.0),
        )
        params, state = {"w": torch.tensor([-1.0, 3.0])}, None
        state = tx.init(params)
        seen = []
        for _ in range(3):
            params, state = optim.step(tx, params, tree.zeros_like(params), state)
            seen.append(params["w"].tolist())
        assert seen == [[0.0, 1.0], [0.25, 1.0], [0.5, 1.0]]
        assert state.hyperparams["lower"].item() == 0.5

    def test_derivatives_where_an_element_happens_to_stay(self) -> None:
        """It stays at 0, but would not if it were a little off."""
        p = torch.tensor([3.0, 0.0], dtype=DOUBLE)
        u = torch.tensor([1.0, 0.0], dtype=DOUBLE, requires_grad=True)
        tx = optim.project(optim.projection_l2_ball, scale=2.0)

        def end(u: Tensor) -> Tensor:
            return after(tx, {"w": p}, {"w": u})["w"]

        assert torch.autograd.gradcheck(end, (u,))
        found = torch.func.jacrev(end)(u.detach())
        torch.testing.assert_close(found, torch.diag(torch.tensor([0.0, 0.5], dtype=DOUBLE)))

    def test_masked_and_grouped(self) -> None:
        """Behind a step, what is not chosen still steps."""
        params = {"a": torch.ones(2), "b": torch.ones(2)}
        grads = {"a": torch.full((2,), 5.0), "b": torch.full((2,), 5.0)}
        for last in (
            optim.masked(optim.keep_params_nonnegative(), "a"),
            optim.keep_params_nonnegative("a"),
            optim.partition(
                {"in": optim.keep_params_nonnegative(), "out": optim.identity()},
                {"in": "a", "out": "b"},
            ),
        ):
            tx = optim.chain(optim.sgd(lr=1.0), last)
            found, _ = optim.step(tx, params, grads, tx.init(params))
            assert_equal(found, {"a": torch.zeros(2), "b": torch.full((2,), -4.0)})

    @pytest.mark.parametrize(
        "tx",
        [
            optim.project(optim.projection_non_negative),
            optim.keep_params_nonnegative("w"),
            optim.max_norm(1.0),
        ],
    )
    def test_params_forgotten(self, tx: GradientTransformation) -> None:
        grads = {"w": torch.ones(2, 2)}
        with pytest.raises(ValueError, match="`params` must be given to `update`"):
            tx.update(grads, tx.init(grads))

    def test_arguments_that_are_no_numbers(self) -> None:
        with pytest.raises(TypeError, match=r"`dim` must be a number, .*got None"):
            optim.project(optim.projection_simplex, dim=None)  # type: ignore[arg-type]
