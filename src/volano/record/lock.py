"""The lock of a run's folder: one process at a time works in it; docs/decisions/run-lock.md has the
reasons.

.lock        an empty file under a POSIX record lock (fcntl(2)), which the kernel takes back when
             its process dies
owner.json   who holds it: host, process, and its start
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volano.bounded_json import parse_json
from volano.errors import RunError, UsageError
from volano.record import files

try:
    import fcntl
except ImportError:  # not a Unix: the record alone decides
    fcntl = None

LOCK_NAME, OWNER_NAME = ".lock", "owner.json"
_held: set[str] = set()  # a POSIX lock does not tell two threads of one process apart
_held_guard = threading.Lock()


class RunLock:
    """Holds a run's folder for this process. Use :meth:`acquire`; :meth:`release` once."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._name = str(folder.resolve())
        self._record = who_am_i()

    @classmethod
    def acquire(cls, folder: Path, on_notice: Callable[[str], None] = lambda _: None) -> RunLock:
        """Takes the lock of a folder that exists.

        Args:
            on_notice: gets a warning if a process on another machine may work in the folder too.

        Raises:
            UsageError: another process, or another thread of this one, works in it.
            OSError: the folder cannot be written to.
        """
        name = str(folder.resolve())
        with _held_guard:
            if name in _held:
                raise _refusal(folder, read_owner(folder))
            descriptor, is_locked = _kernel_lock(folder)
            _held.add(name)
        lock = cls(folder, descriptor)
        try:
            _check_owner(folder, is_locked, on_notice)
            files.write_bytes(folder / OWNER_NAME, (json.dumps(lock._record) + "\n").encode())
        except BaseException:
            lock._close()
            raise
        return lock

    def check(self) -> None:
        """Raises RunError if another process has taken the folder over: the file system has no
        locks."""
        if self._is_lost():
            raise RunError(
                "A run's folder must belong to one process",
                got=f"{self._folder}, which {_told(read_owner(self._folder))} took over",
                remedy="Leave it to that one",
            )

    def release(self) -> None:
        """Gives the folder free and leaves nothing in it."""
        if self._descriptor >= 0:
            if not self._is_lost():
                # The lock's file last, while it is still locked.
                for name in (OWNER_NAME, LOCK_NAME):
                    with contextlib.suppress(OSError):
                        (self._folder / name).unlink()
            self._close()

    def __del__(self) -> None:
        # Never released: an error between two calls. A forked child has a copy of this object, but
        # not the lock.
        if self._descriptor >= 0 and self._record["pid"] == os.getpid():
            self.release()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        with _held_guard:
            _held.discard(self._name)

    def _is_lost(self) -> bool:
        return read_owner(self._folder) not in (None, self._record)


def who_am_i() -> dict[str, Any]:
    """Returns what tells this process from any other: its host, number and start."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started(os.getpid())}


def started(pid: int) -> str | None:
    """Returns when a process started, in ticks since its machine did (proc(5)), or None if that
    cannot be told."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets, which may hold spaces and brackets itself.
    return line.rpartition(")")[2].split()[19]


def read_owner(folder: Path) -> dict[str, Any] | None:
    """Returns the record of who holds, or last held, a folder; None if there is none that can be
    read."""
    try:
        value = parse_json(files.read_bytes(folder / OWNER_NAME))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _kernel_lock(folder: Path) -> tuple[int, bool]:
    """Returns the descriptor of ``.lock``, and whether it is locked: not every file system can."""
    path = folder / LOCK_NAME
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
        flags |= getattr(os, name, 0)
    while True:
        descriptor = os.open(path, flags, 0o644)
        try:
            if fcntl is not None:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor, fcntl is not None
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                return descriptor, False
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise _refusal(folder, read_owner(folder)) from error
            if error.errno != errno.ENOENT:
                raise
        else:
            # The owner before removed this very file just now: take the new one.
            os.close(descriptor)


def _check_owner(folder: Path, is_locked: bool, on_notice: Callable[[str], None]) -> None:
    """Refuses a folder whose owner lives, if no lock says so; warns of an owner that cannot be
    asked from here."""
    owner, me = read_owner(folder), who_am_i()
    if owner is None:
        return
    if owner.get("host") != me["host"]:
        on_notice(f"{folder} was held by {_told(owner)}: make sure that it no longer works there")
    elif not is_locked and owner.get("pid") != me["pid"] and _lives(owner):
        raise _refusal(folder, owner)


def _lives(owner: dict[str, Any]) -> bool:
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it is there, and another user's
    except (OSError, OverflowError):
        return False
    now = started(pid)
    return now is None or owner.get("started") is None or now == owner["started"]


def _refusal(folder: Path, owner: dict[str, Any] | None) -> UsageError:
    remedy = "Wait for it, or stop it"
    if owner is not None and owner.get("host") != socket.gethostname():
        files_left = f"{folder / OWNER_NAME} and {LOCK_NAME} next to it"
        remedy += f"; if that machine is gone, remove {files_left}"
    return UsageError(
        "Only one process at a time can work in a run's folder",
        got=f"{folder}, held by {_told(owner)}",
        remedy=remedy,
    )


def _told(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')}"
