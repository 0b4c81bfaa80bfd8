"""The search spaces as data: a name for each number, and the values that it may take."""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from volano.bounded_json import parse_json
from volano.errors import UsageError
from volano.record.files import read_bytes

_KEYS = {"low", "high", "log", "step"}
_EXAMPLE = '{"lr": {"low": 1e-4, "high": 1e-2, "log": true}, "smoothing": [0, 0.05, 0.1]}'


@dataclass(frozen=True, kw_only=True)
class Range:
    """A range of numbers from ``low`` to ``high``.

    Attributes:
        low, high: whole numbers for a whole one.
        log: whether each factor is as likely as another, instead of each difference.
        step: between the numbers, or None.

    Raises:
        UsageError: at birth, when there is no such number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            is_number = (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and abs(value) <= sys.float_info.max  # a whole number may be beyond any float
            )
            if not is_number and not (name == "step" and value is None):
                raise UsageError(f"{name} of a range must be a finite number", got=repr(value))
        if not isinstance(self.log, bool):
            raise UsageError("log of a range must be true or false", got=repr(self.log))
        if not self.low < self.high:
            raise UsageError(
                "A range must go from low up to high", got=f"low={self.low}, high={self.high}"
            )
        if self.log and self.low <= 0:
            raise UsageError("A range by factors (log) must begin above 0", got=f"low={self.low}")
        if self.step is not None and (self.log or self.step <= 0):
            raise UsageError(
                "step must be a number above 0, without log",
                got=f"step={self.step}, log={self.log}",
            )

    def suggest(self, trial: Any, name: str) -> float:
        """Asks a trial of Optuna."""
        if (
            isinstance(self.low, int)
            and isinstance(self.high, int)
            and isinstance(self.step, int | None)
        ):
            return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A search space: name -> a :class:`Range`, or a tuple of choices."""

    parameters: Mapping[str, Range | tuple[Any, ...]]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise UsageError(
                "A search space must have a parameter", got="none", remedy=f"For example {_EXAMPLE}"
            )

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Returns a point of the space, from a trial of Optuna."""
        return {
            name: value.suggest(trial, name)
            if isinstance(value, Range)
            else trial.suggest_categorical(name, value)
            for name, value in self.parameters.items()
        }

    def with_real(self, names: Collection[str]) -> SearchSpace:
        """The same with ranges of whole numbers as ranges of real ones, for these parameters."""
        return SearchSpace(
            parameters={
                name: replace(value, low=float(value.low), high=float(value.high))
                if isinstance(value, Range) and name in names
                else value
                for name, value in self.parameters.items()
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The form in which files hold it."""
        return {
            name: {
                key: item
                for key, item in asdict(value).items()
                if item is not None and item is not False
            }
            if isinstance(value, Range)
            else list(value)
            for name, value in self.parameters.items()
        }

    @classmethod
    def from_json(cls, value: Any) -> SearchSpace:
        """The inverse of :meth:`to_json`.

        Raises:
            UsageError: it is not of that form, or a range holds nothing.
        """
        if not isinstance(value, Mapping):
            raise UsageError(
                "A search space must name its parameters", got=type(value).__name__, remedy=_EXAMPLE
            )
        return cls(
            parameters={str(name): _parameter(str(name), item) for name, item in value.items()}
        )

    @classmethod
    def load(cls, path: str | Path) -> SearchSpace:
        """Returns the space of a JSON or TOML file.

        Raises:
            UsageError: it cannot be read, or see :meth:`from_json`.
        """
        try:
            text = read_bytes(Path(path)).decode()
            value = tomllib.loads(text) if str(path).endswith(".toml") else parse_json(text)
        except OSError as error:
            raise UsageError(
                "A search space must be readable", got=f"{path}: {error.strerror}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise UsageError(
                "A search space must be a JSON or TOML file",
                got=f"{path}: {error}",
                remedy=f"For example {_EXAMPLE}",
            ) from error
        return cls.from_json(value)


def _parameter(name: str, value: Any) -> Range | tuple[Any, ...]:
    if isinstance(value, list):
        if not value or not all(_is_choice(item) for item in value):
            raise UsageError(
                f"Choices of {name} must be numbers, words, true, false or null", got=value
            )
        return tuple(value)
    if not isinstance(value, Mapping) or not {"low", "high"} <= value.keys() <= _KEYS:
        raise UsageError(
            f"{name} must be a list of choices, or a range with low and high, and log or step",
            got=value,
            remedy=f"For example {_EXAMPLE}",
        )
    try:
        return Range(**value)
    except UsageError as error:
        raise UsageError(f"{name}: {error.rule}", got=error.got, remedy=error.remedy) from error


def _is_choice(value: Any) -> bool:
    return (
        math.isfinite(value)
        if isinstance(value, float)
        else isinstance(value, int | str | bool | None)
    )
