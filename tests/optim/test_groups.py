"""Masks, groups, frozen leaves: who moves, who has state, and what torch's param_groups do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdnn import functionalize, optim, random, tree

NET = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def start() -> dict[str, Tensor]:
    return functionalize(NET).init(random.key(0))[0]


def gradient(params: dict[str, Tensor], t: int) -> dict[str, Tensor]:
    return tree.map(lambda p: torch.cos(p * (t + 1)) + 0.1 * p, params)


def walk(tx: Any, params: dict[str, Tensor], steps: int = 12) -> tuple[dict[str, Tensor], Any]:
    state = tx.init(params)
    for t in range(steps):
        params, state = optim.step(tx, params, gradient(params, t), state)
    return params, state


def test_a_masked_optimizer_moves_no_other_leaf() -> None:
    """Where optax adds the raw gradient."""
    after, state = walk(optim.masked(optim.adam(lr=0.1), "*.weight"), start())
    for name, before in start().items():
        assert torch.equal(after[name], before) is name.endswith("bias")
    assert set(state.slots["exp_avg"]) == {name for name in start() if name.endswith("weight")}


def test_a_masked_block_passes_other_updates_on() -> None:
    params = start()
    grads = gradient(params, 0)
    tx = optim.masked(optim.add_decayed_weights(0.5), "*.weight")
    updates, _ = tx.update(grads, tx.init(params), params)
    for name, grad in grads.items():
        wanted = grad + 0.5 * params[name] if name.endswith("weight") else grad
        assert torch.equal(updates[name], wanted)


def test_groups_are_torchs_param_groups() -> None:
    tx = optim.partition(
        {
            "norm": optim.sgd(lr=0.05, momentum=0.9),
            "decay": optim.sgd(lr=0.1, momentum=0.5, weight_decay=0.2),
            "rest": optim.sgd(lr=0.2, nesterov=True, momentum=0.3),
        },
        {"norm": optim.names_by_type(NET, nn.BatchNorm1d), "decay": "*.weight", "rest": "*"},
    )
    after, state = walk(tx, start())
    leaves = {name: p.clone().requires_grad_() for name, p in start().items()}
    groups = [
        {"params": [leaves["1.weight"], leaves["1.bias"]], "lr": 0.05, "momentum": 0.9},
        {
            "params": [leaves["0.weight"], leaves["2.weight"]],
            "lr": 0.1,
            "momentum": 0.5,
            "weight_decay": 0.2,
        },
        {
            "params": [leaves["0.bias"], leaves["2.bias"]],
            "lr": 0.2,
            "momentum": 0.3,
            "nesterov": True,
        },
    ]
    optimizer = torch.optim.SGD(groups)
    for t in range(12):
        for name, grad in gradient({n: p.detach() for n, p in leaves.items()}, t).items():
            leaves[name].grad = grad
        optimizer.step()
    for name, leaf in leaves.items():
        torch.testing.assert_close(after[name], leaf.detach(), rtol=1e-12, atol=1e-12)
    assert state.hyperparams["decay.weight_decay"].item() == 0.2
    assert set(state.slots["norm.momentum_buffer"]) == {"1.weight", "1.bias"}


def test_names_do_not_tell_norms_but_shapes_and_types_do() -> None:
    """A filter on "bn" decays the scales of batch norms (the chapter's); gradients are 0 here."""
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3), *NET).double()
    params, _ = functionalize(net).init(random.key(0))
    scales = {"1.weight", "3.weight"}

    def decayed(mask: Any) -> set[str]:
        tx = optim.chain(optim.add_decayed_weights(0.5, mask), optim.sgd(lr=1.0))
        after, _ = optim.step(tx, params, tree.zeros_like(params), tx.init(params))
        return {name for name, leaf in params.items() if not torch.equal(after[name], leaf)}

    by_name = decayed(lambda path, leaf: "bias" not in path and "bn" not in path)
    assert by_name == {"1.weight", "2.weight", "3.weight", "4.weight"}
    assert decayed(lambda path, leaf: leaf.ndim > 1) == by_name - scales
    norms = optim.names_by_type(net, nn.BatchNorm1d)
    assert scales <= set(norms)
    assert decayed(lambda p, leaf: "bias" not in p and p not in norms) == by_name - scales


def test_labels_by_function_are_labels_by_pattern() -> None:
    transforms = {"matrix": optim.adamw(lr=0.1), "vector": optim.sgd(lr=0.1)}
    by_pattern = optim.partition(transforms, {"matrix": ["0.weight", "2.weight"], "vector": "*"})
    by_function = optim.partition(
        transforms, lambda path, leaf: "matrix" if leaf.ndim == 2 else "vector"
    )
    one, other = walk(by_pattern, start())[0], walk(by_function, start())[0]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_frozen_leaves_stay_to_the_bit_and_have_no_state() -> None:
    tx = optim.freeze(optim.sgd(lr=0.1, momentum=0.9, weight_decay=0.1), ["0.*", "1.*"])
    after, state = walk(tx, start())
    for name, before in start().items():
        assert torch.equal(after[name], before) is not name.startswith("2.")
    assert set(state.slots["momentum_buffer"]) == {"2.weight", "2.bias"}
    assert "lr" in state.hyperparams


class TestErrors:
    def test_leaf_without_a_label(self) -> None:
        tx = optim.partition({"w": optim.sgd()}, {"w": "*.weight"})
        with pytest.raises(
            ValueError, match=r"give no label .* to \['0.bias', '1.bias', '2.bias'\]"
        ):
            tx.init(start())

    def test_label_without_a_transformation(self) -> None:
        with pytest.raises(ValueError, match=r"`labels` name \['b'\], `transforms` only \['a'\]"):
            optim.partition({"a": optim.sgd()}, {"b": "*"})

    def test_function_that_gives_an_unknown_label(self) -> None:
        tx = optim.partition({"a": optim.sgd()}, lambda path, leaf: "z")
        with pytest.raises(ValueError, match=r"give no label of `transforms` \(\['a'\]\)"):
            tx.init(start())

    def test_pattern_that_matches_nothing(self) -> None:
        with pytest.raises(ValueError, match=r"matches no path with 'head\.\*'"):
            optim.masked(optim.sgd(), "head.*").init(start())

    def test_type_that_does_not_occur(self) -> None:
        with pytest.raises(ValueError, match=r"no parameter in a layer of \['LayerNorm'\]"):
            optim.names_by_type(NET, nn.LayerNorm)


class TestSetHyperparams:
    def test_reaches_inner_optimizers(self) -> None:
        tx = optim.lookahead(optim.sgd(lr=0.1))
        state = optim.set_hyperparams(tx.init(start()), lr=0.5)
        assert optim.diagnostics(state)["lr"].item() == 0.5

    def test_lanes_get_one_value_each(self) -> None:
        tx = optim.sgd(lr=0.1)
        state = tree.stack([tx.init(start())] * 3)
        rates = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        assert torch.equal(optim.set_hyperparams(state, lr=rates).hyperparams["lr"], rates)
        assert optim.set_hyperparams(state, lr=7.0).hyperparams["lr"].tolist() == [7.0] * 3

    def test_unknown_name(self) -> None:
        with pytest.raises(KeyError, match=r"no hyperparameter is called \['rate'\].*\['lr'\]"):
            optim.set_hyperparams(optim.sgd().init(start()), rate=0.1)
