"""Reads IDX files, the format of MNIST: a header that states the shape, and bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from volano.errors import DataError

_BYTES_TYPE = 0x08
# Deflate packs at most 1,032 bytes into one.
_MOST_PACKED = 1032


def read_idx(path: Path, num_dimensions: int) -> np.ndarray:
    """Returns the array of an IDX file, .gz or not, uint8 of so many dimensions. What its header
    states is checked against the file's own size and the free memory before memory is taken.

    Raises:
        DataError: the file is damaged, of another type, or states a size that it cannot hold.
    """
    try:
        packing = _MOST_PACKED if path.suffix == ".gz" else 1
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _shape(file, num_dimensions)
            num_bytes = math.prod(shape)
            _check_size(num_bytes, shape, packing * path.stat().st_size)
            content = file.read(num_bytes + 1)
        if len(content) != num_bytes:
            kept = "more" if len(content) > num_bytes else f"{len(content):,}"
            raise ValueError(f"its header states {_in_words(shape)} bytes, but it holds {kept}")
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError("An IDX file must be complete", got=f"{path}: {error}") from error


def _shape(file: IO[bytes] | gzip.GzipFile, num_dimensions: int) -> tuple[int, ...]:
    head = file.read(4)
    _, kind, dimensions = struct.unpack(">HBB", head)
    if kind != _BYTES_TYPE or dimensions != num_dimensions:
        raise ValueError(
            f"it holds type 0x{kind:02x} in {dimensions} dimensions, not bytes in {num_dimensions}"
        )
    return struct.unpack(f">{dimensions}I", file.read(4 * dimensions))


def _check_size(num_bytes: int, shape: tuple[int, ...], most_held: int) -> None:
    from volano.device import Device

    if num_bytes > most_held:
        raise ValueError(
            f"its header states {_in_words(shape)} bytes, and it can hold {most_held:,} at most"
        )
    free = Device("cpu").free_bytes()
    if free is not None and num_bytes > free // 2:
        raise ValueError(
            f"its header states {_in_words(shape)} bytes, more than half of the free memory "
            f"({free:,})"
        )


def _in_words(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{count:,}" for count in shape)
