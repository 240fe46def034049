import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fdnn.data import DataNotFound, read_idx

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ARRAYS = st.sampled_from(sorted(CODES)).flatmap(lambda code: hnp.arrays(np.dtype(code), SHAPES))


def idx(array):
    header = struct.pack(
        f">4B{array.ndim}I", 0, 0, CODES[array.dtype.str[1:]], array.ndim, *array.shape
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def read(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "some-idx-file")
        path.write_bytes(content)
        return read_idx(str(path))


LABELS = idx(np.arange(30, dtype=np.uint8).reshape(5, 6))


@given(array=ARRAYS, packed=st.booleans())
def test_what_was_written_is_read(array, packed):
    content = idx(array)
    tensor = read(gzip.compress(content) if packed else content)
    torch.testing.assert_close(
        tensor, torch.from_numpy(np.array(array)), rtol=0, atol=0, equal_nan=True
    )


@given(array=ARRAYS, packed=st.booleans(), data=st.data())
def test_a_file_cut_anywhere_is_refused(array, packed, data):
    content = gzip.compress(idx(array)) if packed else idx(array)
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ValueError, match=r"some-idx-file .*Delete the file"):
        read(content[:cut])


@given(array=ARRAYS, extra=st.binary(min_size=1, max_size=9))
def test_a_file_too_long_is_refused(array, extra):
    size = array.nbytes
    with pytest.raises(ValueError, match=f"too long.* {size} bytes.* found {size + len(extra)}"):
        read(idx(array) + extra)


@given(position=st.integers(0, len(gzip.compress(LABELS)) - 1), flip=st.integers(1, 255))
def test_a_damaged_gzip_is_refused_or_does_not_matter(position, flip):
    content = bytearray(gzip.compress(LABELS, mtime=0))
    content[position] ^= flip
    try:
        tensor = read(bytes(content))
    except ValueError as err:
        assert "some-idx-file" in str(err)
        assert "Delete the file" in str(err)
    else:  # a byte of the gzip header that says nothing of the content
        assert tensor.equal(torch.arange(30, dtype=torch.uint8).reshape(5, 6))


def test_the_error_tells_the_sizes():
    with pytest.raises(ValueError, match=r"truncated: shape \(5, 6\) means 30 bytes.* found 20"):
        read(LABELS[:-10])
    with pytest.raises(ValueError, match="12 bytes expected, 9 found"):
        read(LABELS[:9])


@pytest.mark.parametrize("content", [b"", b"\0\0\x07\1\0\0\0\0", b"<html>", b"\1\0\x08\1\0\0\0\0"])
def test_another_format_is_refused(content):
    with pytest.raises(ValueError, match="does not start as an idx file does: first bytes"):
        read(content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataNotFound, match=r"labels.*no such file"):
        read_idx(tmp_path / "labels")
