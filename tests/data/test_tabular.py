import inspect
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn.datasets
import torch
from sklearn.model_selection import train_test_split

from fdnn.data import DataNotFound, california_housing, diabetes
from fdnn.data.cache import cache_folder

FILE = "cal_housing_py3.pkz"
FETCH = sklearn.datasets.fetch_california_housing


def housing(fail=None, rows=20_640):
    """Stand in for scikit-learn's fetcher: its own reader, and a download of made-up numbers."""

    def fetch(*args, **kwargs):
        bound = inspect.signature(FETCH).bind(*args, **kwargs)
        bound.apply_defaults()
        if not bound.arguments["download_if_missing"]:
            return FETCH(*args, **kwargs)
        file = Path(bound.arguments["data_home"], FILE)
        if fail is not None:
            file.write_bytes(b"half a fi")
            raise fail
        joblib.dump(np.random.default_rng(0).uniform(1, 2, (rows, 9)), file, compress=1)
        return None

    return fetch


@pytest.fixture
def network(bare, monkeypatch):
    """Return `network(**kind)`, which lays the way the network answers."""

    def lay(**kind):
        monkeypatch.setattr("sklearn.datasets.fetch_california_housing", housing(**kind))

    return lay


def test_a_download_is_kept_and_read_from_then_on(network):
    network()
    first = california_housing()
    assert [path.name for path in cache_folder("california-housing").iterdir()] == [FILE]
    network(fail=OSError("asked twice"))
    assert california_housing().train.inputs.equal(first.train.inputs)
    explicit = california_housing(cache_folder("california-housing"))
    assert explicit.test.targets.equal(first.test.targets)


@pytest.mark.parametrize("fail", [OSError("unreachable"), KeyboardInterrupt()])
def test_a_download_that_stops_leaves_nothing(network, fail):
    network(fail=fail)
    with pytest.raises(KeyboardInterrupt if isinstance(fail, KeyboardInterrupt) else DataNotFound):
        california_housing()
    assert list(cache_folder("california-housing").iterdir()) == []
    network()
    assert len(california_housing().train.inputs) == 11_610


def test_the_split_is_scikit_learns_and_standardised_by_train(network):
    network()
    data, raw = california_housing(), california_housing(standardize=False)
    assert [tuple(split.inputs.shape) for split in data] == [(11_610, 8), (3_870, 8), (5_160, 8)]
    assert [tuple(split.targets.shape) for split in data] == [(11_610, 1), (3_870, 1), (5_160, 1)]
    x, y = FETCH(data_home=cache_folder("california-housing"), return_X_y=True)
    rest, x_test, _, y_test = train_test_split(x, y, random_state=42)
    x_train, _ = train_test_split(rest, random_state=42)
    torch.testing.assert_close(raw.test.inputs, torch.from_numpy(x_test).float())
    torch.testing.assert_close(data.test.targets[:, 0], torch.from_numpy(y_test).float())
    expected = (x_test - x_train.mean(0)) / x_train.std(0)
    torch.testing.assert_close(data.test.inputs, torch.from_numpy(expected).float())
    for split in data:
        assert split.inputs.dtype == split.targets.dtype == torch.float32
        assert split.inputs.is_contiguous()


def test_the_first_place_that_has_the_file_wins(network, bare, monkeypatch):
    monkeypatch.setenv("FDNN_DATA", str(bare / "mine"))
    network(fail=OSError("unreachable"))
    places = [
        cache_folder("california-housing"),
        bare / "home" / "scikit_learn_data",
        bare / "mine" / "california-housing",
        bare / "mine",
    ]
    for number, place in enumerate(places, 1):  # from the last place to the first
        place.mkdir(parents=True, exist_ok=True)
        joblib.dump(np.full((20_640, 9), float(number)), place / FILE)
        target = california_housing(standardize=False).train.targets[0] * 100_000
        assert target.item() == pytest.approx(number)


def test_with_nothing_found_every_place_and_cure_is_told(network, bare, monkeypatch):
    monkeypatch.setenv("FDNN_DATA", str(bare / "mine"))
    network(fail=OSError("unreachable"))
    with pytest.raises(DataNotFound) as caught:
        california_housing()
    for part in ("mine", "scikit_learn_data", "unreachable", "FDNN_DATA", "network", "diabetes"):
        assert part in str(caught.value)
    assert not (bare / "home").exists()  # looking makes no folders
    with pytest.raises(DataNotFound, match="nowhere: no such folder"):
        california_housing(bare / "nowhere")
    assert not (bare / "nowhere").exists()
    with pytest.raises(DataNotFound) as caught:
        california_housing(download=False)
    assert "unreachable" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-999]), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: joblib.dump(np.ones((5, 9)), path), r"expected .*20640, 8\), found \(5, 8\)"),
    ],
)
def test_a_damaged_file_is_named_with_its_cure(network, damage, message):
    network()
    california_housing()
    damage(cache_folder("california-housing") / FILE)
    with pytest.raises(ValueError, match=rf"{FILE} .*{message}.*Delete it"):
        california_housing()


def test_diabetes():
    data, raw = diabetes(), diabetes(standardize=False)
    assert [tuple(split.inputs.shape) for split in data] == [(248, 10), (83, 10), (111, 10)]
    assert [tuple(split.targets.shape) for split in data] == [(248, 1), (83, 1), (111, 1)]
    mean, sd = raw.train.inputs.mean(0), raw.train.inputs.std(0, correction=0)
    for ours, plain in zip(data, raw, strict=True):
        torch.testing.assert_close(ours.inputs, (plain.inputs - mean) / sd, rtol=1e-4, atol=1e-4)
        assert ours.targets.equal(plain.targets)
    targets = torch.cat([split.targets for split in data])
    assert targets.min().item() == pytest.approx(0.25)
    assert targets.max().item() == pytest.approx(3.46)
    assert data.train.targets[:3, 0].tolist() == pytest.approx([1.55, 2.74, 2.92])
