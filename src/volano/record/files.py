"""Reads and writes files in folders that other hands may have filled: a run's, a study's.

A file is written under a new name next to its place, and renamed onto it when it is whole: whatever
lies there, a symbolic link too, is replaced and never followed. Only regular files are read: a pipe
or a device may have no end.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from volano.errors import UsageError
from volano.record.shell import quoted

PARTIAL = ".partial-"
# The largest file that is read whole: which of a few million examples is in which split.
MOST_READ_BYTES = 2**29
RUNS = Path("runs")  # where folders of runs and studies are made, below the current one
# Flags that Windows lacks; there the kinds of files that they guard against are lacking too.
_NO_FOLLOW, _NO_WAIT = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A context that yields a new, empty file in the folder of ``path``, with its suffix. When the
    context ends well the file takes the place of whatever is there; otherwise it is removed.

    Raises:
        OSError: the folder cannot be written to, or ``path`` is a folder.
    """
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}{path.suffix}")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _FLAGS, 0o666))
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


@contextlib.contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A context that yields a new, empty folder next to ``path``. When the context ends well its
    files take their places in ``path``, which is made unless it is there; in any case it is
    removed.

    Raises:
        OSError: a folder cannot be written to, or ``path`` is a link or a file.
    """
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir()
    try:
        yield partial
        make_folder(path)
        for file in partial.iterdir():
            if file.is_dir():  # a folder takes no other one's place
                remove(path / file.name)
            file.replace(path / file.name)
    finally:
        remove(partial)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file that survives a power cut, so that a reader sees the old or the new one.

    Raises:
        OSError: it cannot be written; the old one is whole.
    """
    with written(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def open_to_append(path: Path) -> IO[bytes]:
    """Opens a file to append to, unbuffered. One that has another name too, as in a snapshot made
    of hard links, is copied first.

    Raises:
        OSError: it cannot be written, or is not a regular file of the folder: a link, a pipe.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_FOLLOW | _NO_WAIT | _FLAGS
    file = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return file
    file.close()
    _check_regular(status, path)
    with written(path) as partial:
        shutil.copyfile(path, partial)
    return open_to_append(path)


def open_regular(path: Path) -> IO[bytes]:
    """Opens a file to read.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | _NO_WAIT | _FLAGS), "rb")
    try:
        _check_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def read_bytes(path: Path) -> bytes:
    """Returns the content of a regular file.

    Raises:
        OSError: as :func:`open_regular`, or it is larger than any that is read whole.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_READ_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MOST_READ_BYTES:,} bytes", str(path))
        return file.read()


def make_folder(path: Path) -> None:
    """Makes a folder, unless it is there.

    Raises:
        OSError: it cannot be made, or what is there is a link or a file.
    """
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def remove(path: Path) -> None:
    """Removes a file or a folder, as far as that is possible; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def tidy(folder: Path) -> None:
    """Removes what a process that was killed had half written. Only the folder's holder may."""
    for path in folder.glob(f"{PARTIAL}*"):
        remove(path)


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Returns the names that are most like a name, at most three."""
    return difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)


def nearest_there(path: Path, *, holding: str = "") -> str | None:
    """Returns in words what lies where ``path`` should and has a name like its own; None if nothing
    does. ``holding``: only folders that hold such a file."""
    try:
        children = sorted(path.absolute().parent.iterdir())
    except OSError:
        return None
    names = [child.name for child in children if not holding or (child / holding).is_file()]
    found = nearest(path.name, names)
    return (
        f"Nearest there: {', '.join(str(path.parent / name) for name in found)}" if found else None
    )


def is_there(path: Path) -> bool:
    """Checks whether anything lies at a path, whatever its name."""
    try:
        return path.exists()
    except OSError:  # a name that no file can have, such as a whole text
        return False


def is_gone(path: Path) -> bool:
    """Checks whether a file that was there has been removed, rather than cannot be looked at."""
    try:
        path.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def check_exists(path: Path, rule: str = "`path` must exist", remedy: str | None = None) -> None:
    """Raises UsageError if nothing lies at a path; ``remedy`` is what else helps than another
    name."""
    if not is_there(path):
        helps = ". ".join(filter(None, (nearest_there(path), remedy)))
        raise UsageError(rule, got=str(path), remedy=helps or None)


# What says that a folder is a run's or a study's, its name, and the command that makes one.
_FOLDERS = {"run.json": ("run", "train"), "study.json": ("study", "explore")}


def no_folder_of(path: Path, main: str) -> UsageError:
    """Returns the refusal of a folder that is not a run's (or a study's), for want of ``main``."""
    noun, verb = _FOLDERS[main]
    others = [kind for file, (kind, _) in _FOLDERS.items() if (path / file).is_file()]
    near = nearest_there(path, holding=main) or _newest(main)
    helps = [near, f"Name the folder that {verb} printed"]
    if others == ["study"]:
        study = quoted(str(path))
        helps = [
            f"Train its best trial first: volano train --from {study}",
            f"Resume it: volano explore --resume {study}",
        ]
    return UsageError(
        f"A {noun}'s folder must hold {main}",
        got=f"{path}, the folder of a {others[0]}"
        if others
        else f"{path}{'' if is_there(path) else ', which does not exist'}",
        remedy=". ".join(filter(None, helps)),
    )


def _newest(main: str) -> str | None:
    """Returns in words the newest folder of ``runs``, where folders are made if none is asked for,
    that holds ``main``."""
    with contextlib.suppress(OSError):
        found = [(file.stat().st_mtime, str(file.parent)) for file in RUNS.glob(f"*/{main}")]
        return f"The newest here: {quoted(max(found)[1])}" if found else None
    return None


def another_programs(path: Path, main: str) -> UsageError:
    """Returns the refusal of a folder whose ``main`` another program has written."""
    noun, verb = _FOLDERS[main]
    return UsageError(
        f"{main} of a {noun}'s folder must be Volano's",
        got=f"{path}, whose {main} states no schema_version",
        remedy=f"Name the folder that {verb} printed",
    )


def check_out(path: Path, name: str = "out") -> None:
    """Raises UsageError unless a path that a person named is free, or a regular file to replace.
    That it is a folder is left to the writer to say."""
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):  # it is free, or writing will say why it cannot be
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = next((words for is_one, words in _KINDS if is_one(mode)), "no file")
        raise UsageError(
            f"`{name}` must name a new file, or a regular one to replace",
            got=f"{path}, which is {kind}",
            remedy="Name another",
        )


def is_torn(path: Path) -> bool:
    """Returns whether a file of lines ends in the middle of one."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def sync_folder(path: Path) -> None:
    """Makes renames within a folder survive a power cut (fsync(2) on the directory)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# How libraries that are written in Rust, as safetensors, hand on what the system says.
_OF_RUST = re.compile(r"\(os error (\d{1,4})\)")
# What helps if a file cannot be written, by what the system says.
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room on the disk"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Change its permissions, or name another place"),
    errno.EROFS: "Take a place that can be written to",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f), or name another place",
    errno.ENOENT: "Put its folder back, which was removed or renamed",
}


def remedy_of(error: BaseException) -> str | None:
    """Returns what helps if a file cannot be written; None if nothing is known to."""
    found = _OF_RUST.search(str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    return _REMEDIES.get(number or 0)


def _check_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
