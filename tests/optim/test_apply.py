"""`apply_updates` and `step`."""

from __future__ import annotations

import pytest
import torch

from fdnn import optim, tree


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_parameters_keep_their_dtype(dtype: torch.dtype) -> None:
    params = {"w": torch.ones(2, dtype=dtype), "s": torch.ones((), dtype=dtype)}
    new = optim.apply_updates(params, tree.cast(params, torch.float64))
    tree.assert_same_structure(params, new)
    assert [x.tolist() for x in new.values()] == [[2.0, 2.0], 2.0]
    assert [x.tolist() for x in params.values()] == [[1.0, 1.0], 1.0]


def test_updates_of_another_structure() -> None:
    with pytest.raises(ValueError, match="at path 'b': expected a leaf, found nothing"):
        optim.apply_updates({"w": torch.ones(1), "b": torch.ones(1)}, {"w": torch.ones(1)})


def test_step_updates_and_applies() -> None:
    params, grads = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.5, -1.0])}
    tx = optim.adamw(0.1)  # needs the parameters
    state = tx.init(params)
    updates, expected_state = tx.update(grads, state, params)
    found, found_state = optim.step(tx, params, grads, state)
    assert torch.equal(found["w"], params["w"] + updates["w"])
    tree.assert_same_structure(expected_state, found_state)
    assert found_state.count.item() == 1
