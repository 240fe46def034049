"""scikit-learn's own checks, and its tools around the estimators, on real data too."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_digits, load_iris, make_classification
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fdnn import optim, schedules
from fdnn.estimators import FdnnClassifier, FdnnRegressor

SMALL = {"hidden_features": 16, "lr": 0.03}


# All of them, none expected to fail. They are too small for batches: what is weighted is repeated.
@parametrize_with_checks(
    [
        FdnnClassifier(epochs=10, **SMALL),
        FdnnRegressor(epochs=15, **SMALL),
        FdnnRegressor(epochs=15, num_members=2, **SMALL),
    ]
)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def pipeline(**params: Any) -> Pipeline:
    network = FdnnClassifier(
        **{**SMALL, "epochs": 12, "batch_size": 16, "random_state": 0, **params}
    )
    return Pipeline([("scale", StandardScaler()), ("network", network)])


def test_grid_search_is_the_same_in_processes() -> None:
    grid = {
        "network__hidden_features": np.array([16]),
        "network__optimizer": [optim.adamw, functools.partial(optim.sgd, momentum=0.9)],
    }
    X, y = load_iris(return_X_y=True)
    searches = [GridSearchCV(pipeline(), grid, cv=2, n_jobs=n).fit(X, y) for n in (1, 2)]
    scores = [search.cv_results_["mean_test_score"] for search in searches]
    np.testing.assert_array_equal(*scores)
    assert scores[0][0] > 0.9 and scores[0][0] != scores[0][1]
    np.testing.assert_array_equal(*(search.predict_proba(X) for search in searches))


def test_cross_validation_by_strata() -> None:
    X, y = load_iris(return_X_y=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    names = load_iris().target_names[y]
    scores = cross_val_score(pipeline(), X, names, cv=folds, scoring="neg_log_loss")
    assert scores.shape == (5,) and scores.mean() > -0.3


def test_calibration() -> None:
    """Of a network that was trained until it is far too sure."""
    X, y = make_classification(400, 10, flip_y=0.4, random_state=0)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0, stratify=y)
    sure = pipeline(epochs=25, hidden_features=64)
    calibrated = CalibratedClassifierCV(sure, cv=2).fit(X, y)
    before = log_loss(y_test, sure.fit(X, y).predict_proba(X_test))
    assert log_loss(y_test, calibrated.predict_proba(X_test)) < before


def test_bagging_weights_and_leaves_out() -> None:
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    bag = BaggingClassifier(pipeline()["network"], n_estimators=2, random_state=0).fit(X, y)
    first, second = (member.predict_proba(X) for member in bag.estimators_)
    assert not np.allclose(first, second)
    assert bag.score(X, y) > 0.9


def test_digits() -> None:
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, random_state=0, stratify=y)
    network = FdnnClassifier(lr=0.01, epochs=8, schedule=schedules.one_cycle, random_state=0)
    assert network.fit(X, y).score(X_test, y_test) > 0.95


def test_diabetes() -> None:
    """As good as ridge regression, but for a standard error of the folds' differences."""
    X, y = load_diabetes(return_X_y=True)
    network = make_pipeline(
        StandardScaler(),
        FdnnRegressor(hidden_features=32, epochs=10, lr=0.01, num_members=3, random_state=0),
    )
    scaled = TransformedTargetRegressor(network, transformer=StandardScaler())
    folds = KFold(5, shuffle=True, random_state=0)
    ridge = make_pipeline(StandardScaler(), Ridge(10.0))
    found, wanted = (cross_val_score(each, X, y, cv=folds) for each in (scaled, ridge))
    difference = found - wanted
    assert difference.mean() > -2 * difference.std(ddof=1) / 5**0.5 - 0.02
    assert found.mean() > 0.4


def test_only_estimators_import_scikit_learn() -> None:
    code = (
        "import sys, fdnn\n"
        "assert 'sklearn' not in sys.modules\n"
        "sys.modules['sklearn'] = None\n"
        "import fdnn.estimators"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "ImportError: `fdnn.estimators` needs scikit-learn 1.6 or newer: "
        "pip install 'fdnn-torch[sklearn]'"
    )
