"""A machine with no data and no network."""

import pytest

from fdnn.data import images


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Hide every folder the loaders know and cut the network; return the folder to work in."""

    def no_network(*args, **kwargs):
        raise OSError("the network was asked")

    monkeypatch.delenv("FDNN_DATA", raising=False)
    monkeypatch.delenv("SCIKIT_LEARN_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "_DEBIAN", tmp_path / "debian")
    monkeypatch.setattr("sklearn.datasets.fetch_openml", no_network)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    return tmp_path
