"""`add_noise`: who gets which noise, and how much."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asserts import assert_equal
from torch import Tensor
from torch.func import vmap

from fdnn import optim, random, tree

ZEROS = {"w": torch.zeros(3, 2), "b": torch.zeros(2), "s": torch.zeros(())}


def noise(key: Tensor, zeros: Any = ZEROS, steps: int = 1) -> Any:
    """The noise of the last step."""
    tx = optim.add_noise(1.0, 0.55, key)
    state = tx.init(zeros)
    for _ in range(steps):
        updates, state = tx.update(zeros, state)
    return updates


def test_variance_fades() -> None:
    """Of n numbers, the mean square is within five standard errors of eta / (1 + t)^gamma."""
    n = 20000
    tx, grads = optim.add_noise(0.3, 0.55, random.key(1)), {"w": torch.full((n,), 2.0)}
    state = tx.init(grads)
    for t in range(6):
        updates, state = tx.update(grads, state)
        z = (updates["w"] - 2.0).double() / (0.3 / (1 + t) ** 0.55) ** 0.5
        assert abs(z.mean()) < 5 / n**0.5
        assert abs(z.square().mean() - 1) < 5 * (2 / n) ** 0.5


def test_variance_of_complex_noise_is_that_of_both_parts() -> None:
    n = 20000
    z = noise(random.key(1), {"w": torch.zeros(n, dtype=torch.complex128)})["w"]
    assert abs(z.abs().square().mean() - 1) < 5 / n**0.5
    assert abs(z.real.square().mean() - 0.5) < 5 * 0.5 * (2 / n) ** 0.5


def test_no_noise_at_all() -> None:
    tx, grads = optim.add_noise(0.0, 0.55, random.key(0)), {"w": torch.tensor([0.0, 1.0])}
    assert_equal(tx.update(grads, tx.init(grads))[0], grads)


def test_belongs_to_the_path() -> None:
    """Not to the order of the leaves, nor to which others there are."""
    whole = noise(random.key(0))
    assert_equal(noise(random.key(0), dict(reversed(ZEROS.items()))), dict(reversed(whole.items())))
    assert_equal(noise(random.key(0), {"b": ZEROS["b"]}), {"b": whole["b"]})
    assert not torch.equal(whole["w"].flatten()[:2], whole["b"])
    twins = noise(random.key(0), {"x": torch.zeros(4), "y": torch.zeros(4)})
    assert not torch.equal(twins["x"], twins["y"])


def test_is_new_at_every_step_and_exact_after_a_restart() -> None:
    tx, grads = optim.add_noise(1.0, 0.0, random.key(0)), {"w": torch.zeros(4)}
    first, state = tx.update(grads, tx.init(grads))
    second, _ = tx.update(grads, state)
    assert not torch.equal(first["w"], second["w"])
    again, _ = optim.add_noise(1.0, 0.0, random.key(9)).update(grads, state)  # the state has it
    assert_equal(again, second)


def test_lanes_with_keys_of_their_own() -> None:
    keys = random.split(random.key(0), 3)
    loop = tree.stack([noise(key) for key in keys])
    assert_equal(vmap(noise)(keys), loop)  # made within vmap

    tx = optim.add_noise(1.0, 0.55, random.key(5))  # put into the stacked state
    state = vmap(tx.init)(tree.stack([ZEROS] * 3))
    same = vmap(tx.update, in_dims=(None, 0))(ZEROS, state)[0]
    assert torch.equal(same["w"][0], same["w"][1])
    state = state._replace(slots={**state.slots, "key": keys})
    assert_equal(vmap(tx.update, in_dims=(None, 0))(ZEROS, state)[0], loop)
    assert not torch.equal(loop["w"][0], loop["w"][1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    zeros = tree.map(lambda x: x.to(dtype), ZEROS)
    found = noise(random.key(0), zeros)
    tree.assert_same_structure(zeros, found)
    if not dtype.is_complex:
        assert_equal(found, tree.cast(noise(random.key(0)), dtype))


def test_differentiable_in_its_size() -> None:
    def end(eta: Tensor, gamma: Tensor) -> Tensor:
        tx = optim.add_noise(eta, gamma, random.key(0))
        zeros = {"w": torch.zeros(3, dtype=torch.float64)}
        _, state = tx.update(zeros, tx.init(zeros))
        return tx.update(zeros, state)[0]["w"]

    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.3, 0.55)]
    assert torch.autograd.gradcheck(end, inputs)


def test_of_nothing() -> None:
    tx = optim.add_noise(1.0, 0.55, random.key(0))
    assert tx.update({}, tx.init({}))[0] == {}


def test_masked_and_grouped() -> None:
    """The key goes by the name of the slot; the noise of a leaf is the same."""
    masked = optim.masked(optim.add_noise(1.0, 0.55, random.key(0)), "w")
    updates, state = masked.update(ZEROS, masked.init(ZEROS))
    assert_equal(updates, {**ZEROS, "w": noise(random.key(0))["w"]})
    assert list(state.slots) == ["key"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optim.add_noise(-1, 0.5, random.key(0)), "`eta` must be at least 0, got -1"),
        (lambda: optim.add_noise(1, -0.5, random.key(0)), "`gamma` must be at least 0, got -0.5"),
        (lambda: optim.add_noise(1, 0.5, 0), "`key` must be a key .*, got 0"),  # type: ignore[arg-type]
    ],
)
def test_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
