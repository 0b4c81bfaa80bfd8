"""How much memory this process may take: limits of control groups and of the process count."""

import os
from pathlib import Path

import pytest

from children import PATIENCE_SECONDS
from volano.device import Device, host_memory_bytes
from volano.device.isolated import run_isolated
from volano.device.memory import host_memory

MIB = 2**20


def free_before_and_after_a_limit():
    import resource

    before = Device("cpu").free_bytes()
    used = 4096 * int(Path("/proc/self/statm").read_text().split()[5])
    resource.setrlimit(resource.RLIMIT_DATA, (used + 300 * MIB, resource.RLIM_INFINITY))
    return before, Device("cpu").free_bytes()


def test_a_process_limit_counts():
    before, after = run_isolated(free_before_and_after_a_limit, timeout=PATIENCE_SECONDS)
    assert after <= 300 * MIB < before <= host_memory_bytes()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """``machine(line of /proc/self/cgroup, {file: content})``: control groups under a folder of
    their own."""
    lines = host_memory._lines

    def make(line, files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setattr(host_memory, "_CGROUPS", tmp_path)
        monkeypatch.setattr(
            host_memory,
            "_lines",
            lambda path: [line] if str(path) == "/proc/self/cgroup" else lines(path),
        )
        return Device("cpu").free_bytes()

    return make


def test_a_control_group_of_version_2_and_those_above_it(machine):
    group = {
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "5\n",
        "a/memory.max": f"{400 * MIB}\n",
        "a/memory.current": f"{350 * MIB}\n",
        "a/memory.stat": f"anon 1\ninactive_file {30 * MIB}\nactive_file 7\n",
    }
    assert machine("0::/a/b", group) == 80 * MIB


def test_a_control_group_of_version_1_as_a_container_sees_it(machine):
    group = {
        "memory/memory.limit_in_bytes": f"{200 * MIB}\n",
        "memory/memory.usage_in_bytes": f"{150 * MIB}\n",
        "memory/memory.stat": f"cache 3\ntotal_inactive_file {10 * MIB}\n",
    }
    assert machine("9:memory:/docker/0123", group) == 60 * MIB
    assert (
        machine("9:memory:/docker/0123", {"memory/memory.limit_in_bytes": str(2**63 - 4096)})
        > 60 * MIB
    )


def test_without_limits_it_is_what_the_machine_has(machine):
    free = machine("0::/", {})
    assert free is not None
    assert 0 < free <= host_memory_bytes()
    assert os.sysconf("SC_PAGE_SIZE") <= free
