"""The folder that a run leaves behind.

run.json               what it is, its state, its final figures, how to resume it
task.json              the task in words and digests
plan.json              the plan, complete
metrics.jsonl          one line for every logged step and evaluation
previews.jsonl         what the task's preview gave after each evaluation
quarantine.jsonl       corrupt examples, if there were any
numerics.jsonl         steps whose numbers were not finite, if there were any
splits.json            which example is in which split, of applications
checkpoints/           the last two, see checkpoint.py
model.safetensors      the final weights
.lock, owner.json      while a process works in it, see lock.py
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from volano.bounded_json import parse_json
from volano.errors import CheckpointError, RunError, UsageError, VolanoError, reason_of
from volano.record import files
from volano.record.json_values import (
    Kinds,
    finite,
    mapping,
    number,
    of_other_kinds,
    parse_line,
    sequence,
)
from volano.record.lock import LOCK_NAME, OWNER_NAME, RunLock
from volano.record.shell import quoted

SCHEMA_VERSION = 1
# The status of a run whose folder holds all that it takes to begin.
PREPARED = "prepared"
QUARANTINE = "quarantine.jsonl"
_NO_FOLDER, _MOST_NAME = re.compile(r"[^\w .+=@-]+"), 50
PAGE = "report.html"  # the last that a run or a study writes
# Files of JSON up to this size are held in memory while a process works in a folder.
_MOST_HELD_BYTES = 2**22


class RunFolder:
    """Reads and writes a run's folder. Use :meth:`reserve` and :meth:`make`, or :meth:`open`.

    Attributes:
        noun: the name of what it is the folder of.
        main: its file that says so, written last of all that it takes to begin.
        inner: folder within.
        begun: files that it holds before the first of what counts, to be removed from what is left
            of one.
        kinds: the types of what ``main`` holds, as far as it is read without a second look; of an
            object those of what it holds.
    """

    noun, main, inner = "run", "run.json", "checkpoints"
    begun: tuple[str, ...] = (
        "task.json", "plan.json", "metrics.jsonl", "previews.jsonl", "quarantine.jsonl",
        "numerics.jsonl", "splits.json", "image.json", "text.json", "video.json", PAGE,
    )  # fmt: skip
    kinds: ClassVar[Kinds] = {
        **dict.fromkeys(("metrics", "seconds", "safety", "accepted"), dict),
        **dict.fromkeys(("notices", "accept"), list), "status": str, "num_steps": int,
        "source": {"kind": str, "reference": str},
        "revision": dict.fromkeys(("step", "num_steps", "begun_with"), int), "revisions": list,
    }  # fmt: skip

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: RunLock | None = None
        self._torn: set[str] = set()  # files of lines that end in the middle of one
        self._begun: set[str] = set()  # that this process has appended to
        self._home = self.path  # where it is held, whatever becomes of the current folder
        self._held: dict[str, bytes] = {}  # files of JSON as they are written
        self.lost: dict[str, OSError] = {}

    @classmethod
    def reserve(cls, out: str | Path | None, name: str) -> Self:
        """Returns a folder to be made: ``out``, or ``runs/NAME-DATE-TIME`` under the current one.
        Nothing is written yet, so that a mistake found while preparing leaves nothing behind.

        Raises:
            UsageError: ``out`` exists and is not empty, or cannot be made. What is left of a run
                that failed before its first checkpoint, or was killed before it had begun, does not
                count.
        """
        folder = cls(Path(out) if out is not None else _fresh(files.RUNS, name))
        path = folder.path
        folder._check_can_be_made()
        if (
            path.exists()
            and (not path.is_dir() or any(path.iterdir()))
            and not folder._is_stillborn()
        ):
            raise folder._refusal()
        return folder

    def make(self) -> None:
        """Makes the reserved folder and holds it for this process.

        Raises:
            UsageError: it cannot be made, or another process was quicker.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._lock or RunLock.acquire(self.path)
            self._home = self.path.absolute()
            if (self.path / self.main).is_file() and not self._is_stillborn():
                self.release()
                raise UsageError(
                    f"A {self.noun} must start in a folder of its own",
                    got=f"{self.path}, which holds one by now",
                )
            for name in self.begun if self._is_stillborn() else ():
                (self.path / name).unlink(missing_ok=True)
            files.make_folder(self.path / self.inner)
            # Replaced in one go, and last: whoever is killed here leaves what can be started again.
            self.write_json(self.main, {"schema_version": SCHEMA_VERSION, "status": "starting"})
        except OSError as error:
            raise self._unmakable(error.strerror or str(error)) from error

    def _check_can_be_made(self) -> None:
        """Raises UsageError if a folder cannot be made here, as far as that shows: planning, which
        comes first, may take minutes."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self.path.stat()
        except (OSError, ValueError) as error:
            raise self._unmakable(getattr(error, "strerror", None) or str(error)) from error
        places = (self.path, *self.path.absolute().parents)
        nearest = next((place for place in places if place.is_dir()), None)
        if nearest is not None and not os.access(nearest, os.W_OK | os.X_OK):
            raise self._unmakable(f"{nearest} cannot be written to")

    def _unmakable(self, reason: str) -> UsageError:
        rule = f"It must be possible to make the {self.noun}'s folder"
        return UsageError(rule, got=f"{self.path}: {reason}", remedy="Name another with `out`")

    def _refusal(self) -> UsageError:
        is_run = (self.path / self.main).is_file()
        is_over = is_run and self.read_json(self.main).get("status") == "finished"
        more = f", or continue this run: {self.resume_command}"
        return UsageError(
            "A run must start in a folder of its own",
            got=f"{self.path}, which exists{' and holds a finished run' if is_over else ''}",
            remedy=f"Name another with `out`{more if is_run and not is_over else ''}",
        )

    @property
    def resume_command(self) -> str:
        """The command that resumes a run, to be pasted."""
        return f"volano resume {quoted(str(self.path))}"

    def _has_begun(self) -> bool:
        """Returns whether it holds anything that would be lost."""
        return any((self.path / self.inner).glob("step-*"))

    def _is_stillborn(self) -> bool:
        """Returns whether what it is of was killed, or failed, before it had begun."""
        if self._has_begun():
            return False
        if not (self.path / self.main).is_file():  # killed as soon as the folder was made
            names = (
                {path.name for path in self.path.iterdir()} if self.path.is_dir() else {"a file"}
            )
            names = {name for name in names if not name.startswith(files.PARTIAL)}
            return names <= {self.inner, f"{Path(self.main).stem}.partial", LOCK_NAME, OWNER_NAME}
        return self.read_json(self.main).get("status") in ("failed", "starting")

    @contextlib.contextmanager
    def held(self, on_notice: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """A context in which this process alone works in the folder.

        Args:
            on_notice: gets a warning if a process on another machine may work in it too.

        Raises:
            UsageError: another process works in it, it cannot be written to, or its inner folder
                is a link, through which would be written elsewhere.
        """
        if (self.path / self.inner).is_symlink():
            raise UsageError(
                f"The folder {self.inner} of a {self.noun} must lie in it",
                got=f"{self.path / self.inner}, which is a symbolic link",
                remedy="Put what it leads to in its place",
            )
        try:
            self._lock = self._lock or RunLock.acquire(self.path, on_notice)
            self._home = self.path.absolute()
        except OSError as error:
            raise UsageError(
                f"A {self.noun}'s folder must be writable",
                got=f"{self.path}: {error.strerror}",
                remedy=files.remedy_of(error),
            ) from error
        files.tidy(self.path)
        for path in self.path.glob("*.json"):
            with contextlib.suppress(OSError):
                if path.stat().st_size <= _MOST_HELD_BYTES and path.name != OWNER_NAME:
                    self._held[path.name] = files.read_bytes(path)
        try:
            yield
        finally:
            self.release()

    def check_held(self) -> None:
        """Raises RunError when another process has taken the folder over."""
        if self._lock is not None:
            self._lock.check()

    def put_back(self) -> bool:
        """Makes a held folder again if it was removed, or renamed, with its files of JSON: hours of
        training are worth more than what it held besides. Returns whether it did."""
        if self._lock is None or not files.is_gone(self._home / self.main):
            return False
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._lock.release()  # of a file that is gone
            self._lock = RunLock.acquire(self._home)
            # The main one last: as long as it is not there, it is tried again.
            for name in sorted(self._held, key=lambda name: name == self.main):
                files.write_bytes(self._home / name, self._held[name])
        except OSError:  # the next that is written says so
            return False
        return True

    def release(self) -> None:
        """Gives the folder free."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    @classmethod
    def open(cls, path: str | Path, *, is_tolerant: bool = False) -> Self:
        """Returns the folder of a run, or of a study.

        Args:
            path: the folder.
            is_tolerant: whether what is of another type is left to the reader, as for a page.

        Raises:
            UsageError: it is not one.
            CheckpointError: it is one of another schema version.
        """
        folder = cls(Path(path))
        try:
            is_one = (folder.path / cls.main).is_file()
        except PermissionError as error:
            raise UsageError(
                f"A {cls.noun}'s folder must be readable",
                got=f"{path}: {error.strerror}",
                remedy="Change its permissions",
            ) from error
        if not is_one:
            raise files.no_folder_of(folder.path, cls.main)
        facts = folder.read_json(cls.main)
        version = facts.get("schema_version")
        if version is None:
            raise files.another_programs(folder.path, cls.main)
        if version != SCHEMA_VERSION:
            raise CheckpointError(
                f"This version of Volano reads {cls.noun} folders of schema version "
                f"{SCHEMA_VERSION}",
                got=f"{version!r} in {path}",
                remedy="Use the version of Volano that wrote it",
            )
        if not is_tolerant:
            folder._check_kinds(facts)
        return folder

    def _check_kinds(self, facts: Mapping[str, Any]) -> None:
        for name, kind, value in of_other_kinds(facts, self.kinds):
            raise CheckpointError(
                f"{self.main} of a {self.noun}'s folder must hold {name} as {kind}",
                got=f"{type(value).__name__} in {self.path}",
                remedy="It is damaged, or was not written by Volano",
            )

    @contextlib.contextmanager
    def as_written(self, is_other: Callable[[Exception], bool] = lambda _: False) -> Iterator[None]:
        """A context in which something is made of what the folder's files state. They have been
        parsed; it may still be of another type, missing, or beyond any model.

        Args:
            is_other: checks whether an error is none of the files'.

        Raises:
            CheckpointError: something in them cannot be.
        """
        try:
            yield
        except (VolanoError, OSError, MemoryError):
            raise
        except Exception as error:
            if is_other(error):
                raise
            raise CheckpointError(
                f"The files of a {self.noun} must be as Volano wrote them",
                got=f"{self.path}: {reason_of(error)}",
                remedy="They are damaged, or of another version; `debug` shows where",
            ) from error

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        try:
            value = parse_json(files.read_bytes(self.path / name))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{name} of a {self.noun}'s folder must hold JSON", got=f"{self.path}: {error}"
            ) from error
        if not isinstance(value, dict):
            raise CheckpointError(
                f"{name} of a {self.noun}'s folder must hold a JSON object",
                got=type(value).__name__,
            )
        return value

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Writes a JSON object so that a reader sees the old or the new one, never a part.

        Raises:
            RunError: it could not be written; the old one is whole.
        """
        target = self.path / name
        content = (json.dumps(finite(value), indent=2) + "\n").encode()
        try:
            files.write_bytes(target, content)
        except OSError as error:
            raise RunError(
                f"A {self.noun}'s folder must be writable",
                got=f"{target}: {error.strerror}",
                remedy=files.remedy_of(error),
            ) from error
        if self._lock is not None and len(content) <= _MOST_HELD_BYTES:
            self._held[name] = content

    def update_run(self, **fields: Any) -> None:
        """Sets fields of ``run.json``, or of a study's ``study.json``."""
        current = self.read_json(self.main) if (self.path / self.main).exists() else {}
        self.write_json(self.main, {"schema_version": SCHEMA_VERSION, **current, **fields})

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Appends a line to a ``.jsonl`` file; a full disk loses the line, not the run, and
        ``lost`` says so."""
        try:
            if name not in self._begun:  # a process that was killed may have left half a line
                self._begun.add(name)
                if files.is_torn(self.path / name):
                    self._torn.add(name)
            with files.open_to_append(self.path / name) as file:
                # Half a line may be all that there was room for; the next must not grow together
                # with it.
                file.write(
                    (b"\n" if name in self._torn else b"")
                    + json.dumps(finite(record)).encode()
                    + b"\n"
                )
            self._torn.discard(name)
        except OSError as error:
            self._torn.add(name)
            self.lost.setdefault(name, error)

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """The records of a ``.jsonl`` file; a line that is damaged, or cut short by a crash, is
        left out."""
        path = self.path / name
        lines = files.read_bytes(path).splitlines() if path.exists() else []
        return [record for record in map(parse_line, lines) if record is not None]

    def keep_until(self, name: str, step: int) -> None:
        """Drops the records of a ``.jsonl`` file that lie after ``step``: a resumed run writes them
        again. Those without a step stay."""
        target = self.path / name
        if target.exists():
            records = [
                record for record in self.read_lines(name)
                if (number(record.get("step")) or 0) <= step
            ]  # fmt: skip
            files.write_bytes(target, "".join(json.dumps(line) + "\n" for line in records).encode())

    def sync_lines(self) -> None:
        """Makes what was appended survive a power cut: a checkpoint must not be ahead of its
        figures."""
        for path in self.path.glob("*.jsonl"):
            with contextlib.suppress(OSError), files.open_regular(path) as file:
                os.fsync(file.fileno())


class ReadFolder(RunFolder):
    """The folder of a run that another rank writes: what is written here goes nowhere, but for
    corrupt examples, which no other rank has seen."""

    @contextlib.contextmanager
    def held(self, on_notice: Callable[[str], None] = lambda _: None) -> Iterator[None]:  # noqa: ARG002
        """Implements :class:`RunFolder`; the first rank holds it."""
        yield

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Writes nothing."""

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Writes a line of ``quarantine.jsonl``, and nothing else."""
        if name == QUARANTINE:
            super().append(name, record)

    def keep_until(self, name: str, step: int) -> None:
        """Writes nothing."""

    def sync_lines(self) -> None:
        """Writes nothing."""

    def put_back(self) -> bool:
        """Writes nothing."""
        return False


def revisions_of(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the revisions of a run's number of steps that its ``run.json`` holds, in their order:
    each with ``step``, ``num_steps`` from then on, and ``begun_with``, those before it."""
    found = run.get("revisions", [run["revision"]] if run.get("revision") else [])  # until 0.2: one
    return [mapping(revision) for revision in sequence(found)]


def _fresh(parent: Path, name: str) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    # A name of a person's may hold anything; the folder lies in `parent`, on any system.
    name = _NO_FOLDER.sub("-", name)[:_MOST_NAME].strip("-. ") or "run"
    for suffix in ("", *(f"-{again}" for again in range(2, 100))):
        path = parent / f"{name}-{stamp}{suffix}"
        if not path.exists():
            return path
    raise UsageError(
        "A new run must get a folder that does not exist yet",
        got=f"{parent / name}-..., and 98 more",
        remedy="Name one with `out`",
    )
