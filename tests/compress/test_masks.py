"""Masks against torch.nn.utils.prune's, and what torch has no word on: ties, vmap, tensors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from asserts import assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap
from torch.nn.utils import prune

from fdnn import compress, functionalize, random

AMOUNTS = [0.0, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0, 0, 1, 4]
WEIGHTS = ("0.weight", "2.weight")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Linear(7, 5))


def torchs(net: nn.Sequential) -> dict[str, Tensor]:
    return {f"{i}.weight": net[i].weight_mask.bool() for i in (0, 2)}


def params_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in net.named_parameters()}


def scores(seed: int) -> dict[str, Tensor]:
    shapes = {"0.weight": (5, 2, 3, 3), "2.weight": (5, 7)}
    keys = random.split(random.key(seed), 2)
    return {name: random.normal(k, shapes[name]) for k, name in zip(keys, shapes, strict=True)}


@pytest.mark.parametrize("amount", AMOUNTS)
def test_l1_unstructured_is_torchs(amount: float) -> None:
    net = network()
    found = compress.l1_unstructured(params_of(net), amount)
    for i in (0, 2):
        prune.l1_unstructured(net[i], "weight", amount)
    assert_equal(found, torchs(net))


@pytest.mark.parametrize("amount", AMOUNTS)
def test_global_unstructured_is_torchs(amount: float) -> None:
    net = network()
    found = compress.global_unstructured(params_of(net), amount)
    places = [(net[0], "weight"), (net[2], "weight")]
    prune.global_unstructured(places, prune.L1Unstructured, amount=amount)
    assert_equal(found, torchs(net))


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize(("n", "dim"), [(2, 0), (1, 1), (math.inf, 0), (-math.inf, -1), (0.5, 1)])
def test_ln_structured_is_torchs(amount: float, n: float, dim: int) -> None:
    net = nn.Sequential(nn.Conv2d(6, 5, 4), nn.ReLU(), nn.Linear(7, 5))
    found = compress.ln_structured(params_of(net), amount, n, dim)
    for i in (0, 2):
        prune.ln_structured(net[i], "weight", amount, n, dim)
    assert_equal(found, torchs(net))


@pytest.mark.parametrize("amount", [0.2, 0.5, 1])
def test_again_on_what_is_left(amount: float) -> None:
    """Three rounds, each of another method, and every method after another."""
    methods: dict[str, tuple[Any, Any]] = {
        "l1": (
            lambda p, masks: compress.l1_unstructured(p, amount, masks=masks),
            lambda net: [prune.l1_unstructured(net[i], "weight", amount) for i in (0, 2)],
        ),
        "ln": (
            lambda p, masks: compress.ln_structured(p, amount, masks=masks),
            lambda net: [prune.ln_structured(net[i], "weight", amount, 2, 0) for i in (0, 2)],
        ),
        "global": (
            lambda p, masks: compress.global_unstructured(p, amount, masks=masks),
            lambda net: prune.global_unstructured(
                [(net[i], "weight") for i in (0, 2)], prune.L1Unstructured, amount=amount
            ),
        ),
    }
    for order in itertools.permutations(methods):
        net, masks = network(), None
        params = params_of(net)
        for name in order:
            masks = methods[name][0](params, masks)
            methods[name][1](net)
            assert_equal(masks, torchs(net))


def test_importance_scores_are_torchs() -> None:
    net, by = network(), scores(3)
    params = params_of(net)
    found = compress.l1_unstructured(params, 0.4, importance_scores=by)
    whole = compress.global_unstructured(
        params, 0.4, importance_scores={"0.weight": by["0.weight"]}
    )
    units = compress.ln_structured(params, 0.4, 2, 0, importance_scores=by)
    copies = [network() for _ in range(3)]
    for copy in copies:
        copy.load_state_dict(net.state_dict())
    for i in (0, 2):
        prune.l1_unstructured(copies[0][i], "weight", 0.4, by[f"{i}.weight"])
        prune.ln_structured(copies[2][i], "weight", 0.4, 2, 0, by[f"{i}.weight"])
    prune.global_unstructured(
        [(copies[1][i], "weight") for i in (0, 2)],
        prune.L1Unstructured,
        {(copies[1][0], "weight"): by["0.weight"]},
        amount=0.4,
    )
    for masks, copy in zip((found, whole, units), copies, strict=True):
        assert_equal(masks, torchs(copy))


@given(st.integers(1, 12), st.integers(0, 40))
def test_tensors_of_amounts_round_as_numbers(size: int, twentieths: int) -> None:
    """Halves among them, which go to the even number."""
    amount = twentieths / 40
    params = {"w": random.permutation(random.key(size), size * 2).reshape(size, 2) + 1.0}
    number = compress.l1_unstructured(params, amount)
    assert int((~number["w"]).sum()) == round(amount * size * 2)
    wide = torch.tensor(amount, dtype=torch.float64)
    assert_equal(compress.l1_unstructured(params, wide), number)
    masks = compress.l1_unstructured(params, 0.5)
    again = compress.l1_unstructured(params, amount, masks=masks)
    assert_equal(compress.l1_unstructured(params, wide, masks=masks), again)
    assert int((masks["w"] & ~again["w"]).sum()) == round(amount * int(masks["w"].sum()))
    count = torch.tensor(min(twentieths, size))
    assert_equal(
        compress.l1_unstructured(params, count), compress.l1_unstructured(params, int(count))
    )


def test_ties_lose_the_first() -> None:
    masks = compress.l1_unstructured({"w": torch.tensor([[1.0, -1.0], [1.0, 0.0]])}, 0.5)
    assert masks["w"].tolist() == [[False, True], [True, False]]


def test_a_sweep_of_amounts_is_a_loop() -> None:
    params, amounts = scores(0), torch.tensor([0.1, 0.35, 0.8, 1.0], dtype=torch.float64)
    for prune_ in (
        compress.l1_unstructured,
        compress.global_unstructured,
        compress.ln_structured,
        lambda p, amount: compress.random_unstructured(random.key(1), p, amount),
        lambda p, amount: compress.random_structured(random.key(1), p, amount),
    ):
        swept = vmap(lambda amount, fn=prune_: fn(params, amount))(amounts)
        for lane, amount in enumerate(amounts.tolist()):
            wanted = prune_(params, amount)
            assert_equal({name: mask[lane] for name, mask in swept.items()}, wanted)


def test_random_masks_have_the_law() -> None:
    """Each weight and each pair is pruned as often as under draws without replacement."""
    keys, params = random.split(random.key(0), 4000), {"a": torch.ones(3, 2), "b": torch.ones(3, 2)}
    masks = vmap(lambda key: compress.random_unstructured(key, params, 0.5))(keys)
    units = vmap(lambda key: compress.random_structured(key, params, 1))(keys)
    flat = masks["a"].flatten(1).double()
    assert (flat.sum(1) == 3).all()
    assert (units["a"].sum((1, 2)) == 4).all()
    for share, p in (
        (flat, 1 / 2),
        (flat[:, :1] * flat[:, 1:], 1 / 2 * 2 / 5),
        (units["a"][:, :, 0].double(), 2 / 3),
        (flat * masks["b"].flatten(1), 1 / 4),  # leaves are independent
    ):
        assert ((share.mean(0) - p).abs() < 4.5 * math.sqrt(p * (1 - p) / len(keys))).all()


def test_random_masks_do_not_hang_on_other_leaves() -> None:
    params = scores(0)
    alone = compress.random_unstructured(random.key(2), params, 0.5, where="2.*")
    assert_equal(
        alone, {"2.weight": compress.random_unstructured(random.key(2), params, 0.5)["2.weight"]}
    )


@given(st.integers(0, 4), st.sampled_from([1, 2, 4]), st.integers(0, 1), st.integers(0, 5))
def test_n_of_m_keeps_the_largest(n: int, m: int, dim: int, seed: int) -> None:
    weight = random.normal(random.key(seed), (8, 4, 3))
    if n > m:
        with pytest.raises(ValueError, match=r"`n` must be in \[0, m\]"):
            compress.n_of_m({"w": weight}, n, m, dim)
        return
    mask = compress.n_of_m({"w": weight}, n, m, dim)["w"]
    rows = zip(
        weight.movedim(dim, -1).reshape(-1, m), mask.movedim(dim, -1).reshape(-1, m), strict=True
    )
    for values, kept in rows:
        wanted = torch.zeros(m, dtype=torch.bool)
        wanted[values.abs().topk(n).indices] = True
        assert torch.equal(kept, wanted)


def test_which_leaves() -> None:
    params = {**scores(0), "0.bias": torch.ones(5)}
    assert set(compress.l1_unstructured(params, 0.5)) == set(WEIGHTS)
    assert set(compress.l1_unstructured(params, 0.5, where="*bias")) == {"0.bias"}
    masks = compress.l1_unstructured(params, 0.5, where="0.weight")
    assert set(compress.l1_unstructured(params, 0.5, masks=masks)) == {"0.weight"}
    more = compress.l1_unstructured(params, 0.5, where="2.weight", masks=masks)
    assert_equal(more["0.weight"], masks["0.weight"])
    assert set(compress.global_unstructured(params, 0.5, where="2.*", masks=masks)) == set(WEIGHTS)


def test_masked_elements_are_0_and_have_no_gradient() -> None:
    params = {"w": torch.tensor([[1.0, torch.nan, torch.inf]]), "b": torch.ones(1)}
    masks = {"w": torch.tensor([[1.0, 0.0, 0.0]])}  # torch's own masks are numbers
    masked = compress.apply_masks(params, masks)
    assert_equal(masked, {"w": torch.tensor([[1.0, 0.0, 0.0]]), "b": torch.ones(1)})
    grads = torch.func.grad(lambda p: compress.apply_masks(p, masks)["w"].square().sum())(params)
    assert_equal(grads["w"], torch.tensor([[2.0, 0.0, 0.0]]))
    nested = {"body": [torch.ones(2, 2)], "head": torch.ones(2)}
    masks = compress.l1_unstructured(nested, 0.5)
    assert compress.apply_masks(nested, masks)["body"][0].sum() == 2


def test_half_precision_and_other_dtypes() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.complex64):
        weight = random.permutation(random.key(0), 12).reshape(3, 4).to(dtype)
        wanted = weight.abs() >= 6
        assert_equal(compress.l1_unstructured({"w": weight}, 0.5)["w"], wanted)
        assert compress.apply_masks({"w": weight}, {"w": wanted})["w"].dtype == dtype


def test_nonzero_masks_are_those_of_zeros() -> None:
    params = functionalize(network()).params
    masks = compress.global_unstructured(params, 0.6)
    assert_equal(compress.nonzero_masks(compress.apply_masks(params, masks)), masks)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: compress.l1_unstructured(p, 1.5), ValueError, "`amount` must be a float in"),
        (lambda p: compress.l1_unstructured(p, -1), ValueError, "`amount` must be a float in"),
        (lambda p: compress.l1_unstructured(p, 1000), ValueError, "`amount` must be at most 90"),
        (
            lambda p: compress.l1_unstructured(p, 30, masks=compress.l1_unstructured(p, 1.0)),
            ValueError,
            "`amount` must be at most 0, the number left, got 30",
        ),
        (
            lambda p: compress.ln_structured(p, 3, masks=compress.ln_structured(p, 3)),
            ValueError,
            "`amount` must be at most 2, the number left, got 3",
        ),
        (lambda p: compress.l1_unstructured(p, "much"), TypeError, "`amount` must be a number"),
        (lambda p: compress.l1_unstructured(p, torch.ones(2)), ValueError, "a 0-d tensor, got"),
        (lambda p: compress.l1_unstructured(p, 0.5, where="x*"), ValueError, "matches no path"),
        (
            lambda p: compress.l1_unstructured({"b": torch.ones(3)}, 0.5),
            ValueError,
            r"must choose a parameter, got none of \['b'\]",
        ),
        (
            lambda p: compress.l1_unstructured(p, 0.5, masks={"2.weight": torch.ones(2, 2)}),
            ValueError,
            r"expected shape \(5, 7\), found \(2, 2\)",
        ),
        (
            lambda p: compress.l1_unstructured(
                p, 0.5, importance_scores={"2.weight": torch.ones(1)}
            ),
            ValueError,
            r"`importance_scores` at path '2.weight': expected shape \(5, 7\)",
        ),
        (
            lambda p: compress.apply_masks(p, {"x": torch.ones(1)}),
            ValueError,
            "names of parameters",
        ),
        (lambda p: compress.ln_structured(p, 0.5, dim=2), ValueError, "`dim` must be a dimension"),
        (
            lambda p: compress.random_structured(random.key(0), {"b": torch.ones(3)}, 1, where="b"),
            ValueError,
            "`dim` must be a dimension of a leaf of two or more",
        ),
        (lambda p: compress.n_of_m(p), ValueError, "`m` must divide the size along `dim`, got 4"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(scores(0))
