"""Building blocks by hand: values, errors, diagnostics, hyperparameters in the state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from asserts import assert_equal
from torch import Tensor
from torch.func import vmap

from fdnn import optim, tree
from fdnn.types import GradientTransformation, Params

NAN, INF = math.nan, math.inf


def one_update(tx: GradientTransformation, grads: Any, params: Any = None) -> Any:
    return tx.update(grads, tx.init(grads if params is None else params), params)[0]


class TestHyperparameters:
    @pytest.mark.parametrize(
        ("tx", "names"),
        [
            (optim.scale(2.0), ["step_size"]),
            (optim.scale_by_schedule(lambda count: 0.5), ["step_size"]),
            (optim.trace(0.9), ["decay"]),
            (optim.ema(0.9), ["decay"]),
            (optim.add_l1(0.1), ["l1"]),
            (optim.proximal_l1(optim.sgd(0.1), 0.1), ["lr", "l1"]),
            (optim.clip(0.1), ["max_delta"]),
            (optim.clip_by_value(0.1, 0.2), ["min", "max"]),
            (optim.clip_by_block_rms(0.1), ["threshold"]),
            (optim.adaptive_grad_clip(0.1), ["clipping", "eps"]),
            (optim.normalize_by_update_norm(), ["scale_factor", "eps"]),
            (optim.max_norm(1.0), ["max_norm"]),
            (optim.project(optim.projection_box, lower=0.1, upper=1.0), ["lower", "upper"]),
            (optim.flatten(optim.adam()), ["beta1", "beta2", "eps", "lr"]),
        ],
        ids=lambda x: "-".join(x) if isinstance(x, list) else "",
    )
    def test_are_in_the_state(self, tx: GradientTransformation, names: list[str]) -> None:
        state = tx.init({"w": torch.ones(2, 2)})
        assert list(state.hyperparams) == names
        assert all(x.shape == () for x in state.hyperparams.values())

    def test_a_plateau_rule_sets_the_step_size(self) -> None:
        """Without a second compilation, and for each lane."""
        tx = optim.chain(optim.sgd(lr=1.0), optim.scale(1.0))
        grads = {"w": torch.ones(1)}
        state = tree.stack([tx.init(grads)] * 3)
        state = optim.set_hyperparams(state, step_size=torch.tensor([1.0, 0.1, 0.0]))
        updates, _ = vmap(lambda state: tx.update(grads, state))(state)
        torch.testing.assert_close(updates["w"], torch.tensor([[-1.0], [-0.1], [0.0]]))

    def test_schedules(self) -> None:
        tx = optim.chain(optim.clip(lambda count: 1.0 + count), optim.scale(lambda count: -count))
        grads = {"w": torch.tensor(5.0)}
        state, seen = tx.init(grads), []
        for _ in range(3):
            updates, state = tx.update(grads, state)
            seen.append(updates["w"].item())
        assert seen == [0.0, -2.0, -6.0]


class TestScaling:
    def test_a_scale_is_no_step(self) -> None:
        """So that under a mask the other leaves pass, as gradients should."""
        grads = {"a": torch.ones(1), "b": torch.ones(1)}
        for inner, rest in [(optim.scale(0.5), 1.0), (optim.sgd(lr=0.5), 0.0)]:
            assert one_update(optim.masked(inner, "a"), grads)["b"].item() == rest

    def test_identity_counts(self) -> None:
        grads = {"w": torch.ones(1)}
        _, state = optim.identity().update(grads, optim.identity().init(grads))
        assert state.count.item() == 1


WEIGHTS: Params = {"weight": torch.full((2,), 2.0), "bias": torch.full((2,), 2.0)}
MIXED: Params = {"w": torch.tensor([[1.0, -2.0]]), "b": torch.tensor(0.5)}


class TestDecay:
    def test_mask_lets_the_other_updates_pass(self) -> None:
        """optax users (#159, #160, #271) meet raw gradients where they expect none."""
        grads = tree.map(torch.ones_like, WEIGHTS)
        updates = one_update(optim.add_decayed_weights(0.5, mask="weight"), grads, WEIGHTS)
        assert_equal(updates, {"weight": torch.full((2,), 2.0), "bias": torch.ones(2)})
        whole = optim.chain(
            optim.scale_by_adam(), optim.add_decayed_weights(0.5, "weight"),
            optim.scale_by_learning_rate(0.1),
        )  # fmt: skip
        parts = optim.partition(
            {"decay": optim.adamw(0.1, weight_decay=0.5), "rest": optim.adamw(0.1, weight_decay=0)},
            {"decay": "weight", "rest": "*"},
        )
        assert_equal(one_update(whole, grads, WEIGHTS), one_update(parts, grads, WEIGHTS))

    def test_a_mask_keeps_the_name(self) -> None:
        tx = optim.chain(optim.add_decayed_weights(0.5, "weight"), optim.adamw())
        names = list(tx.init(WEIGHTS).hyperparams)
        assert [n for n in names if "decay" in n] == ["decay.weight_decay", "decay_1.weight_decay"]

    def test_mask_that_matches_nothing(self) -> None:
        with pytest.raises(ValueError, match=r"`where` matches no path with 'wieght'"):
            one_update(optim.add_decayed_weights(0.5, "wieght"), WEIGHTS, WEIGHTS)


class TestClipping:
    def test_value_is_torchs(self) -> None:
        leaf = torch.tensor([0.5, -3.0, 2.0])
        leaf.grad = leaf.clone()
        torch.nn.utils.clip_grad_value_([leaf], 1.5)
        assert torch.equal(one_update(optim.clip(1.5), leaf), leaf.grad)
        found = one_update(optim.clip_by_value(-1.0, 0.25), leaf)
        assert torch.equal(found, leaf.clamp(-1.0, 0.25))

    @pytest.mark.parametrize(
        "tx",
        [
            optim.clip(INF),
            optim.clip_by_value(-INF, INF),
            optim.clip_by_block_rms(INF),
            optim.adaptive_grad_clip(INF),
        ],
    )
    def test_infinite_bounds_do_nothing(self, tx: GradientTransformation) -> None:
        grads = {"w": torch.tensor([[1.0, -2.0], [0.0, 0.0]]), "s": torch.tensor(0.0)}
        assert_equal(one_update(tx, grads, grads), grads)

    @pytest.mark.parametrize(
        "tx", [optim.clip(0), optim.clip_by_block_rms(0), optim.adaptive_grad_clip(0)]
    )
    def test_bounds_of_zero_stop_all(self, tx: GradientTransformation) -> None:
        grads = {"w": torch.tensor([[1.0, -2.0], [0.0, 0.0]]), "s": torch.tensor(0.0)}
        assert_equal(one_update(tx, grads, grads), tree.zeros_like(grads))

    def test_inside_nothing_changes_by_a_bit(self) -> None:
        grads = {"w": torch.tensor([[0.1, -0.3], [0.7, 0.01]]), "b": torch.tensor([0.3])}
        for tx in (optim.clip_by_block_rms(0.5), optim.adaptive_grad_clip(1.1)):
            assert_equal(one_update(tx, grads, grads), grads)

    def test_nan_stays_nan(self) -> None:
        for tx in (optim.clip(1.0), optim.clip_by_block_rms(1.0)):
            assert one_update(tx, torch.tensor([NAN, 1.0])).isnan()[0]

    def test_block_rms_of_complex_numbers(self) -> None:
        """The mean is over the numbers, not over their parts."""
        u = torch.tensor([3 + 4j, 0.0])
        found = one_update(optim.clip_by_block_rms(1.0), u)
        torch.testing.assert_close(found, u / (5 / math.sqrt(2)))

    def test_adaptive_units(self) -> None:
        """By hand: weights of norm 5 and 0 (so eps counts), a bias of norm 2, a kernel of 3."""
        params = {
            "w": torch.tensor([[3.0, 4.0], [0.0, 0.0]]),
            "b": torch.tensor([0.0, 2.0]),
            "kernel": torch.tensor([[[[1.0]], [[2.0]], [[2.0]]]]).expand(2, 3, 1, 1).clone(),
        }
        grads = tree.map(lambda p: torch.full_like(p, 10.0), params)
        found = one_update(optim.adaptive_grad_clip(0.1, eps=1.0), grads, params)
        for path, norms in [("w", [0.5, 0.1]), ("b", [0.2]), ("kernel", [0.3, 0.3])]:
            units = found[path].reshape(len(norms), -1)
            torch.testing.assert_close(units.norm(dim=1), torch.tensor(norms))
            assert (units == units[:, :1]).all()  # the direction stays


class TestNormalize:
    def test_centralize_kernels(self) -> None:
        u = torch.arange(24.0).reshape(2, 3, 2, 2) ** 2
        found = one_update(optim.centralize(), {"kernel": u, "b": u[0, 0, 0], "s": u[0, 0, 0, 1]})
        torch.testing.assert_close(
            found["kernel"], u - u.reshape(2, -1).mean(1).reshape(2, 1, 1, 1)
        )
        assert torch.equal(found["b"], u[0, 0, 0]) and found["s"] == 1.0

    def test_centralize_complex_vectors(self) -> None:
        """A complex vector is a vector, though it is computed with as a matrix of parts."""
        u = torch.tensor([1 + 2j, 3.0])
        assert torch.equal(one_update(optim.centralize(), u), u)
        m = torch.tensor([[1 + 2j, 3.0]])
        assert torch.equal(one_update(optim.centralize(), m), torch.tensor([[-1 + 1j, 1 - 1j]]))

    def test_norm_is_a_diagnostic(self) -> None:
        tx, grads = optim.normalize_by_update_norm(-2.0, eps=0.0), {"w": torch.tensor([3.0, 4.0])}
        updates, state = tx.update(grads, tx.init(grads))
        torch.testing.assert_close(updates["w"], torch.tensor([-1.2, -1.6]))
        assert optim.diagnostics(state)["update_norm"].item() == 5.0

    def test_norm_of_zero(self) -> None:
        grads = {"w": torch.zeros(2)}
        assert_equal(one_update(optim.normalize_by_update_norm(), grads), grads)

    def test_nans_are_counted_in_all_leaves(self) -> None:
        tx = optim.chain(optim.zero_nans(), optim.sgd(lr=1.0, momentum=0.9))
        grads = {
            "half": torch.tensor([NAN, 1.0], dtype=torch.bfloat16),
            "wave": torch.tensor([complex(NAN, 1.0), complex(1.0, 2.0), complex(NAN, NAN)]),
            "s": torch.tensor(NAN),
        }
        updates, state = tx.update(grads, tx.init(grads))
        assert state.diagnostics["nan_count"].item() == 4
        assert state.diagnostics["nan_count"].dtype == torch.float32
        expected = {"half": [0.0, -1.0], "wave": [0, complex(-1, -2), 0], "s": 0.0}
        assert tree.map(lambda u: u.tolist(), updates) == expected
        updates, state = tx.update(tree.map(torch.ones_like, grads), state)
        assert state.diagnostics["nan_count"].item() == 0
        assert all(u.isfinite().all() for u in tree.leaves((updates, state.slots)))


class TestFlatten:
    def test_slots_are_vectors_in_the_order_of_paths(self) -> None:
        tx = optim.flatten(optim.trace(0.5))
        grads = {"w": torch.tensor([[2.0, 3.0]]), "b": torch.tensor(1.0)}
        updates, state = tx.update(grads, tx.init(MIXED))
        assert state.slots["trace"].tolist() == [1.0, 2.0, 3.0]
        assert_equal(updates, grads)

    def test_equals_the_leaves(self) -> None:
        inner = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(0.1))
        grads = tree.map(lambda p: p * p, MIXED)
        for found, expected in zip(
            *(
                tree.leaves(optim.step(tx, MIXED, grads, tx.init(MIXED))[0])
                for tx in (optim.flatten(inner), inner)
            ),
            strict=True,
        ):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)

    def test_mixed_precisions_share_the_widest(self) -> None:
        params = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(1)}
        tx = optim.flatten(optim.adam(0.1))
        updates, state = tx.update(params, tx.init(params), params)
        assert state.slots["exp_avg"].dtype == torch.float32
        tree.assert_same_structure(params, updates)

    def test_complex_and_real_do_not_mix(self) -> None:
        params = {"a": torch.ones(2), "b": torch.ones(1) * 1j}
        with pytest.raises(ValueError, match="at path 'b': expected real, found complex64"):
            optim.flatten(optim.adam()).init(params)

    def test_step_or_not(self) -> None:
        for inner, rest in [(optim.scale(0.5), 1.0), (optim.sgd(lr=0.5), 0.0)]:
            tx = optim.masked(optim.flatten(inner), "w")
            assert one_update(tx, tree.map(torch.ones_like, MIXED))["b"].item() == rest


ERRORS: list[tuple[Any, str]] = [
    (lambda: optim.scale(NAN), "`step_size` must be at least -inf, got nan"),
    (lambda: optim.trace(1.0), r"`decay` must be in \[0, 1\), got 1.0"),
    (lambda: optim.ema(-0.1), r"`decay` must be in \[0, 1\), got -0.1"),
    (lambda: optim.clip(-1), "`max_delta` must be at least 0, got -1"),
    (lambda: optim.clip_by_value(1.0, 0.5), "`min` must be at most `max`, got 1.0 and 0.5"),
    (lambda: optim.clip_by_block_rms(-1), "`threshold` must be at least 0, got -1"),
    (lambda: optim.adaptive_grad_clip(-0.1), "`clipping` must be at least 0, got -0.1"),
    (lambda: optim.adaptive_grad_clip(0.1, -1), "`eps` must be at least 0, got -1"),
    (lambda: optim.normalize_by_update_norm(eps=-1), "`eps` must be at least 0, got -1"),
]


class TestErrors:
    @pytest.mark.parametrize(("build", "message"), ERRORS)
    def test_range(self, build: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}$"):
            build()

    def test_schedule_that_is_none(self) -> None:
        with pytest.raises(TypeError, match=r"`schedule` must be a function .*, got 0.1"):
            optim.scale_by_schedule(0.1)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "tx",
        [
            optim.adaptive_grad_clip(0.1),
            optim.add_decayed_weights(0.1, "w"),
            optim.add_l1(0.1),
            optim.flatten(optim.add_l1(0.1)),
        ],
    )
    def test_params_forgotten(self, tx: GradientTransformation) -> None:
        grads: dict[str, Tensor] = {"w": torch.ones(2)}
        with pytest.raises(ValueError, match="`params` must be given to `update`"):
            tx.update(grads, tx.init(grads))
