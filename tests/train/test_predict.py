"""`predict`: the model's outputs in eval mode, in whatever batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdnn import functionalize, optim, random, train


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_is_the_model_in_eval_mode(task: Any, batch_size: int) -> None:
    state = task.begin()
    wanted, _ = task.model.apply(state.params, state.buffers, task.inputs)
    found = train.predict(task.model, state, task.inputs, batch_size=batch_size)
    torch.testing.assert_close(found, wanted)
    assert not found.requires_grad


def test_lanes_are_solo(task: Any) -> None:
    found = train.predict(task.model, task.begin_many(3), task.inputs, batch_size=8)
    assert found.shape == (3, 50, 3)
    for lane in range(3):
        torch.testing.assert_close(
            found[lane], train.predict(task.model, task.begin(lane), task.inputs)
        )


def test_batches_as_they_come(task: Any) -> None:
    wanted = train.predict(task.model, task.begin(), task.inputs)
    for batches in (task.inputs.split(9), [(b,) for b in task.inputs.split(9)]):
        found = train.predict(task.model, task.begin(), iter(batches))
        torch.testing.assert_close(found, wanted)
    named = [{"input": batch} for batch in task.inputs.split(9)]
    torch.testing.assert_close(train.predict(task.model, task.begin(), named), wanted)


class Two(nn.Module):
    """Two inputs, a tree of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"sum": self.linear(a + b), "product": a * b}


def test_several_inputs_and_a_tree_of_outputs() -> None:
    model = functionalize(Two())
    state = train.init(model, optim.sgd(), random.key(0))
    a, b = random.normal(random.key(1), (2, 11, 2))
    wanted, _ = model.apply(state.params, state.buffers, a, b)
    found = train.predict(model, state, (a, b), batch_size=4)
    torch.testing.assert_close(found, wanted)


def test_nothing_to_predict(task: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`inputs` must be tensors of one length above 0, got \[0\]"
    ):
        train.predict(task.model, task.begin(), task.inputs[:0])
    with pytest.raises(ValueError, match=r"one length above 0, got \[4, 50\]"):
        train.predict(task.model, task.begin(), (task.inputs, task.inputs[:4]))
    with pytest.raises(ValueError, match="`inputs` must hold at least one batch, got none"):
        train.predict(task.model, task.begin(), iter([]))
