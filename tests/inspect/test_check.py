"""`check` as a whole: what it says, what it leaves alone, what it refuses."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from asserts import assert_equal
from checked import KEY, classes, fine, look, mistakes, normal
from torch import nn

from fdnn import functionalize, initializers, inspect, optim, recipe, schedules
from fdnn import nn as fnn
from fdnn.inspect import Report


@pytest.mark.parametrize("task", ["classification", "binary", "regression"])
@pytest.mark.parametrize(("depth", "self_normalizing"), [(2, False), (8, False), (8, True)])
def test_our_recipes_pass(task: Any, depth: int, self_normalizing: bool) -> None:
    chosen = recipe(depth, task, total_steps=100, self_normalizing=self_normalizing, dropout=0.1)
    model = chosen.build(10, 3 if task == "classification" else 1)
    target = {
        "classification": classes(64),
        "binary": classes(64, 2)[:, None].float(),
        "regression": normal(64, 1, seed=3),
    }[task]
    report = inspect.check(
        model,
        *model.init(KEY),
        batch=(normal(64, 10), target),
        criterion=chosen.criterion,
        tx=chosen.transform,
        steps=100,
        key=KEY,
    )
    assert report == Report((), ())
    assert not report and str(report) == "no mistakes found"


def test_says_what_it_did_not_look_at() -> None:
    module = nn.Sequential(nn.Linear(10, 8), nn.Dropout(), nn.Linear(8, 3))
    assert look(module).not_checked[0] == "all that shows when the model runs (needs `batch`)"
    batch = normal(32, 10), classes()
    assert any("needs `criterion`" in line for line in look(module, batch).not_checked)
    report = look(module, batch, F.cross_entropy)
    assert "train mode, since the model draws (needs `key`)" in report.not_checked
    assert "not looked at: train mode" in str(report)
    report = look(module, batch, lambda x, y: x.square().mean(), key=KEY)
    assert any("no loss of torch" in line for line in report.not_checked)


def test_batch_norm_in_eval_mode_says_nothing_about_signals() -> None:
    """Its first running statistics leave the signal as it is."""
    model = functionalize(fnn.MLP(10, 64, 3, depth=20, norm="batch", dropout=0.1))
    params, buffers = model.init(KEY, weight=initializers.normal(0.01))
    batch, options = (normal(64, 10), classes(64)), {"criterion": F.cross_entropy}
    report = inspect.check(model, params, buffers, batch=batch, **options)
    fine(report)
    assert "signals, gradients (first: batch norm, which works in train mode)" in report.not_checked
    fine(inspect.check(model, params, buffers, batch=batch, key=KEY, **options))


def test_several_mistakes_at_once() -> None:
    module = nn.Sequential(
        nn.Linear(10, 8), nn.BatchNorm1d(8), nn.SELU(), nn.Dropout(), nn.Linear(8, 3), nn.Softmax(1)
    )
    tx = optim.adamw(schedules.one_cycle(0.1, 50))
    x = 255 * normal(32, 10)
    report = look(module, (x, classes()), F.cross_entropy, tx=tx, steps=10, key=KEY)
    assert set(mistakes(report)) == {
        "inputs not scaled",
        "softmax before cross-entropy",
        "dropout with selu",
        "bias before batch norm",
        "schedule length",
        "weight decay on norms",
    }
    assert len(report) == 6 and report


def test_changes_nothing_and_draws_from_its_key_alone() -> None:
    model = functionalize(
        nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    )
    batch = normal(32, 10), classes()
    before = copy.deepcopy((model.params, model.buffers, batch))
    generator = torch.get_rng_state()
    names = [set(vars(layer)) for mode in (True, False) for layer in model.skeleton(mode).modules()]
    tx = optim.adamw(0.1)
    reports = [
        inspect.check(model, batch=batch, criterion=F.cross_entropy, tx=tx, key=KEY)
        for _ in range(2)
    ]
    assert reports[0] == reports[1]
    assert torch.equal(torch.get_rng_state(), generator)
    assert_equal((model.params, model.buffers, batch), before)
    assert not any(x.requires_grad for x in model.params.values())
    assert names == [
        set(vars(layer)) for mode in (True, False) for layer in model.skeleton(mode).modules()
    ]


def test_works_without_grad_and_with_keywords_and_several_inputs() -> None:
    module, x, y = nn.Bilinear(4, 4, 3), normal(32, 4), classes()
    with torch.no_grad():
        fine(look(module, (x, x, y), F.cross_entropy))
    fine(look(nn.Linear(4, 3), ({"input": x}, y), F.cross_entropy))
    fine(look(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (x, y), F.cross_entropy))
    fine(look(nn.Linear(4, 3).double(), (x.double(), y), F.cross_entropy))
    fine(look(nn.Identity(), (normal(32, 3), y), F.cross_entropy))


def test_refusals() -> None:
    model, x = functionalize(nn.Linear(10, 3)), normal(32, 10)
    with pytest.raises(
        TypeError, match=r"`model` must be what fdnn\.functionalize returns, got Lin"
    ):
        inspect.check(nn.Linear(10, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`steps` must be at least 1, got 0"):
        inspect.check(model, steps=0)
    with pytest.raises(
        ValueError, match=r"`criterion` must return a 0-d tensor, got shape \(32,\)"
    ):
        inspect.check(
            model, batch=(x, classes()), criterion=partial(F.cross_entropy, reduction="none")
        )
    with pytest.raises(RuntimeError, match="outside of them"):
        torch.vmap(lambda x: inspect.check(model, batch=(x, None)) and x)(x[None])
    with pytest.raises(ValueError, match="`key` must be given"):
        look(nn.Sequential(nn.Linear(10, 3), fnn.MCDropout()), (x, None))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        inspect.check(model, batch=(x[:, 1:], None))
