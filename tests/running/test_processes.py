"""How many processes a run has, and what is refused before any is started."""

import pytest

from volano import Plan
from volano.device import Device
from volano.errors import PlanError, UsageError
from volano.running.processes import (
    Processes,
    check_processes,
    idle_accelerators,
    is_follower,
    tells_of_lost_rank,
)


@pytest.fixture
def under_torchrun(monkeypatch):
    """``under_torchrun(rank)``: this process is one of four."""

    def start(rank):
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 4)):
            monkeypatch.setenv(name, str(value))

    return start


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nproc": 0}, "a number of processes, at least 1; got 0"),
        ({"nproc": 2, "max_restarts": -1}, "a number, at least 0; got -1"),
        ({"max_restarts": 1}, "`max_restarts` is for several processes"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_birth(fields, message):
    with pytest.raises(UsageError, match=message):
        Processes(**fields)


def test_ranks_are_started_here_or_by_torchrun(under_torchrun):
    assert (Processes().world_size, Processes(nproc=3).world_size) == (1, 3)
    assert not is_follower()
    under_torchrun(1)
    assert is_follower()
    assert Processes().world_size == 4
    with pytest.raises(UsageError, match="torchrun or by `nproc`; got both, 4 and 2"):
        _ = Processes(nproc=2).world_size


def test_a_process_for_each_accelerator(monkeypatch):
    assert Processes(nproc="3").count == 3
    monkeypatch.setattr(Device, "count", staticmethod(lambda: 4))
    assert Processes(nproc="gpu").world_size == 4
    monkeypatch.setattr(Device, "count", staticmethod(lambda: 0))
    with pytest.raises(UsageError, match="`nproc` gpu needs accelerators; got none"):
        Processes(nproc="gpu")
    with pytest.raises(UsageError, match="a number of processes, at least 1; got -1. gpu is one"):
        Processes(nproc="-1")


def test_accelerators_that_are_idle_are_told_of(monkeypatch):
    device = Device("cpu")
    monkeypatch.setattr(Device, "count", staticmethod(lambda: 4))
    assert idle_accelerators(device, 1) == ()
    device.is_cpu = False
    assert idle_accelerators(device, 1) == (
        "3 more accelerators are idle: `nproc` gpu trains on all of them",
    )
    assert idle_accelerators(device, 4) == ()
    monkeypatch.setattr(Device, "count", staticmethod(lambda: 1))
    assert idle_accelerators(device, 1) == ()


def test_before_a_folder_is_made(make_task):
    task, plan, source = (
        make_task(),
        Plan.baseline(),
        {"kind": "reference", "reference": "mine:task"},
    )
    check_processes(task, plan, Processes(nproc=4), source)
    with pytest.raises(PlanError, match="must divide the batch"):
        check_processes(task, plan, Processes(nproc=3), source)
    with pytest.raises(
        UsageError, match="must be one that each of them can make again; got a Task object"
    ):
        check_processes(task, plan, Processes(nproc=2), {"kind": "python"})


@pytest.mark.parametrize(
    ("text", "is_lost"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer", True),
        ("DistBackendError: NCCL communicator was aborted", True),
        ("ValueError: an objective that breaks", False),
    ],
)
def test_an_error_that_only_tells_of_another_rank_is_known(text, is_lost):
    assert tells_of_lost_rank(text) is is_lost
