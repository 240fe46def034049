import os

import pytest

from fdnn.data import cache, diabetes, digits


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    cache.write_whole(path, b"first")

    def interrupted(*args):
        raise KeyboardInterrupt

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                cache.write_whole(path, b"second")
        assert path.read_bytes() == b"first"
        assert list(tmp_path.iterdir()) == [path]
    cache.write_whole(path, b"second")
    assert path.read_bytes() == b"second"


@pytest.mark.parametrize("value", [None, "", "relative/path"])
def test_the_cache_is_below_home_unless_xdg_says_otherwise(bare, monkeypatch, value):
    assert cache.cache_folder("x") == bare / "cache" / "fdnn" / "x"
    if value is None:
        monkeypatch.delenv("XDG_CACHE_HOME")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache.cache_folder("x") == bare / "home" / ".cache" / "fdnn" / "x"


def test_an_empty_variable_is_no_folder(bare, monkeypatch):
    monkeypatch.setenv("FDNN_DATA", "")
    assert cache.data_folders("x") == []


@pytest.mark.parametrize("load", [digits, diabetes])
def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch, load):
    real = cache.importlib.import_module

    def missing(name, *args):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
        return real(name, *args)

    monkeypatch.setattr(cache.importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fdnn-torch\[examples\]'"):
        load()


def test_a_broken_scikit_learn_is_not_called_missing(monkeypatch):
    def broken(name, *args):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr(cache.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="scipy"):
        cache.scikit_learn("datasets")
