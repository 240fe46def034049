"""`save` and `load`: the same bits back, whatever the tree; every damage seen; the disk full."""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from asserts import assert_equal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, vmap

from fdnn import functionalize, optim, random, train, tree
from fdnn.train import checkpoint_file

DTYPES = [*checkpoint_file._CODES, torch.complex64, torch.complex128]
QUIET: dict[str, Any] = {"batch_size": 8, "compile": False, "progress": False}


class Pair(NamedTuple):
    left: Any
    right: Any


def with_bits(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> Tensor:
    """A tensor of any bits that the dtype can have."""
    size = torch.empty(shape, dtype=dtype).nbytes
    bits = random.randint(random.key(seed), (size,), 0, 256, torch.int64).to(torch.uint8)
    return (bits % 2 if dtype == torch.bool else bits).view(dtype).reshape(shape)


LAYOUTS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x,
    lambda x: x.transpose(0, -1) if x.ndim else x,
    lambda x: x.expand(3, *x.shape),
    lambda x: x[..., ::2] if x.ndim else x,
    lambda x: x.flatten()[1:] if x.ndim else x,
    lambda x: x.conj() if x.is_complex() else x,
]
TENSORS = st.builds(
    lambda dtype, shape, seed, layout: layout(with_bits(dtype, tuple(shape), seed)),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 2**31),
    st.sampled_from(LAYOUTS),
)
KEYS = st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), max_size=4)
TREES = st.recursive(
    TENSORS | st.none(),
    lambda inner: (
        st.dictionaries(KEYS, inner, max_size=3)
        | st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=5,
)


def bits(state: Any) -> Any:
    """Every leaf as its bytes."""

    def raw(x: Tensor) -> Tensor:
        return x.resolve_conj().contiguous().reshape(-1).view(torch.uint8)

    return tree.map(raw, state)


@given(TREES.filter(lambda state: state is not None))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    path = tmp_path_factory.mktemp("trip") / "x.safetensors"
    train.save(path, state)
    found = train.load(path, like=state)
    tree.assert_same_structure(state, found)
    assert_equal(bits(found), bits(state))
    assert all(leaf.is_contiguous() for leaf in tree.leaves(found))
    flat = train.load(path)
    assert list(flat) == tree.paths(state)
    assert_equal(bits(list(flat.values())), bits(tree.leaves(state)))


def test_round_trip_of_every_dtype(tmp_path: Path) -> None:
    state = {str(dtype): with_bits(dtype, (2, 3), i) for i, dtype in enumerate(DTYPES)}
    train.save(tmp_path / "x", state)
    assert_equal(bits(train.load(tmp_path / "x", state)), bits(state))
    others = safetensors.torch.load_file(tmp_path / "x")  # what everybody else sees
    for name, value in state.items():
        real = torch.view_as_real(value) if value.is_complex() else value
        assert torch.equal(bits(others[name]), bits(real))
        assert others[name].data_ptr() % others[name].itemsize == 0, "aligned in the file"


def test_saving_changes_nothing(tmp_path: Path, task: Any) -> None:
    state = task.begin_many()
    before, generator = tree.map(torch.clone, state), torch.get_rng_state()
    train.save(tmp_path / "x", state)
    found = train.load(tmp_path / "x", like=state)
    assert_equal(state, before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert os.listdir(tmp_path) == ["x"]
    found.params["0.weight"].zero_()  # memory of its own, and none of the file's
    assert_equal(state, before)
    assert_equal(train.load(tmp_path / "x", like=state), state)


def test_tied_tensors_are_each_whole(tmp_path: Path) -> None:
    x = torch.arange(6.0)
    train.save(tmp_path / "x", {"a": x, "b": x, "part": x[2:]})
    found = train.load(tmp_path / "x")
    assert [found[name].tolist() for name in "ab"] == [x.tolist()] * 2
    assert found["part"].tolist() == [2, 3, 4, 5]
    assert found["a"].data_ptr() != found["b"].data_ptr()


def test_containers_may_change(tmp_path: Path) -> None:
    train.save(tmp_path / "x", Pair({"a": torch.ones(2)}, [torch.zeros(())]))
    like = {"left": {"a": torch.empty(2), "b": None}, "right": (torch.ones(()),)}
    wanted = {"left": {"a": torch.ones(2), "b": None}, "right": (torch.zeros(()),)}
    assert_equal(train.load(tmp_path / "x", like), wanted)


def test_like_on_the_meta_device(tmp_path: Path) -> None:
    train.save(tmp_path / "x", {"a": torch.ones(2)})
    found = train.load(tmp_path / "x", {"a": torch.empty(2, device="meta")})
    assert torch.equal(found["a"], torch.ones(2))


def test_gradients_are_left_behind(tmp_path: Path) -> None:
    train.save(tmp_path / "x", {"a": nn.Parameter(torch.ones(2)) * 3})
    assert not train.load(tmp_path / "x")["a"].requires_grad


@pytest.mark.parametrize(
    "tx",
    [
        optim.adamw(),
        optim.chain(optim.clip(1.0), optim.multi_steps(optim.sgd(0.1), 2)),
        optim.soap(),
    ],
    ids=["adamw", "multi_steps", "soap"],
)
def test_optimizer_states(tmp_path: Path, tx: Any) -> None:
    model = functionalize(nn.Linear(3, 2))
    state = train.init(model, tx, random.key(0))
    step = train.make_step(train.supervised(model, nn.functional.mse_loss), tx)
    for _ in range(3):
        state, _ = step(state, (torch.ones(4, 3), torch.zeros(4, 2)))
    train.save(tmp_path / "x", state)
    assert_equal(train.load(tmp_path / "x", like=train.init(model, tx, random.key(1))), state)


# Resumption


@pytest.mark.parametrize("lanes", [None, 5])
@pytest.mark.parametrize("chunk_size", [None, 2, 3])
def test_resumed_is_never_interrupted(
    tmp_path: Path, task: Any, lanes: int | None, chunk_size: int | None
) -> None:
    """To the bit; on another chunk size as if that had changed with nothing in between."""

    def fit(state: Any, epochs: int, chunk_size: int | None = None) -> Any:
        options = QUIET | {"chunk_size": chunk_size}
        return train.fit(task.step, state, task.data, epochs=epochs, **options)

    begun, other = (
        (task.begin_many(lanes), task.begin_many(lanes)) if lanes else (task.begin(), task.begin(9))
    )
    part, _ = fit(begun, 2)
    train.save(tmp_path / "x", part)
    loaded = train.load(tmp_path / "x", like=other)
    found, history = fit(loaded, 5, chunk_size)
    wanted, wanted_history = fit(part, 5, chunk_size)
    assert_equal(found, wanted)
    assert_equal(history, wanted_history)
    if chunk_size is None:
        assert_equal(found, fit(begun, 5)[0])


# What cannot be saved


@pytest.mark.parametrize(
    ("leaf", "found"),
    [
        (0.5, "a float, 0.5; use torch.tensor"),
        ("adam", "a str, 'adam'"),
        (torch.eye(2).to_sparse(), "float32 of layout torch.sparse_coo on device cpu"),
        (torch.empty(2, device="meta"), "float32 of layout torch.strided on device meta"),
        (torch.empty(2, dtype=torch.float8_e4m3fnuz), "float8_e4m3fnuz of layout"),
    ],
    ids=["number", "string", "sparse", "meta", "dtype"],
)
def test_leaf_that_cannot_be_saved(tmp_path: Path, leaf: Any, found: str) -> None:
    with pytest.raises(TypeError, match=f"at path 'a.1': expected a .*, found {re.escape(found)}"):
        train.save(tmp_path / "x", {"a": [torch.ones(1), leaf]})
    assert os.listdir(tmp_path) == []


def test_paths_that_cannot_be_saved(tmp_path: Path) -> None:
    one = torch.ones(1)
    with pytest.raises(ValueError, match=r"at path 'a\.b': 2 leaves have this path; rename"):
        train.save(tmp_path / "x", {"a": {"b": one}, "a.b": one})
    with pytest.raises(ValueError, match="at path '__metadata__': safetensors reserves this name"):
        train.save(tmp_path / "x", {"__metadata__": one})


@pytest.mark.parametrize(
    "transform", [vmap, torch.func.grad, lambda fn: torch.compile(fn, backend="eager")]
)
def test_not_inside_a_transform(tmp_path: Path, transform: Any) -> None:
    def saving(x: Tensor) -> Tensor:
        train.save(tmp_path / "x", {"x": x})
        return x.sum()

    with pytest.raises(Exception, match="cannot be saved inside vmap, grad or a compiled"):
        transform(saving)(torch.ones(2))


# What cannot be loaded


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    state = {"w": torch.arange(6.0).reshape(2, 3), "z": torch.ones(2, dtype=torch.complex64)}
    train.save(tmp_path / "x.safetensors", {"n": torch.tensor(3), "state": state})
    return tmp_path / "x.safetensors"


LIKE = {
    "n": torch.tensor(0),
    "state": {"w": torch.empty(2, 3), "z": torch.empty(2, dtype=torch.complex64)},
}


def without(*path: str) -> Any:
    return {"n": LIKE["n"], "state": {k: v for k, v in LIKE["state"].items() if k not in path}}


@pytest.mark.parametrize(
    ("like", "said"),
    [
        (without("w"), "at path 'state.w': expected nothing, found float32 of shape (2, 3)"),
        (LIKE | {"m": torch.ones(2)}, "at path 'm': expected float32 of shape (2,), found nothing"),
        (LIKE | {"n": torch.ones(1)}, "at path 'n': expected float32 of shape (1,), found int64"),
        (LIKE | {"n": torch.tensor(0.0)}, "at path 'n': expected float32 of shape (), found int64"),
        (LIKE | {"n": 3}, "at path 'n': expected a int, found int64 of shape ()"),
        (LIKE | {"n": None}, "at path 'n': expected nothing, found int64 of shape ()"),
        (
            without("z") | {"z": LIKE["state"]["z"]},
            "at path 'z': expected complex64 of shape (2,), found nothing",
        ),
    ],
    ids=["extra", "lacking", "shape", "dtype", "number", "none", "moved"],
)
def test_checkpoint_of_another_tree(saved: Path, like: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{str(saved)!r} does not fit `like` {said}")):
        train.load(saved, like)


def test_flipped_bits_are_seen(saved: Path) -> None:
    whole, right = saved.read_bytes(), train.load(saved)
    harmless = 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        saved.write_bytes(damaged)
        try:
            found = train.load(saved)
        except ValueError as error:
            assert str(saved) in str(error)
        else:  # one blank for another
            harmless += 1
            assert_equal(found, right)
    assert harmless < 10


def test_truncation_is_seen(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(0, len(whole), 5):
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is no safetensors file, or damaged") as error:
            train.load(saved)
        assert str(saved) in str(error.value)


def test_damage_is_placed(saved: Path) -> None:
    whole = saved.read_bytes()
    at = whole.rindex(torch.tensor([3.0, 4.0]).numpy().tobytes())
    saved.write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
    with pytest.raises(
        ValueError, match=r"x.safetensors' is damaged at path 'state.w': expected sha256 \w+, found"
    ):
        train.load(saved, LIKE)


def test_foreign_files(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.ones(2)}, foreign, {"format": "pt"})
    said = (
        r"foreign.safetensors' is a safetensors file, but no checkpoint of fdnn: expected 'fdnn' "
        r"in its metadata, found \['format'\]; `load_params` reads"
    )
    with pytest.raises(ValueError, match=said):
        train.load(foreign)
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt' is no safetensors file.*one of torch.save: torch"):
        train.load(tmp_path / "x.pt")
    (tmp_path / "text").write_text("no tensors here, only words")
    with pytest.raises(ValueError, match="text' is no safetensors file, or damaged"):
        train.load(tmp_path / "text")
    for nothing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"there is no such file: '{nothing}'"):
            train.load(nothing)


def rewritten(path: Path, edit: Callable[[Any], None]) -> None:
    """Change the manifest of a file, and sign it."""
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    manifest = json.loads(header["__metadata__"]["fdnn"])
    edit(manifest)
    text = json.dumps(manifest)
    signature = hashlib.sha256(text.encode()).hexdigest()
    header["__metadata__"] = {"fdnn": text, "sha256": signature}
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + whole[end:])


@pytest.mark.parametrize("version", [0, 2])
def test_other_versions(saved: Path, version: int) -> None:
    rewritten(saved, lambda manifest: manifest.update(format=version))
    said = f"x.safetensors' has another version of the format: expected 1, found {version}"
    with pytest.raises(ValueError, match=said):
        train.load(saved)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m["tensors"].pop("n"), "expected nothing, found a tensor"),
        (
            lambda m: m["tensors"].update(m=m["tensors"]["n"]),
            "'m': expected int64 of shape (), found nothing",
        ),
        (
            lambda m: m["tensors"]["n"].update(dtype="float64"),
            "'n': expected float64 of shape (), found int64 of shape ()",
        ),
        (
            lambda m: m["tensors"]["state.w"].update(shape=[3, 2]),
            "'state.w': expected float32 of shape (3, 2), found float32 of shape (2, 3)",
        ),
    ],
    ids=["lacking", "extra", "dtype", "shape"],
)
def test_manifest_that_contradicts_the_file(saved: Path, edit: Any, said: str) -> None:
    rewritten(saved, edit)
    with pytest.raises(ValueError, match=f"is damaged at path .*{re.escape(said)}"):
        train.load(saved)


def test_without_the_library(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    train.save(saved, {"n": torch.tensor(4)})  # saving needs it not
    with pytest.raises(ImportError, match=r"pip install 'fdnn-torch\[checkpoints\]'"):
        train.load(saved)
    monkeypatch.undo()
    assert train.load(saved)["n"] == 4


# The disk


class Full:
    """A file on a full disk."""

    def __init__(self, *args: Any):
        self.file = builtins.open(*args)  # noqa: SIM115

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def write(self, data: Any) -> None:
        self.file.write(bytes(data)[:4])
        full()


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_full_disk(saved: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    right = train.load(saved)
    if where == "write":
        monkeypatch.setattr(checkpoint_file, "open", Full, raising=False)
    else:
        monkeypatch.setattr(os, where, full)
    with pytest.raises(OSError, match="No space left on device; nothing was written") as error:
        train.save(saved, {"n": torch.tensor(4)})
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(saved)
    monkeypatch.undo()
    assert os.listdir(saved.parent) == [saved.name]
    assert_equal(train.load(saved), right)


def test_full_disk_really(saved: Path) -> None:
    """A limit on the size of files stands for the disk's."""
    right = train.load(saved)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large; nothing was written"):
            train.save(saved, {"w": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(saved.parent) == [saved.name]
    assert_equal(train.load(saved), right)


def test_on_the_disk_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def recorded(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any) -> Any:
            is_folder = name == "fsync" and os.path.isdir(f"/proc/self/fd/{args[0]}")
            calls.append(name + " of the folder" * is_folder)
            return real(*args)

        monkeypatch.setattr(os, name, call)

    recorded("fsync")
    recorded("replace")
    train.save(tmp_path / "x", {"a": torch.ones(1)})
    assert [name.split()[0] for name in calls] == ["fsync", "replace", "fsync"]
    if sys.platform == "linux":
        assert calls == ["fsync", "replace", "fsync of the folder"]


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file or directory; nothing was written"):
        train.save(tmp_path / "not" / "x", {"a": torch.ones(1)})


def test_leftovers_of_killed_processes_go(saved: Path) -> None:
    for name in (".x.safetensors.123-abc.tmp", ".y.safetensors.123-abc.tmp"):
        (saved.parent / name).write_bytes(b"half")
    train.save(saved, {"a": torch.ones(1)})
    assert sorted(os.listdir(saved.parent)) == [".y.safetensors.123-abc.tmp", "x.safetensors"]
