"""A finite schedule and the run that it was made for: the lengths must agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import vmap

import fdnn
from fdnn import optim, random, schedules, train, tree

QUIET: dict[str, Any] = {"batch_size": 8, "compile": False, "progress": False}
CYCLE, MOMENTUM = schedules.one_cycle(0.1, 14), schedules.one_cycle_momentum(14)


class TestOptimizer:
    def test_knows_its_length(self) -> None:
        assert optim.sgd(CYCLE).total_steps == 14
        assert optim.adam(0.1, (MOMENTUM, 0.999)).total_steps == 14
        assert optim.sgd(CYCLE, MOMENTUM).total_steps == 14
        whole = optim.chain(optim.clip_by_global_norm(1.0), optim.sgd(CYCLE))
        assert whole.total_steps == 14

    def test_endless(self) -> None:
        for lr in (0.1, torch.tensor(0.1), lambda count: 0.1, schedules.exponential(0.1, 0.9)):
            assert optim.sgd(lr).total_steps is None

    def test_groups(self) -> None:
        groups = optim.partition({"a": optim.sgd(CYCLE), "b": optim.sgd(0.1)}, {"a": "w", "b": "*"})
        assert groups.total_steps == 14

    def test_lengths_differ(self) -> None:
        with pytest.raises(ValueError, match=r"one length, got \{'momentum': 14, 'lr': 20\}"):
            optim.sgd(schedules.one_cycle(0.1, 20), MOMENTUM)
        with pytest.raises(ValueError, match="must have one length"):
            optim.partition(
                {"a": optim.sgd(CYCLE), "b": optim.sgd(schedules.one_cycle(0.1, 20))},
                {"a": "w", "b": "*"},
            )


class TestFit:
    def step(self, task: Any, tx: Any) -> Any:
        return train.make_step(train.supervised(task.model, F.cross_entropy), tx)

    def begin(self, task: Any, tx: Any, seed: int = 0) -> train.TrainState:
        return train.init(task.model, tx, random.key(seed))

    def test_runs_the_whole_schedule(self, task: Any) -> None:
        """Fifty examples in batches of 8 are 7 steps an epoch."""
        tx = optim.sgd(CYCLE, MOMENTUM)
        step, state = self.step(task, tx), self.begin(task, tx)
        assert step.total_steps == 14
        state, history = train.fit(step, state, task.data, epochs=2, **QUIET)
        assert history["lr"].tolist() == pytest.approx(
            [CYCLE(torch.arange(7)).mean().item(), CYCLE(torch.arange(7, 14)).mean().item()]
        )
        assert torch.equal(state.opt_state.hyperparams["lr"], CYCLE(13))
        assert torch.equal(state.opt_state.hyperparams["momentum"], MOMENTUM(13))

    @pytest.mark.parametrize("epochs", [1, 3, 14])
    def test_refuses_another_length(self, task: Any, epochs: int) -> None:
        """The exercise that sized its schedule in steps and stepped it once an epoch."""
        tx = optim.sgd(CYCLE)
        with pytest.raises(
            ValueError,
            match=f"must be 14, the length of the optimizer's schedules, got {epochs} x 7 = ",
        ):
            train.fit(self.step(task, tx), self.begin(task, tx), task.data, epochs=epochs, **QUIET)

    def test_goes_on(self, task: Any) -> None:
        """`epochs` are those in all, so a run that was cut off fits its schedule."""
        tx = optim.sgd(CYCLE)
        step, state = self.step(task, tx), self.begin(task, tx)
        whole, _ = train.fit(step, state, task.data, epochs=2, **QUIET)
        for index in train.epoch_order(state.key, 0, 50).split(8):
            state, _ = step(state, (task.inputs[index], task.targets[index]))
        rest, _ = train.fit(step, state, task.data, epochs=2, **QUIET)
        assert torch.equal(rest.params["0.weight"], whole.params["0.weight"])

    def test_lanes(self, task: Any) -> None:
        tx = optim.sgd(CYCLE)
        runs = tree.stack([self.begin(task, tx, seed) for seed in range(2)])
        step = self.step(task, tx)
        many, _ = train.fit(step, runs, task.data, epochs=2, **QUIET)
        solo, _ = train.fit(step, self.begin(task, tx, 1), task.data, epochs=2, **QUIET)
        torch.testing.assert_close(
            many.params["0.weight"][1], solo.params["0.weight"], rtol=1e-4, atol=1e-5
        )
        with pytest.raises(ValueError, match="got 3 x 7 = 21"):
            train.fit(step, runs, task.data, epochs=3, **QUIET)

    def test_wrappers_hand_the_length_on(self, task: Any) -> None:
        step = self.step(task, optim.sgd(CYCLE))
        assert vmap(step).total_steps == 14
        assert fdnn.jit(step).total_steps == 14
        assert fdnn.jit(vmap(step), donate_argnums=0).total_steps == 14
        assert self.step(task, optim.sgd(0.1)).total_steps is None

    def test_a_step_of_ones_own_has_no_length(self, task: Any) -> None:
        tx = optim.sgd(CYCLE)
        step = self.step(task, tx)
        train.fit(lambda s, b: step(s, b), self.begin(task, tx), task.data, epochs=1, **QUIET)
