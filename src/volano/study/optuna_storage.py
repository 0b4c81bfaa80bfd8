"""The place where Optuna keeps a study: a journal in the study's folder, or a storage that several
share.

Without a storage of one's own, Optuna's journal is kept in memory and written to the folder at each
rung, in Optuna's own format. Measured with 6 parameters and TPE, per trial: asking takes 1.9 ms so,
1.8 ms in Optuna's storage in memory, 4.3 ms with its journal on disk (one locked and synced write
for each parameter); SQLite takes 34 ms and more.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from volano.bounded_json import parse_json
from volano.errors import (
    CheckpointError,
    ExploreError,
    MissingExtraError,
    UsageError,
    VolanoError,
    first_line,
)
from volano.record.files import read_bytes
from volano.record.study_folder import JOURNAL

# How long SQLite waits for another process to let go of the file; its driver's own 5 s are short on
# a network's disk.
_SQLITE_PATIENCE_SECONDS = 30.0
OBJECT = "object"


class JournalInMemory(BaseJournalBackend):
    """An Optuna journal that one process writes, and that goes to its file when :meth:`flush` is
    called.

    Args:
        path: the path of the file; what it holds already is read. Only the holder of the study's
            folder may make one.
    """

    def __init__(self, path: Path) -> None:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(errno.EINVAL, "not a regular file of the study's folder", str(path))
        self._path = path
        Path(f"{path}.lock").unlink(missing_ok=True)  # of a process that was killed while it wrote
        self._logs = list(_read_whole_lines(path))
        self._unsaved: list[dict[str, Any]] = []
        self._file = JournalFileBackend(str(path))

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        # As they would be read back: what JSON cannot hold fails here, and no caller changes what
        # was kept.
        logs = [json.loads(json.dumps(log)) for log in logs]
        self._logs.extend(logs)
        self._unsaved.extend(logs)

    def flush(self) -> None:
        """Writes what is new to the file.

        Raises:
            OSError: it cannot be written.
        """
        if self._unsaved:
            self._file.append_logs(self._unsaved)
            self._unsaved = []


def _read_whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a journal's file; half a last line, of a process that was killed, is taken off
    it."""
    if not path.exists():
        return
    content = read_bytes(path)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            yield parse_json(line)
        except ValueError as error:
            raise CheckpointError(
                "A study's journal must hold JSON lines", got=f"line {number} of {path}"
            ) from error


class StudyStorage:
    """The Optuna study of a study's folder, with its errors in our words.

    Args:
        given: None for a journal in the folder; a URL as Optuna takes it, the path of a journal's
            file, an Optuna storage, or an Optuna study.
        folder: the folder of the study.

    Raises:
        VolanoError: it cannot be opened.
    """

    def __init__(self, given: str | Path | BaseStorage | optuna.Study | None, folder: Path) -> None:
        self._journal: JournalInMemory | None = None
        self._study = given if isinstance(given, optuna.Study) else None
        self.notices: list[str] = []
        self.url: str | None = OBJECT
        with storage_errors():
            if given is None:
                self.url = None
                self._journal = JournalInMemory(folder / JOURNAL)
                self._storage: BaseStorage = JournalStorage(self._journal)
            elif isinstance(given, optuna.Study):
                self._storage = given._storage
            elif isinstance(given, BaseStorage):
                self._storage = given
            else:
                self.url = without_password(str(given))
                self._storage = _open(str(given))
        self._warn_of_cost()

    @property
    def is_shared(self) -> bool:
        """Returns whether others may work on the same study."""
        return self._journal is None

    def _warn_of_cost(self) -> None:
        backend = getattr(self._storage, "_backend", self._storage)  # behind Optuna's cache of one
        if isinstance(backend, RDBStorage) and backend.url.startswith("sqlite"):
            self.notices.append(
                "SQLite takes about 40 ms a trial, and 10 ms for each value reported; "
                "without `storage` a study is kept in memory with a journal in its folder, and "
                "costs 2 ms a trial"
            )

    def study(
        self, name: str, direction: Literal["minimize", "maximize"], *, is_new: bool
    ) -> optuna.Study:
        """Returns Optuna's study of that name, made if there is none.

        Args:
            is_new: whether it begins now, so that one of that name belongs to another.

        Raises:
            UsageError: it is there with another direction or several, or is one with a pruner.
        """
        with storage_errors():
            study = self._study or optuna.create_study(
                study_name=name,
                storage=self._storage,
                direction=direction,
                load_if_exists=True,
                pruner=optuna.pruners.NopPruner(),
            )
            directions = [each.name.lower() for each in study.directions]
            num_there = (
                len(study.get_trials(deepcopy=False)) if is_new and self._study is None else 0
            )
        check_pruner(study.pruner)
        if directions != [direction]:
            raise UsageError(
                "A resumed study must keep the direction that it has in its storage",
                got=f"direction={direction!r} and the study {study.study_name!r} with "
                f"{', '.join(directions)}",
                remedy="Give the same direction, or another name: another `out`",
            )
        if num_there:
            self.notices.append(
                f"the storage holds a study {study.study_name!r} with {num_there} trials already: "
                "this one joins it; "
                "a study takes its name from its folder"
            )
        return study

    def flush(self) -> None:
        """Writes to the folder what is new.

        Raises:
            ExploreError: it cannot be written.
        """
        if self._journal is not None:
            with storage_errors():
                self._journal.flush()


def check_pruner(pruner: Any) -> None:
    """Raises UsageError for a pruner that would be asked trial by trial."""
    if not isinstance(pruner, optuna.pruners.NopPruner):
        raise UsageError(
            "An Optuna study must be without a pruner of its own: here the rungs prune, which rank "
            "all trials of a cohort at once",
            got=type(pruner).__name__,
            remedy="Make the Optuna study with pruner=optuna.pruners.NopPruner(); set `eta` and "
            "`rungs` instead",
        )


def load_optuna(folder: Path, name: str, url: str | None) -> optuna.Study:
    """Returns Optuna's study of a folder, to be read.

    Raises:
        CheckpointError: its storage was given as an object, or is gone.
        VolanoError: it cannot be opened.
    """
    if url == OBJECT or (url is None and not (folder / JOURNAL).is_file()):
        raise CheckpointError(
            "Optuna's study must be found in journal.log of the folder, or from the storage's URL",
            got=f"{folder}, "
            + ("whose storage was given as an object" if url else "which holds none"),
            remedy="Open it with optuna.load_study",
        )
    with storage_errors():
        storage = (
            JournalStorage(JournalFileBackend(str(folder / JOURNAL))) if url is None else _open(url)
        )
        return optuna.load_study(study_name=name, storage=storage)


def _open(url: str) -> BaseStorage:
    if "://" not in url:
        return JournalStorage(JournalFileBackend(url))
    if url.startswith("sqlite"):
        return RDBStorage(
            url, engine_kwargs={"connect_args": {"timeout": _SQLITE_PATIENCE_SECONDS}}
        )
    return optuna.storages.get_storage(url)


def without_password(url: str) -> str:
    """A URL that may be written down."""
    head, separator, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{head}{separator}{user.partition(':')[0]}{at}{host}" if at else url


# ---- Optuna's private names; read in Optuna 5.0. tests/study/test_optuna_storage.py shows what
# each does


def num_grid_points(sampler: BaseSampler | None) -> int | None:
    """Returns how many points Optuna's grid has, or None for another sampler."""
    return len(getattr(sampler, "_all_grids", ())) or None


def running_trial(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> optuna.Trial:
    """Returns a trial that runs in a study's storage, to be reported to and told of again."""
    # Made by hand, a Trial asks its sampler to prepare for a new one; a random sampler prepares
    # nothing.
    study.sampler = optuna.samplers.RandomSampler()
    return optuna.Trial(study, trial._trial_id)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """A context that turns what a storage raises into a VolanoError, and keeps Optuna's chatter
    down."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    except VolanoError:
        raise
    except Exception as error:
        translated = _translated(error)
        if translated is None:
            raise
        raise translated from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def is_of_storage(error: Exception) -> bool:
    """Returns whether an error comes from a storage's database, and not from a person's code that
    uses a trial."""
    is_optunas = isinstance(error, optuna.exceptions.StorageInternalError)
    return is_optunas or type(error).__module__.startswith("sqlalchemy")


def _translated(error: Exception) -> VolanoError | None:
    chain = [error, *([error.__cause__] if error.__cause__ is not None else [])]
    text = " ".join(str(each) for each in chain)
    first = first_line(chain[-1])
    from_database = any(isinstance(each, Exception) and is_of_storage(each) for each in chain)
    if "database is locked" in text or "lock wait timeout" in text.lower():
        return ExploreError(
            "A study's storage must let each process write, one at a time and soon",
            got=first,
            remedy="Wait for the other process, or take a storage for many writers (MySQL, "
            "PostgreSQL, a journal file); then continue with `resume`",
        )
    if "compatible with the table schema" in text:
        return CheckpointError(
            "A study's storage must be of this version of Optuna",
            got=first,
            remedy="Take another storage, or upgrade a copy of it: optuna storage upgrade "
            "--storage URL",
        )
    if isinstance(error, ImportError | ModuleNotFoundError) or "Can't load plugin" in text:
        return MissingExtraError(
            "The driver of the storage's database must be installed",
            got=first,
            remedy="Install it, or take another storage",
        )
    if isinstance(error, OSError) or from_database:
        return ExploreError(
            "A study's storage must be readable and writable",
            got=first,
            remedy="Check the URL or the path",
        )
    if isinstance(error, ValueError | KeyError) and (
        "log format" in text or "JSON" in type(error).__name__
    ):
        return CheckpointError(
            "A journal's file must be one of Optuna's", got=first, remedy="Take another path"
        )
    return None
