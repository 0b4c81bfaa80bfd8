"""One process at a time works in a run's folder; docs/decisions/run-lock.md has the reasons.

.lock        an empty file under a POSIX record lock (fcntl(2)), which the kernel takes back when its process dies
owner.json   who holds it: host, process, its start, and a beat that changes every few seconds
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volano.errors import RunError, UsageError

try:
    import fcntl
except ImportError:  # not a Unix: the record alone decides
    fcntl = None

LOCK_NAME, OWNER_NAME = ".lock", "owner.json"
# A beat is late on a loaded machine or a slow mount; six in a row are not.
_BEAT_SECONDS, _PATIENCE_SECONDS = 5.0, 30.0
_RECORD_BYTES = 1024  # a fixed length, so that a beat overwrites in place, which a full disk does not hinder
_held: set[str] = set()  # a POSIX lock does not tell two threads of one process apart
_held_guard = threading.Lock()


class RunLock:
    """Holds a run's folder for this process. Use :meth:`acquire`; :meth:`release` once."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._name = str(folder.resolve())
        self._record = {**who_am_i(), "token": uuid.uuid4().hex, "beat": 0}
        self._stop = threading.Event()
        self._beater: threading.Thread | None = None
        self.is_lost = False

    @classmethod
    def acquire(cls, folder: Path, on_wait: Callable[[str], None] = lambda _: None) -> RunLock:
        """Takes the lock of a folder that exists.

        Args:
            on_wait: told when the owner may live on another machine and has to be watched for a while.

        Raises:
            UsageError: another process, or another thread of this one, works in it.
            OSError: the folder cannot be written to.
        """
        name = str(folder.resolve())
        with _held_guard:
            if name in _held:
                raise _refusal(folder, read_owner(folder))
            descriptor = _kernel_lock(folder)
            _held.add(name)
        lock = cls(folder, descriptor)
        try:
            _check_owner(folder, on_wait)
            lock._write()
        except BaseException:
            lock._close()
            raise
        return lock

    def beat(self) -> None:
        """Starts the thread that shows other machines that this process lives."""
        if self._beater is None:
            self._beater = threading.Thread(target=self._keep_beating, name="volano-lock", daemon=True)
            self._beater.start()

    def check(self) -> None:
        """Raises RunError when another machine took the folder over: this process had stood still for too long."""
        self._look()
        if self.is_lost:
            raise RunError(
                "A run's folder belongs to one process",
                got=f"{self._folder}, which {_told(read_owner(self._folder))} took over while this one stood still",
                remedy="Leave it to that one",
            )

    def release(self) -> None:
        """Gives the folder free and leaves nothing in it."""
        self._stop.set()
        if self._beater is not None:
            self._beater.join()
        if self._descriptor >= 0:
            self._look()
            if not self.is_lost:
                for name in (OWNER_NAME, LOCK_NAME):  # the lock's file last, while it is still locked
                    with contextlib.suppress(OSError):
                        (self._folder / name).unlink()
            self._close()

    def __del__(self) -> None:
        # Never released: an error between two calls. A forked child has a copy of this object, but not the lock.
        if self._descriptor >= 0 and self._record["pid"] == os.getpid():
            self.release()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        with _held_guard:
            _held.discard(self._name)

    def _keep_beating(self) -> None:
        while not self._stop.wait(_BEAT_SECONDS):
            self._look()
            if self.is_lost:
                return
            self._record["beat"] += 1
            with contextlib.suppress(OSError):  # the next beat may find room
                self._write()

    def _look(self) -> None:
        owner = read_owner(self._folder)
        if owner is not None and owner.get("token") != self._record["token"]:
            self.is_lost = True

    def _write(self) -> None:
        content = json.dumps(self._record).encode().ljust(_RECORD_BYTES - 1) + b"\n"
        descriptor = os.open(self._folder / OWNER_NAME, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
        finally:
            os.close(descriptor)


def who_am_i() -> dict[str, Any]:
    """What tells this process from any other: its number and start, and the kernel and namespace where that counts."""
    return {
        "host": socket.gethostname(),
        "kernel": _read_line("/proc/sys/kernel/random/boot_id"),
        "namespace": _read_link("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "started": started(os.getpid()),
    }


def started(pid: int) -> str | None:
    """When a process started, in ticks since its machine did (proc(5)), or None where nobody says."""
    line = _read_line(f"/proc/{pid}/stat")
    # The second field is the program's name in brackets, which may hold spaces and brackets itself.
    return line.rpartition(")")[2].split()[19] if line else None


def read_owner(folder: Path) -> dict[str, Any] | None:
    """The record of who holds, or last held, a folder; None if there is none that can be read."""
    try:
        value = json.loads((folder / OWNER_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _kernel_lock(folder: Path) -> int:
    """The descriptor of ``.lock``, locked if the file system can."""
    path = folder / LOCK_NAME
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            if fcntl is not None:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                return descriptor  # the file system has no locks
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise _refusal(folder, read_owner(folder)) from error
            if error.errno != errno.ENOENT:
                raise
        else:
            os.close(descriptor)  # the owner before removed this very file just now: take the new one


def _check_owner(folder: Path, on_wait: Callable[[str], None]) -> None:
    owner, me = read_owner(folder), who_am_i()
    if owner is None:
        return
    if me["kernel"] is not None and all(owner.get(name) == me[name] for name in ("kernel", "namespace")):
        if _lives(owner) and owner.get("pid") != me["pid"]:
            raise _refusal(folder, owner)
        return
    if owner.get("host") == me["host"] and me["kernel"] is None:  # a system without /proc: its name is all there is
        if _lives(owner) and owner.get("pid") != me["pid"]:
            raise _refusal(folder, owner)
        return
    # Neither its process nor its clock can be asked from here. What can be seen is whether its beat goes on.
    on_wait(f"{folder} was held by {_told(owner)}; watching for {_PATIENCE_SECONDS:.0f} s whether it still works there")
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        time.sleep(min(1.0, _PATIENCE_SECONDS / 5))
        if (read_owner(folder) or owner) != owner:
            raise _refusal(folder, read_owner(folder))


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
    elsewhere = owner is not None and owner.get("host") != socket.gethostname()
    return UsageError(
        "One process at a time works in a run's folder",
        got=f"{folder}, held by {_told(owner)}",
        remedy="Wait for it, or stop it"
        + (f"; if that machine is gone, remove {folder / OWNER_NAME} and {LOCK_NAME} beside it" if elsewhere else ""),
    )


def _told(owner: dict[str, Any] | None) -> str:
    return "another process" if owner is None else f"process {owner.get('pid')} on {owner.get('host')}"


def _read_line(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _read_link(path: str) -> str | None:
    try:
        return str(Path(path).readlink())
    except OSError:
        return None
