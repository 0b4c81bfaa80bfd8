"""The C library's allocator, told to give freed memory back at once."""

import ctypes
import os
from pathlib import Path

import pytest
import torch

from volano.device.isolated import run_isolated
from volano.device.memory.allocator import freed_memory_returned

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="the C library has no such switch",
)


def private_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")


def left_by_small_blocks_behind_large_ones() -> tuple[bool, int]:
    """Frees a block of 31 MiB, so that glibc would take such ones from its heap from now on, and
    then every other one of many blocks."""
    with freed_memory_returned() as applied:
        torch.empty(31 * 2**20, dtype=torch.uint8)
        before = private_bytes()
        blocks = [torch.ones(2**20, dtype=torch.uint8) for _ in range(64)]
        del blocks[:-1]
        return applied, private_bytes() - before


def test_gaps_between_blocks_are_given_back():
    applied, left = run_isolated(left_by_small_blocks_behind_large_ones, timeout=60)
    assert applied
    assert left < 4 * 2**20
