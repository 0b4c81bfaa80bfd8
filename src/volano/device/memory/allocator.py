"""Keeps freed host memory for the next step, or gives it back at once.

glibc maps large blocks again for every tensor and gives them back at once (mallopt(3):
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD); the kernel then clears and faults in each page again, at every
step. A training allocates the same sizes over and over, so it keeps freed blocks. Measured: 10 to
20 % more images per second in bf16, 37 % in fp32 (docs/log.md).

By default glibc maps blocks one by one only above a threshold, which follows the sizes that were
freed, up to 32 MiB. Smaller blocks come from one heap, and later blocks do not fit into its gaps. A
process then takes up to two and a half times its live bytes (benchmarks/memory_fit.py). If memory
is scarce, large blocks are mapped one by one.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_LARGEST_INT = 2**31 - 1
# The same for a program that is yet to start (mallopt(3), environment variables).
KEEPING_VARIABLES = f"MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_={_LARGEST_INT}"
# glibc's own ceilings: the default number of mapped blocks, and twice its largest dynamic threshold
# of 32 MiB.
_DEFAULT_MMAP_MAX, _DEFAULT_TRIM, _DEFAULT_THRESHOLD = 65536, 64 * 2**20, 32 * 2**20
# Blocks from this size on are mapped; smaller ones would waste a good part of their last page.
_MAPPED_FROM, _TRIMMED_FROM = 64 * 2**10, 128 * 2**10


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Returns a context in which the C library's allocator keeps freed memory; it gives False if
    there is no such switch.

    Afterwards kept memory is given back and blocks are mapped and trimmed again, at the largest
    thresholds that glibc chooses by itself; its own adaptation of them ends with the first call of
    mallopt in a process.
    """
    library = _library()
    if library is None:
        yield False
        return
    applied = bool(library.mallopt(_M_MMAP_MAX, 0)) and bool(
        library.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
    )
    try:
        yield applied
    finally:
        library.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM)
        library.malloc_trim(0)


@contextlib.contextmanager
def freed_memory_returned() -> Iterator[bool]:
    """Returns a context in which the C library's allocator maps large blocks again for each use and
    gives them back when they are freed; it gives False if there is no such switch. Afterwards its
    thresholds are as after :func:`freed_memory_kept`."""
    library = _library()
    if library is None:
        yield False
        return
    library.malloc_trim(0)
    applied = bool(library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM))
    library.mallopt(_M_TRIM_THRESHOLD, _TRIMMED_FROM)
    try:
        yield applied
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
        library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM)


def can_keep_freed_memory() -> bool:
    """Checks whether the C library has the switch of :func:`freed_memory_kept`."""
    return _library() is not None


def give_back_freed_memory() -> None:
    """Gives the memory that the C library's allocator keeps back to the kernel (malloc_trim(3))."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


def _library() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None)
        _ = library.gnu_get_libc_version, library.mallopt, library.malloc_trim
    except (OSError, AttributeError):  # another C library, musl for example
        return None
    return library
