"""Names a rank that stands still: the others wait for it in the exchange of gradients, and would
wait for ever.

Each rank shows a sign of life in torchrun's store, and how far it has come: one that does not run
at all gives no sign, and one that waits for its data is behind the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from volano.device import Ranks
from volano.device.start_processes import parent_of
from volano.terminal import unfailing
from volano.training.signals import SignalBell

STANDS_STILL_SECONDS = 30.0
_LOOK_SECONDS = 2.0


class RankWatch:
    """A context in which this rank shows its signs, and the lowest rank that runs names another
    that does not.

    Args:
        ranks: the ranks; alone nothing is watched.
        on_notice: hears of it on the first rank; another prints it.

    Once a signal has asked the run to stop, a rank of this machine that stands still is ended,
    since it would hold all the others.
    """

    def __init__(self, ranks: Ranks, on_notice: Callable[[str], None]) -> None:
        self._ranks, self._on_notice = ranks, on_notice
        self._num_marks = self._num_signs = 0
        self._is_over, self._bell = threading.Event(), SignalBell()
        self._thread = threading.Thread(target=self._run, name="volano-rank-watch", daemon=True)
        # By rank: its last sign and marks, and when each changed.
        self._signs: dict[int, tuple[str, float]] = {}
        self._marks: dict[int, tuple[int, float]] = {}
        self._named: set[int] = set()

    def mark(self) -> None:
        """Notes that this rank has come further."""
        self._num_marks += 1

    def __enter__(self) -> RankWatch:
        if self._ranks.are_several:
            self._bell.__enter__()
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch: what follows, each rank does alone."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(_LOOK_SECONDS)
        self._bell.__exit__()

    def _run(self) -> None:
        # The store goes with torchrun's agent, and the run with it.
        with contextlib.suppress(RuntimeError):
            store = self._ranks.open_store("volano/signs")
            # The first sign at once: a rank that never gave one could not be named.
            while not self._is_over.is_set():
                self._num_signs += 1
                sign = f"{self._num_signs} {self._num_marks} {os.getpid()} {socket.gethostname()}"
                store.set(str(self._ranks.rank), sign)
                for rank in range(self._ranks.world_size):
                    if store.check([str(rank)]):
                        self.look(rank, store.get(str(rank)).decode(), time.monotonic())
                for rank, pid, host in self.standing_still(time.monotonic()):
                    self._name(rank, pid, host)
                self._is_over.wait(_LOOK_SECONDS)

    def look(self, rank: int, sign: str, now: float) -> None:
        """Takes in a rank's sign."""
        marks = int(sign.split(" ")[1])
        if self._signs.get(rank, ("", 0.0))[0] != sign:
            self._signs[rank] = (sign, now)
        if self._marks.get(rank, (-1, 0.0))[0] != marks:
            self._marks[rank] = (marks, now)

    def standing_still(self, now: float) -> list[tuple[int, int, str]]:
        """Returns rank, process id and machine of each rank that stands still, if it is for this
        one to say so."""
        silent = {rank for rank, (_, at) in self._signs.items() if self._is_long(now, at)}
        furthest = max((marks for marks, _ in self._marks.values()), default=0)
        behind = {
            rank
            for rank, (marks, at) in self._marks.items()
            if marks < furthest and self._is_long(now, at)
        }
        running = self._signs.keys() - silent
        if self._ranks.rank != min(running, default=self._ranks.rank):
            return []
        found = []
        for rank in sorted(silent or behind):
            _, _, pid, host = self._signs[rank][0].split(" ", 3)
            found.append((rank, int(pid), host))
        return found

    def _is_long(self, now: float, since: float) -> bool:
        return now - since >= STANDS_STILL_SECONDS

    def _name(self, rank: int, pid: int, host: str) -> None:
        if rank not in self._named:
            self._named.add(rank)
            text = (
                f"rank {rank} (pid {pid} on {host}) has stood still for "
                f"{STANDS_STILL_SECONDS:.0f} s, and the others wait for it"
            )
            if self._ranks.is_first:
                self._on_notice(text)
            else:
                print(f"note: {text}", file=unfailing(sys.stderr), flush=True)
        # Of this machine by its name, which others may bear, and of the same agent.
        is_here = host == socket.gethostname() and parent_of(pid) == os.getppid()
        if self._bell.has_rung() and is_here and rank != self._ranks.rank:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
