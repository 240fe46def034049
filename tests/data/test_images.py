import gzip
import inspect
import os
import shutil

import numpy as np
import pytest
import sklearn.datasets
import torch

from fdnn.data import FASHION_MNIST_CLASSES, DataNotFound, digits, fashion_mnist, images, read_idx
from fdnn.data.cache import cache_folder

REAL = images._DEBIAN


@pytest.fixture
def small(bare, monkeypatch):
    """Shrink Fashion-MNIST to 60 and 10 images; return the folder to work in."""
    monkeypatch.setattr(images, "_SIZES", {"train": 60, "t10k": 10})
    monkeypatch.setattr(images, "_VALID", 5)
    return bare


def openml(mark=0, fail=None):
    """Stand in for scikit-learn's fetcher: 70 images whose first pixel is `mark`."""
    signature = inspect.signature(sklearn.datasets.fetch_openml)

    def fetch(*args, **kwargs):
        signature.bind(*args, **kwargs)
        if fail is not None:
            raise fail
        pixels = np.arange(70 * 784).reshape(70, 784) % 256
        pixels[:, 0] = mark
        return pixels, np.array([str(row % 10) for row in range(70)], dtype=object)

    return fetch


@pytest.fixture
def fill(small, monkeypatch):
    """Return `fill(folder, mark)`, which writes the four files there."""

    def write(folder, mark):
        with monkeypatch.context() as patch:
            patch.setattr("sklearn.datasets.fetch_openml", openml(mark))
            images._download(folder)

    return write


def mark(splits):
    return round(splits.train.inputs[0, 0, 0].item() * 255)


def test_the_first_place_that_has_the_files_wins(small, fill, monkeypatch):
    monkeypatch.setenv("FDNN_DATA", str(small / "mine"))
    places = [
        cache_folder("fashion-mnist"),
        small / "debian",
        small / "mine" / "fashion-mnist",
        small / "mine",
    ]
    monkeypatch.setattr("sklearn.datasets.fetch_openml", openml(9))
    assert mark(fashion_mnist()) == 9
    for number, place in enumerate(places, 1):  # from the last place to the first
        fill(place, number)
        assert mark(fashion_mnist()) == number
    fill(small / "explicit", 7)
    assert mark(fashion_mnist(small / "explicit")) == 7
    os.remove(small / "mine" / "t10k-labels-idx1-ubyte.gz")
    assert mark(fashion_mnist()) == 3  # a place that lacks one file is passed over


def test_splits_are_by_position(small, fill):
    fill(small / "here", 0)
    data = fashion_mnist(str(small / "here"))
    assert [len(split.inputs) for split in data] == [55, 5, 10]
    everything = torch.cat([split.inputs for split in data])
    pixels = torch.arange(70 * 784).reshape(70, 28, 28) % 256
    pixels[:, 0, 0] = 0
    assert everything.equal(pixels.float() / 255)
    assert torch.cat([split.targets for split in data]).equal(torch.arange(70) % 10)
    for split in data:
        inputs, targets = split  # a plain pair
        assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
        assert inputs.untyped_storage().nbytes() == inputs.nbytes  # saving one saves no other


def test_plain_files_do_as_well_as_gzipped(small, fill):
    fill(small / "here", 3)
    for path in list((small / "here").iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert mark(fashion_mnist(small / "here")) == 3


def test_a_folder_given_is_the_only_one_looked_in(small, fill):
    fill(small / "debian", 1)
    (small / "empty").mkdir()
    with pytest.raises(DataNotFound, match=r"empty: lacks train-images-idx3-ubyte\[.gz\], train-l"):
        fashion_mnist(small / "empty")
    with pytest.raises(DataNotFound, match="nowhere: no such folder"):
        fashion_mnist(small / "nowhere")


@pytest.mark.parametrize(
    "fail",
    [OSError("unreachable"), ValueError("md5 differs"), ModuleNotFoundError("pip install it")],
)
def test_with_nothing_found_every_place_and_cure_is_told(small, monkeypatch, fail):
    monkeypatch.setenv("FDNN_DATA", str(small / "mine"))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", openml(fail=fail))
    with pytest.raises(DataNotFound) as caught:
        fashion_mnist()
    message = str(caught.value)
    cache = cache_folder("fashion-mnist")
    for place in (small / "mine", small / "mine" / "fashion-mnist", small / "debian", cache):
        assert f"{place}: no such folder" in message
    for part in ("FDNN_DATA", "apt install dataset-fashion-mnist", "network", str(fail)):
        assert part in message
    assert caught.value.__cause__ is fail
    assert isinstance(caught.value, FileNotFoundError)


def test_the_network_is_left_alone_if_told_so(small):
    with pytest.raises(DataNotFound) as caught:
        fashion_mnist(download=False)
    assert "download into" not in str(caught.value)


def test_a_download_is_kept_and_read_from_then_on(small, monkeypatch):
    monkeypatch.setattr("sklearn.datasets.fetch_openml", openml(5))
    first = fashion_mnist()
    monkeypatch.setattr("sklearn.datasets.fetch_openml", openml(fail=OSError("asked twice")))
    second = fashion_mnist()
    assert mark(first) == mark(second) == 5
    files = sorted(path.name for path in cache_folder("fashion-mnist").iterdir())
    assert files == sorted(f"{name}.gz" for name in images._FILES)


@pytest.mark.parametrize("files_done", range(4))
def test_a_download_that_stops_leaves_no_part_of_a_file(small, monkeypatch, files_done):
    monkeypatch.setattr("sklearn.datasets.fetch_openml", openml(5))
    real, done = os.replace, []

    def replace(source, target):
        if len(done) == files_done:
            raise OSError("disk full")
        done.append(target)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(DataNotFound, match="disk full"):
            fashion_mnist()
    cache = cache_folder("fashion-mnist")
    assert len(list(cache.iterdir())) == files_done
    for path in cache.iterdir():
        read_idx(path)  # whole
    assert mark(fashion_mnist()) == 5  # the next call begins again


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda pixels, labels: (pixels[:69], labels[:69]), "70 rows"),
        (lambda pixels, labels: (pixels[:, :783], labels), "784 grey levels"),
        (lambda pixels, labels: (pixels + 0.5, labels), "grey levels"),
        (lambda pixels, labels: (pixels, np.sort(labels)), "of each class"),
    ],
)
def test_a_download_of_something_else_is_not_kept(small, monkeypatch, damage, message):
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *a, **k: damage(*openml()()))
    with pytest.raises(DataNotFound, match=message):
        fashion_mnist()
    assert not cache_folder("fashion-mnist").exists()


def test_a_damaged_file_is_named_with_its_cure(small, fill):
    fill(small / "here", 0)
    path = small / "here" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz is truncated.*7840.*Delete"):
        fashion_mnist(small / "here")
    shutil.copy(small / "here" / "train-images-idx3-ubyte.gz", path)
    with pytest.raises(ValueError, match=r"t10k-im.*expected uint8 of shape \(10, 28, 28\), found"):
        fashion_mnist(small / "here")


def test_labels_beyond_nine_are_refused(small, fill):
    fill(small / "here", 0)
    path = small / "here" / "train-labels-idx1-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-1] + b"\x0a"))
    with pytest.raises(ValueError, match=r"train-labels.*0 to 9, found 10"):
        fashion_mnist(small / "here")


@pytest.mark.skipif(not REAL.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist():
    data = fashion_mnist(REAL)
    assert [tuple(split.inputs.shape) for split in data] == [
        (count, 28, 28) for count in (55_000, 5_000, 10_000)
    ]
    for split in data:
        assert split.inputs.min() == 0
        assert split.inputs.max() == 1
    assert data.train.targets[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert data.test.targets[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert FASHION_MNIST_CLASSES[data.train.targets[0]] == "Ankle boot"
    assert torch.cat([data.train.targets, data.valid.targets]).bincount().tolist() == [6_000] * 10
    assert data.test.targets.bincount().tolist() == [1_000] * 10
    assert (data.train.inputs.double().mean() - 0.2858).abs() < 1e-4


def test_digits_are_scikit_learns_each_once():
    data = digits()
    assert [len(split.inputs) for split in data] == [1077, 360, 360]
    bundled = sklearn.datasets.load_digits()
    ours = torch.cat([split.inputs for split in data]).flatten(1) * 16
    rows = torch.cat([ours, torch.cat([split.targets for split in data])[:, None]], dim=1)
    theirs = np.column_stack([bundled.data, bundled.target])
    assert sorted(rows.int().tolist()) == sorted(theirs.astype(int).tolist())
    for split in data:
        assert (split.inputs.dtype, split.targets.dtype) == (torch.float32, torch.int64)
        assert split.inputs.shape[1:] == (8, 8)
        share = split.targets.bincount(minlength=10) / len(split.targets)
        assert (share - 0.1).abs().max() < 0.01  # stratified
    assert data.train.targets[:5].tolist() == [3, 7, 3, 9, 7]
    assert digits().test.inputs.equal(data.test.inputs)
