"""Ensembles: the loop over members at once, and what the linear model says of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asserts import assert_close, assert_equal
from torch import Tensor, nn, vmap

from fdnn import functionalize, random, tree
from fdnn.uncertainty import deep_ensemble, linearized_ensemble, mc_dropout, regroup

NET = functionalize(
    nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(12, 4),
    )
)  # fmt: skip
X = random.normal(random.key(9), (6, 1, 4, 4))
MLP = functionalize(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double())


def members(count: int, model: Any = NET) -> tuple[Any, Any]:
    params, buffers = vmap(model.init)(random.split(random.key(0), count))
    moved = {n: b + 0.1 if n.endswith("running_mean") else b for n, b in buffers.items()}
    return params, moved


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_is_the_loop_over_members(chunk_size: int | None) -> None:
    params, buffers = members(3)
    found = deep_ensemble(NET, params, buffers, X, chunk_size=chunk_size)
    pairs = zip(tree.unstack(params), tree.unstack(buffers), strict=True)
    wanted = torch.stack([NET.apply(p, b, X)[0] for p, b in pairs])
    assert found.shape == (3, 6, 4)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_many_ensembles_at_once() -> None:
    params, buffers = members(6)
    groups = regroup(params, 3), regroup(buffers, 3)
    found = vmap(lambda p, b: deep_ensemble(NET, p, b, X))(*groups)
    wanted = deep_ensemble(NET, params, buffers, X).reshape(2, 3, 6, 4)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_of_monte_carlo_dropout() -> None:
    """Members times masks: `vmap` of the one function, flattened."""
    params, buffers = members(2)
    keys = random.split(random.key(5), 2)

    def member(params: Any, buffers: Any, key: Tensor) -> Tensor:
        outputs: Tensor = mc_dropout(NET, params, buffers, X, key=key, num_samples=3)
        return outputs

    found = vmap(member)(params, buffers, keys).flatten(0, 1)
    assert found.shape == (6, 6, 4)
    pairs = zip(tree.unstack(params), tree.unstack(buffers), keys, strict=True)
    wanted = torch.cat([member(p, b, k) for p, b, k in pairs])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert (found[0] - found[1]).abs().max() > 0.1  # the masks differ


class Body(nn.Linear):
    """Notes whether it is called with members, or once for all of them."""

    seen: list[bool] = []  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        output = super().forward(x)
        self.seen.append(torch._C._functorch.is_batchedtensor(output))
        return output


def test_what_is_shared_is_computed_once() -> None:
    model = functionalize(nn.Sequential(Body(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    params, x = model.params, torch.ones(5, 3)
    Body.seen.clear()
    heads = {n: torch.stack([p, 2 * p]) for n, p in params.items() if n.startswith("2.")}
    found = deep_ensemble(model, {**params, **heads}, {}, x)
    assert Body.seen == [False]
    one = model.apply(params, {}, x)[0]
    torch.testing.assert_close(found, torch.stack([one, 2 * one]))


def test_takes_keywords_and_gives_trees() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
            return {"x": self.w * x, "y": scale * self.w}

    model = functionalize(Net())
    params = {"w": torch.tensor([1.0, 2.0])}
    found = deep_ensemble(model, params, {}, torch.ones(2), scale=torch.tensor(3.0))
    assert_equal(found, {"x": torch.tensor([[1.0, 1.0], [2.0, 2.0]]), "y": torch.tensor([3.0, 6])})
    linear = linearized_ensemble(
        model, model.params, {}, params, torch.ones(2), scale=torch.tensor(3.0)
    )
    assert_close(linear, found, rtol=1e-6, atol=0)


def test_refuses_what_is_not_stacked() -> None:
    with pytest.raises(ValueError, match=r"`params` must be stacked"):
        deep_ensemble(NET, NET.params, NET.buffers, X)
    params, buffers = members(2)
    with pytest.raises(ValueError, match=r"`params` at path '0.bias': expected shape \(3,\)"):
        deep_ensemble(NET, {**params, "0.bias": torch.zeros(2, 2, 3)}, buffers, X)
    with pytest.raises(ValueError, match=r"unknown \['z'\]"):
        deep_ensemble(NET, {**params, "z": torch.zeros(2)}, buffers, X)


def test_regroup_says_what_does_not_divide() -> None:
    for count in (0, 4, 7):
        with pytest.raises(ValueError, match=rf"`members` .* 6 at path 'w', got {count}"):
            regroup({"w": torch.zeros(6, 2)}, count)
    divided = regroup({"w": torch.arange(6)}, 2)["w"]
    assert divided.tolist() == [[0, 1], [2, 3], [4, 5]]


def around(size: float) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Three samples of all parameters at some distance, and inputs."""
    params, _ = MLP.init(random.key(3))
    samples = {
        name: p + size * random.normal(random.fold_in(random.key(4), i), (3, *p.shape), p.dtype)
        for i, (name, p) in enumerate(params.items())
    }
    return params, samples, random.normal(random.key(5), (4, 3), torch.float64)


def test_linearized_is_the_jacobian_times_the_change() -> None:
    params, samples, x = around(0.5)
    found = linearized_ensemble(MLP, params, {}, samples, x, chunk_size=2)
    rows = torch.func.jacrev(lambda p: MLP.apply(p, {}, x)[0])(params)
    wanted = MLP.apply(params, {}, x)[0] + sum(
        torch.einsum("bo...,m...->mbo", rows[n], samples[n] - params[n]) for n in params
    )
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_linearized_error_is_of_second_order() -> None:
    errors = []
    for size in (0.02, 0.01):
        params, samples, x = around(size)
        exact = deep_ensemble(MLP, samples, {}, x)
        errors.append((linearized_ensemble(MLP, params, {}, samples, x) - exact).norm())
    assert 3.7 < errors[0] / errors[1] < 4.3


def test_linearized_in_a_layer_that_is_linear_is_the_model() -> None:
    params, samples, x = around(1.0)
    last = {name: value for name, value in samples.items() if name.startswith("2.")}
    found = linearized_ensemble(MLP, params, {}, last, x)
    wanted = deep_ensemble(MLP, {**params, **last}, {}, x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_linearized_refuses_unknown_and_unstacked_samples() -> None:
    params, samples, x = around(1.0)
    with pytest.raises(ValueError, match=r"`samples` must have some of the names .* \['z'\]"):
        linearized_ensemble(MLP, params, {}, {"z": torch.zeros(2)}, x)
    with pytest.raises(ValueError, match="`samples` must be stacked"):
        linearized_ensemble(MLP, params, {}, {**samples, "0.bias": params["0.bias"]}, x)
