"""The estimators are `train.fit` and no more: values against loops by hand, ensembles, weights."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import joblib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from asserts import assert_close, assert_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from fdnn import functionalize, losses, optim, random, schedules, train, tree
from fdnn.estimators import FdnnClassifier, FdnnRegressor, base
from fdnn.estimators.training import weighted_loss
from fdnn.nn import MLP

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
NAMES = np.array(["c", "a", "b"])[Y]
TARGETS = X[:, :2] @ [[1.0, 0.5], [-1.0, 2.0]]
SMALL: dict[str, Any] = {"hidden_features": 8, "lr": 0.01, "epochs": 3, "random_state": 5}
WEIGHTS = np.random.RandomState(0).randint(0, 4, len(X))


def by_hand(
    criterion: Any, y: Any, out: int, key: Tensor, batch_size: int = 64, **options: Any
) -> tuple[train.TrainState, dict[str, Tensor]]:
    """What `SMALL` stands for, written out."""
    model, tx = functionalize(MLP(4, 8, out, **options).double()), optim.adamw(lr=0.01)
    return train.fit(
        train.make_step(train.supervised(model, criterion), tx),
        train.init(model, tx, key),
        (torch.tensor(X), torch.tensor(y)),
        epochs=3,
        batch_size=batch_size,
        compile=False,
        progress=False,
    )


def keys(num: int) -> Tensor:
    seed = np.random.RandomState(5).randint(2**31 - 1)
    return random.split(random.key(int(seed)), num)


def test_classifier_is_fit() -> None:
    found = FdnnClassifier(**SMALL, dropout=0.2, norm="batch").fit(X, Y)
    state, history = by_hand(F.cross_entropy, Y, 3, keys(1)[0], dropout=0.2, norm="batch")
    assert_close(found.state_, state, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.loss_curve_, history["loss"])
    assert found.n_iter_ == 3 and sorted(found.history_) == sorted(history)
    module = found.model_.to_module(found.state_.params, found.state_.buffers)
    np.testing.assert_allclose(
        found.predict_proba(X), module(torch.tensor(X)).softmax(-1).detach(), rtol=1e-12
    )
    np.testing.assert_allclose(found.predict_log_proba(X), np.log(found.predict_proba(X)))


@pytest.mark.parametrize("y", [TARGETS[:, 0], TARGETS[:, :1], TARGETS], ids=lambda y: str(y.shape))
def test_regressor_is_fit(y: Any) -> None:
    found = FdnnRegressor(**SMALL).fit(X, y)
    matrix = y.reshape(len(y), -1)
    state, _ = by_hand(F.mse_loss, matrix, matrix.shape[1], keys(1)[0])
    assert_close(found.state_, state, rtol=1e-9, atol=1e-12)
    assert found.predict(X).shape == y.shape


def test_ensemble_is_the_mean_of_members_trained_alone() -> None:
    found = FdnnClassifier(**SMALL, num_members=3, dropout=0.2).fit(X, Y)
    alone = [by_hand(F.cross_entropy, Y, 3, key, dropout=0.2)[0] for key in keys(3)]
    assert_close(found.state_, tree.stack(alone), rtol=1e-9, atol=1e-12)
    outputs = train.predict(found.model_, found.state_, torch.tensor(X))
    np.testing.assert_allclose(found.predict_proba(X), outputs.softmax(-1).mean(0), rtol=1e-12)
    assert found.history_["loss"].shape == (3, 3)
    np.testing.assert_allclose(found.loss_curve_, found.history_["loss"].mean(1))
    first = FdnnClassifier(**SMALL, dropout=0.2).fit(X, Y)
    assert_close(first.state_, alone[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("y", [TARGETS[:, 0], TARGETS], ids=["vector", "matrix"])
def test_ensemble_of_regressors_has_a_deviation(y: Any) -> None:
    found = FdnnRegressor(**SMALL, num_members=3).fit(X, y)
    outputs = train.predict(found.model_, found.state_, torch.tensor(X)).numpy()
    outputs = outputs[..., 0] if y.ndim == 1 else outputs
    mean, std = found.predict(X, return_std=True)
    assert mean.shape == std.shape == y.shape
    np.testing.assert_allclose(mean, outputs.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, outputs.std(0), rtol=1e-12)
    np.testing.assert_array_equal(found.predict(X), mean)
    with pytest.raises(ValueError, match="`num_members` of at least 2, got 1"):
        FdnnRegressor(**SMALL).fit(X, y).predict(X, return_std=True)


def cut(y: Any) -> Any:
    """The rows that are fitted and held out, drawn again."""
    numbers, used = np.random.RandomState(5), np.flatnonzero(WEIGHTS)
    numbers.randint(2**31 - 1)
    return train_test_split(used, test_size=0.2, random_state=numbers, stratify=y[used])


def test_rows_held_out_are_not_fitted() -> None:
    params = {**SMALL, "epochs": 1, "optimizer": optim.sgd, "lr": 0.1}
    found = FdnnClassifier(**params, early_stopping=True, validation_fraction=0.2)
    rows, _ = cut(Y)
    alone = FdnnClassifier(**params).fit(X[rows], Y[rows], WEIGHTS[rows])
    assert_close(found.fit(X, Y, sample_weight=WEIGHTS).state_, alone.state_, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("members", [1, 2])
def test_early_stopping_restores_the_best(members: int) -> None:
    params = {**SMALL, "epochs": 200, "hidden_features": 30, "lr": 0.05}
    noisy = np.where(np.arange(len(Y)) % 3 == 0, np.roll(Y, 40), Y)
    found = FdnnClassifier(
        **params, num_members=members, early_stopping=True, validation_fraction=0.2, patience=4
    ).fit(X, noisy, sample_weight=WEIGHTS)
    losses_ = found.history_["valid_loss"].reshape(-1, members)
    best = np.nanargmin(losses_, axis=0)
    assert found.n_iter_ == len(losses_) == best.max() + 5 < 200
    _, held = cut(noisy)
    outputs = train.predict(found.model_, found.state_, torch.tensor(X[held]))
    for lane, logits in enumerate(outputs.reshape(members, len(held), 3)):
        value = log_loss(noisy[held], logits.softmax(-1).numpy(), sample_weight=WEIGHTS[held])
        assert value == pytest.approx(losses_[best[lane], lane], rel=1e-9)
    assert found.state_.monitors == {}


def test_class_weight_is_that_of_the_loss() -> None:
    """In a single batch, where torch divides by the sum of the weights, as everybody does."""
    weights = dict(zip("abc", [5.0, 0.2, 1.0], strict=True))
    found = FdnnClassifier(**SMALL, batch_size=None, class_weight=weights).fit(X, NAMES)
    codes = np.searchsorted(["a", "b", "c"], NAMES)
    share = torch.tensor([5.0, 0.2, 1.0], dtype=torch.float64)
    state, history = by_hand(
        functools.partial(F.cross_entropy, weight=share), codes, 3, keys(1)[0], batch_size=150
    )
    assert_close(found.state_, state, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.history_["loss"], history["loss"])


def test_balanced_weights_count_weights() -> None:
    params = {**SMALL, "batch_size": None, "class_weight": "balanced"}
    some = np.repeat(np.arange(len(X)), WEIGHTS)
    weighted = FdnnClassifier(**params).fit(X, Y, sample_weight=WEIGHTS)
    repeated = FdnnClassifier(**params).fit(X[some], Y[some])
    assert_close(weighted.state_, repeated.state_, rtol=1e-9, atol=1e-12)
    by_class = len(some) / (3 * np.bincount(Y, WEIGHTS))
    given = FdnnClassifier(**{**params, "class_weight": dict(enumerate(by_class))})
    assert_close(given.fit(X, Y, WEIGHTS).state_, weighted.state_, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("y", [Y, TARGETS], ids=["classes", "targets"])
def test_weight_zero_is_absence_in_batches_too(y: Any) -> None:
    kind = FdnnClassifier if y.ndim == 1 else FdnnRegressor
    kept = WEIGHTS > 0
    weighted = kind(**SMALL, batch_size=16).fit(X, y, sample_weight=kept)
    assert_equal(weighted.state_, kind(**SMALL, batch_size=16).fit(X[kept], y[kept]).state_)


def test_batches_have_the_expectation_of_the_whole() -> None:
    model = functionalize(nn.Linear(4, 3).double())
    loss = weighted_loss(model, losses.cross_entropy, 3)
    weight = torch.tensor(WEIGHTS / WEIGHTS.mean())
    data = torch.tensor(X), torch.tensor(Y), weight
    batches = zip(*(part.split(30) for part in data), strict=True)
    values = [loss(model.params, {}, batch, random.key(0))[0] for batch in batches]
    terms = F.cross_entropy(model.apply(model.params, {}, data[0])[0], data[1], reduction="none")
    torch.testing.assert_close(torch.stack(values).mean(), (weight * terms).sum() / weight.sum())


def test_randomness_is_that_of_random_state() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    params = {**SMALL, "dropout": 0.3, "batch_size": 16}
    first = FdnnClassifier(**params).fit(X, Y)
    assert_equal(clone(first).fit(X, Y).state_, first.state_)
    numbers = {**params, "random_state": np.random.RandomState(5)}
    assert_equal(FdnnClassifier(**numbers).fit(X, Y).state_, first.state_)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)
    drawn = FdnnClassifier(**{**params, "random_state": None})
    states = [drawn.fit(X, Y).state_ for _ in range(2)]
    assert not torch.equal(states[0].key, states[1].key)


class Bare(nn.Module):
    """A module that draws a parameter of which nothing is known."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(in_features, out_features))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


@pytest.mark.filterwarnings("ignore:nothing says how to draw")
def test_what_a_module_draws_is_drawn_by_random_state() -> None:
    states = []
    for torch_seed in range(2):
        torch.manual_seed(torch_seed)
        states.append(FdnnRegressor(Bare, epochs=1, random_state=0).fit(X, TARGETS).state_)
    assert_equal(*states)


@pytest.mark.parametrize("kind", [FdnnClassifier, FdnnRegressor])
@pytest.mark.parametrize("carry", ["pickle", "joblib", "deepcopy"])
def test_fitted_estimators_travel(kind: Any, carry: str, tmp_path: Any) -> None:
    found = kind(**SMALL, num_members=2, activation="swiglu", schedule=schedules.one_cycle)
    found.fit(X, Y)
    if carry == "pickle":
        back = pickle.loads(pickle.dumps(found))
    elif carry == "joblib":
        joblib.dump(found, tmp_path / "file")
        back = joblib.load(tmp_path / "file")
    else:
        back = copy.deepcopy(found)
    back.set_params(hidden_features=3)  # says nothing of what is fitted
    np.testing.assert_array_equal(back.predict(X), found.predict(X))
    assert_equal(back.state_, found.state_)
    assert back.model_ is back.model_


def test_module_is_copied_and_drawn_anew() -> None:
    module = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.Flatten())
    before = copy.deepcopy(module.state_dict())
    first, second = (FdnnClassifier(module, epochs=2, random_state=i).fit(X, Y) for i in (0, 1))
    assert_equal(dict(module.state_dict()), dict(before))
    assert module[1].weight.dtype == torch.float32
    assert not torch.equal(first.state_.params["1.weight"], second.state_.params["1.weight"])
    linear = FdnnClassifier(nn.Linear, epochs=2, random_state=0).fit(X, Y)
    assert {name: tuple(p.shape) for name, p in linear.state_.params.items()} == {
        "weight": (3, 4),
        "bias": (3,),
    }


def test_optimizer_and_schedule() -> None:
    sgd = functools.partial(optim.sgd, momentum=0.5)
    found = FdnnRegressor(
        **SMALL, optimizer=sgd, weight_decay=0.1, schedule=schedules.one_cycle, batch_size=50
    ).fit(X, TARGETS)
    hyper = found.state_.opt_state.hyperparams
    assert hyper["momentum"] == 0.5 and hyper["weight_decay"] == 0.1
    rates = torch.stack([schedules.one_cycle(0.01, 9)(count) for count in range(9)])
    np.testing.assert_allclose(found.history_["lr"], rates.reshape(3, 3).mean(1))
    ready = FdnnRegressor(**{**SMALL, "lr": None}, optimizer=optim.sgd(0.3)).fit(X, TARGETS)
    assert ready.state_.opt_state.hyperparams["lr"] == 0.3
    default = FdnnRegressor(**{**SMALL, "lr": None}).fit(X, TARGETS)
    assert default.state_.opt_state.hyperparams["weight_decay"] == 0.01


def test_criterion() -> None:
    huber = functools.partial(losses.huber_loss, delta=0.1)
    found = FdnnRegressor(**SMALL, criterion=huber).fit(X, TARGETS)
    state, _ = by_hand(huber, TARGETS, 2, keys(1)[0])
    assert_close(found.state_, state, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "dtype", "wanted"),
    [
        (X, None, "float64"),
        (X.astype(np.float32), None, "float32"),
        ((10 * X).astype(int), None, "float64"),
        (X, "float32", "float32"),
        (X.astype(np.float32), "float64", "float64"),
    ],
)
def test_dtype(given: Any, dtype: str | None, wanted: str) -> None:
    found = FdnnRegressor(**SMALL, dtype=dtype).fit(given, TARGETS)
    assert {str(p.dtype) for p in found.state_.params.values()} == {f"torch.{wanted}"}
    assert found.predict(X).dtype == found.predict(X.astype(np.float32)).dtype == wanted


def test_in_float32_weights_repeat_but_for_rounding() -> None:
    """scikit-learn's check of it, which float64 passes, compares to 1e-7."""
    params = {**SMALL, "batch_size": None, "dtype": "float32"}
    some = np.repeat(np.arange(len(X)), WEIGHTS)
    weighted = FdnnRegressor(**params).fit(X, TARGETS, sample_weight=WEIGHTS).predict(X)
    repeated = FdnnRegressor(**params).fit(X[some], TARGETS[some]).predict(X)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-4, atol=1e-5)


def test_labels_of_any_kind() -> None:
    found = FdnnClassifier(**{**SMALL, "epochs": 30}).fit(X, NAMES)
    assert found.classes_.tolist() == ["a", "b", "c"]
    assert (found.predict(X) == NAMES).mean() > 0.8
    alone = FdnnClassifier(**SMALL).fit(X, NAMES, sample_weight=NAMES != "a")
    assert alone.classes_.tolist() == ["b", "c"]


def test_sizes_from_grids_are_numpys() -> None:
    sizes = np.array([3, 2])
    found = FdnnClassifier(
        hidden_features=sizes,
        epochs=sizes[1],
        batch_size=np.int32(64),
        num_members=sizes[1],
        lr=np.float32(0.5),
    ).fit(X, Y)
    assert found.state_.params["hidden.1.linear.weight"].shape == (2, 2, 3)
    deep = FdnnClassifier(hidden_features=sizes[0], depth=sizes[1], epochs=1).fit(X, Y)
    assert deep.state_.params["hidden.1.linear.weight"].shape == (3, 3)


def test_options_of_fit_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def fit(*args: Any, **options: Any) -> Any:
        seen.update(options)
        return train.fit(*args, **{**options, "compile": False, "progress": False})

    monkeypatch.setattr(base, "fit", fit)
    FdnnRegressor(epochs=1, compile=True, progress=True, batch_size=1000).fit(X, Y)
    assert seen["compile"] is seen["progress"] is True
    assert seen["batch_size"] == len(X)  # as a full batch it can be compiled


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"epochs": 0}, ValueError, "`epochs` must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "`epochs` must be an integer, got 1.5"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1, got 0"),
        ({"batch_size": -1}, ValueError, "`batch_size` must be at least 1, got -1"),
        ({"num_members": 0}, ValueError, "`num_members` must be at least 1, got 0"),
        ({"dtype": "int8"}, ValueError, "`dtype` must be 'float32', 'float64' or None, got 'int8'"),
        ({"hidden_features": 0}, ValueError, "`hidden_features` must be positive"),
        ({"hidden_features": "ab"}, TypeError, "`hidden_features` must be an integer, got 'a'"),
        ({"activation": "no"}, ValueError, "`activation` must be one of"),
        ({"lr": -1.0}, ValueError, "`lr`"),
        ({"module": 3}, TypeError, "`module` must be an nn.Module, a function"),
        ({"module": max}, TypeError, "`module` must return an nn.Module, got 4"),
        (
            {"module": nn.Linear(4, 2)},
            ValueError,
            r"`module` must return .* \(64, 3\), got \(64, 2",
        ),
        ({"optimizer": optim.sgd(0.1), "lr": 0.1}, ValueError, "`lr` must be None if `optimizer`"),
        ({"schedule": schedules.one_cycle}, ValueError, "`lr` must be given with `schedule`"),
        ({"early_stopping": True, "patience": 0}, ValueError, "`patience` must be at least 1"),
        (
            {"early_stopping": True, "validation_fraction": 1.0},
            ValueError,
            r"`validation_fraction` must be in \(0, 1\), got 1.0",
        ),
        ({"class_weight": "heavy"}, ValueError, "class_weight"),
    ],
)
def test_errors_name_the_parameter(params: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        FdnnClassifier(**params).fit(X, Y)


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ((X, np.ones(len(X))), ValueError, "`y` must have at least two classes, got one class"),
        ((sparse.csr_matrix(X), Y), TypeError, "Sparse data was passed"),
        ((X, TARGETS[:, 0]), ValueError, "Unknown label type"),
        ((X, Y, -np.ones(len(X))), ValueError, "Negative values in data passed to `sample_weight`"),
    ],
)
def test_errors_of_data(args: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        FdnnClassifier().fit(*args)


def test_not_finite_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="epoch"):
        FdnnRegressor(optimizer=optim.sgd, lr=1e6, epochs=50, random_state=0).fit(X, TARGETS)
