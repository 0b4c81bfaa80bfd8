"""The exceptions that Volano raises on purpose.

    VolanoError
    ├── UsageError            an invalid request                        (exit code 2)
    │   ├── TaskError         a Task that is wrong in itself
    │   └── PlanError         a Plan that is wrong, or does not fit task or device
    └── RunError              a valid request that could not be done    (exit code 1)
        ├── DataError         the data cannot be trained on
        ├── ObjectiveError    the objective returned something that is not a loss
        ├── NumericsError     NaN or infinity instead of a finite number
        ├── ExploreError      a study that cannot continue
        ├── CheckpointError   a checkpoint or run folder that cannot be used
        ├── MissingExtraError an optional package is not installed
        └── ScriptError       a script that fails, or that cannot be explained

An error states the rule, what was found and the remedy.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

# A command at the end of a remedy: a full stop behind it would be pasted with it.
_COMMAND = re.compile(r"(?:^|[ (])(?:volano|pip install) (?!.*(?:[.;,] |`)).*$", re.DOTALL)


class VolanoError(Exception):
    """The base of all errors. ``rule`` is what must hold, ``got`` what was found, ``remedy`` what
    helps."""

    exit_code = 1

    def __init__(self, rule: str, *, got: object = None, remedy: str | None = None) -> None:
        self.rule = rule
        self.got = got
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.rule.removesuffix(".")
        if self.got is not None:
            text += f"; got {self.got}".removesuffix(".")
        text += "."
        if self.remedy:
            is_ended = self.remedy.endswith(".") or _COMMAND.search(self.remedy)
            text += f" {self.remedy}" if is_ended else f" {self.remedy}."
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Pickle calls the class with `args` alone, which is the message; worker processes hand
        # errors over by pickle.
        return (_rebuild, (type(self), self.rule, self.got, self.remedy))


def _rebuild(kind: type[VolanoError], rule: str, got: object, remedy: str | None) -> VolanoError:
    return kind(rule, got=got, remedy=remedy)


class UsageError(VolanoError):
    """An invalid request."""

    exit_code = 2


class TaskError(UsageError):
    """A Task that is wrong in itself."""


class PlanError(UsageError):
    """A Plan that is wrong, or does not fit the task or the device."""


class RunError(VolanoError):
    """A valid request that could not be carried out."""


class DataError(RunError):
    """The data cannot be trained on."""


class ObjectiveError(RunError):
    """The objective returned something that is not a loss."""


class NumericsError(RunError):
    """A NaN or infinity instead of a finite number."""


class ExploreError(RunError):
    """A study that cannot continue."""


class CheckpointError(RunError):
    """A checkpoint or a run folder that cannot be used."""


class MissingExtraError(RunError):
    """An optional package is not installed."""


@contextlib.contextmanager
def needs_package(rule: str, package: str) -> Iterator[None]:
    """A context for imports that raises MissingExtraError if there is nothing to import.

    Args:
        rule: what needs the package.
        package: its name as pip takes it.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(rule, got=str(error), remedy=f"pip install {package}") from error


class ScriptError(RunError):
    """A script of somebody's that fails by itself, with the exit code that it has, or one in which
    there is nothing to explain."""

    def __init__(
        self, rule: str, *, got: object = None, remedy: str | None = None, exit_code: int = 1
    ) -> None:
        super().__init__(rule, got=got, remedy=remedy)
        self.exit_code = exit_code


_RAISED_BY = "raised by "


def note_caller(error: BaseException, whose: str) -> None:
    """Notes on an exception whose code was called when it was raised ("the task's objective"):
    nothing of a person's own need be in its traceback, if they gave a function of a library."""
    if not isinstance(error, VolanoError) and noted_caller(error) is None:
        error.add_note(f"{_RAISED_BY}{whose}")


def noted_caller(error: BaseException) -> str | None:
    """Returns what :func:`note_caller` noted; None if it noted nothing."""
    notes = (note for note in getattr(error, "__notes__", ()) if note.startswith(_RAISED_BY))
    return next((note.removeprefix(_RAISED_BY) for note in notes), None)


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, or the name of its class; with the next one
    if that is what it announces (``backend='inductor' raised:``)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or type(error).__name__


def in_words(error: BaseException) -> str:
    """Returns the message of one of Volano's errors; the class and the message of another."""
    return str(error) if isinstance(error, VolanoError) else f"{type(error).__name__}: {error}"


def reason_of(error: BaseException) -> str:
    """Returns the class name and the first line of the message, ``"KeyError: 'x'"``."""
    name, text = type(error).__name__, first_line(error)
    return name if text == name else f"{name}: {text}"
