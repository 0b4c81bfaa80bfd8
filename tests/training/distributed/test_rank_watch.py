"""A rank that stands still is named by the lowest one that runs."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from children import PATIENCE_SECONDS
from volano.device import Ranks
from volano.training.distributed.rank_watch import STANDS_STILL_SECONDS, RankWatch


def watch(rank, said=None, *, is_stopping=False):
    said = [] if said is None else said
    one = RankWatch(Ranks(rank=rank, world_size=3, local_rank=rank), said.append)
    one._bell._has_rung = is_stopping
    return one


def seen(watch, signs, now):
    for rank, sign in signs.items():
        watch.look(rank, sign, now)


def test_all_run_however_slowly():
    first = watch(0)
    for now in range(0, 200, 2):
        seen(first, {0: f"{now} 5 10 m", 1: f"{now} 5 11 m", 2: f"{now} 5 12 m"}, float(now))
        assert first.standing_still(float(now)) == []


@pytest.mark.parametrize(("silent", "who"), [(1, 0), (0, 1)])
def test_one_that_gives_no_sign(silent, who):
    watches = {rank: watch(rank) for rank in range(3)}
    for now in (0.0, STANDS_STILL_SECONDS - 1, STANDS_STILL_SECONDS):
        for one in watches.values():
            signs = {r: f"{0 if r == silent else now} 5 1{r} m" for r in range(3)}
            seen(one, signs, now)
        found = {rank: one.standing_still(now) for rank, one in watches.items()}
        expected = [(silent, 10 + silent, "m")] if now >= STANDS_STILL_SECONDS else []
        assert found[who] == expected
        assert not any(found[rank] for rank in range(3) if rank not in (who, silent))


def test_one_that_is_behind_the_others():
    first = watch(0)
    for now in (0.0, STANDS_STILL_SECONDS):
        seen(first, {0: f"{now} 7 10 m", 1: f"{now} 7 11 m", 2: f"{now} 6 12 m"}, now)
    assert first.standing_still(now) == [(2, 12, "m")]


def test_it_is_named_once_and_ended_when_the_run_is_to_stop(monkeypatch):
    said = []
    monkeypatch.setattr(os, "getppid", os.getpid)  # this process is the agent of both
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        for is_stopping in (False, True):
            one = watch(0, said, is_stopping=is_stopping)
            for _ in range(2):
                one._name(1, child.pid, socket.gethostname())
            assert said[-1].startswith(f"rank 1 (pid {child.pid} on ")
        assert child.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert len(said) == 2


def test_a_process_of_another_agent_is_left_alone():
    """Machines may bear one name, and their numbers of processes mean others."""
    said = []
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        watch(0, said, is_stopping=True)._name(1, child.pid, socket.gethostname())
        assert len(said) == 1
        child.communicate(b"\n", timeout=PATIENCE_SECONDS)
    assert child.returncode == 0


def test_alone_nothing_is_watched():
    with RankWatch(Ranks(), print) as one:
        one.mark()
        assert not one._thread.is_alive()
    assert os.getpid()
