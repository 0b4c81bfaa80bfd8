"""IDX files: what they hold, and headers that state what they cannot hold."""

import gzip
import struct

import numpy as np
import pytest

from volano.data.sources.image.idx_files import read_idx
from volano.errors import DataError


def idx(shape, content):
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content


@pytest.mark.parametrize("packed", [False, True])
def test_the_array_comes_back(tmp_path, packed):
    content = idx((2, 3, 4), bytes(range(24)))
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert np.array_equal(read_idx(path, 3), np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("shape", "content", "reason"),
    [
        ((2**32 - 1, 2**32 - 1), b"1234", "states 4,294,967,295 x 4,294,967,295 bytes"),
        ((2**31, 28), b"1234", "it can hold"),
        ((2, 3), b"1234", "but it holds|it can hold"),
        ((2, 3), b"1234567", "but it holds more"),
    ],
)
def test_a_header_that_states_another_size(tmp_path, packed, shape, content, reason):
    path = tmp_path / ("a.gz" if packed else "a")
    whole = idx(shape, content)
    path.write_bytes(gzip.compress(whole) if packed else whole)
    with pytest.raises(DataError, match=reason):
        read_idx(path, 2)


def test_more_than_the_memory_holds(tmp_path, monkeypatch):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx((1000, 1000), bytes(10**6))))
    monkeypatch.setattr("volano.device.Device.free_bytes", lambda self: 10**6)
    with pytest.raises(DataError, match="more than half of the free memory"):
        read_idx(path, 2)


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\0\x08\x02\0\0", b"\0\0\x0d\x02" + b"\0" * 8]
)
def test_damaged_headers(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match="An IDX file must be complete"):
        read_idx(tmp_path / "a", 2)
