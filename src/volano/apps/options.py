"""The options of applications, each declared once: as a field of a dataclass, with type, bounds,
unit and help.

From the declaration come the checks, the command line (``cli.generated``), ``run.json`` and the
guide's tables. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import sys
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from volano.errors import UsageError
from volano.plan.format import MOST_MINUTES

_METADATA = "option"
MOST_SEED = 2**63 - 1
_MOST_EPOCHS = 1_000_000
KEPT = ("last", "best")
_Function = typing.TypeVar("_Function", bound=typing.Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The declaration of an option: what is known beyond its name, type and default.

    Attributes:
        help: a sentence for a person.
        at_least, above, at_most: bounds of a number.
        multiple_of: the number of which a whole number is a multiple.
        choices: all values of a word.
        unit: the unit of a number, for example ``"px"``.
        flag: the flag on the command line, if it is not the name with dashes.
        is_path: whether a text names a file or a folder.
        may_be_path: whether it may do so, next to other things; a run stands for its folder.
        is_resolved: whether Volano sets it when a run begins, and no caller gives it.
        is_kept: whether a run's folder keeps it among its options.
        before: the value in folders that were written before the option was; None: its default.
    """

    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    multiple_of: int | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    flag: str | None = None
    is_path: bool = False
    may_be_path: bool = False
    is_resolved: bool = False
    is_kept: bool = True
    before: Any = None


def option(default: Any, help: str, **declared: Any) -> Any:
    """Returns a dataclass field that declares an option; see :class:`Declaration` for
    ``declared``."""
    return dataclasses.field(
        default=default, metadata={_METADATA: Declaration(help=help, **declared)}
    )


@dataclass(frozen=True, kw_only=True)
class OptionField:
    """An option as the dataclass has it: its declaration, ``name``, ``type`` (without None) and
    ``default``."""

    name: str
    type: type
    default: Any
    declaration: Declaration

    def check(self, value: Any) -> Any:
        """Returns a value in its type: a path as a text.

        Raises:
            UsageError: it is of another type, or out of bounds.
        """
        if value is None and self.default is None:
            return None
        if self.declaration.may_be_path:
            value = getattr(value, "path", value)
        if (self.declaration.is_path or self.declaration.may_be_path) and isinstance(value, Path):
            value = str(value)
        if not self._is_of_type(value) or not self._is_within(value):
            raise UsageError(f"`{self.name}` {self.rule}", got=repr(value))
        return value

    @property
    def rule(self) -> str:
        """Returns what a value must be, in words that follow the name."""
        declared = self.declaration
        unit = f" {declared.unit}" if declared.unit else ""
        if declared.choices:
            return f"must be one of {', '.join(declared.choices)}"
        if declared.is_path:
            return "must be a path"
        if self.type not in (int, float):
            return "must be True or False" if self.type is bool else "must be a text"
        kind = "a whole number" if self.type is int else "a number"
        if declared.multiple_of is not None:
            kind = f"a multiple of {declared.multiple_of}"
        if declared.at_least is not None and declared.at_most is not None:
            most = "2**63 - 1" if declared.at_most == MOST_SEED else f"{declared.at_most:,}"
            return f"must be {kind} from {declared.at_least:,} to {most}{unit}"
        if declared.at_least is not None:
            return f"must be {kind}, at least {declared.at_least:,}{unit}"
        above = f"must be {kind} above {declared.above or 0:,}{unit}"
        return above if declared.at_most is None else f"{above}, at most {declared.at_most:,}"

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return self.declaration.flag or f"--{self.name.replace('_', '-')}"

    def _is_of_type(self, value: Any) -> bool:
        if self.type in (int, float):
            # A whole number may be beyond any float, which `math.isfinite` refuses to tell.
            return (
                isinstance(value, int | self.type)
                and not isinstance(value, bool)
                and abs(value) <= sys.float_info.max
            )
        return isinstance(value, self.type)

    def _is_within(self, value: Any) -> bool:
        declared = self.declaration
        if declared.choices:
            return value in declared.choices
        if declared.is_path:
            return value != ""  # which would be the current folder: a variable that is not set
        return not (
            (declared.at_least is not None and value < declared.at_least)
            or (declared.above is not None and value <= declared.above)
            or (declared.at_most is not None and value > declared.at_most)
            or (declared.multiple_of is not None and value % declared.multiple_of)
        )


@dataclass(frozen=True, kw_only=True)
class DeclaredOptions:
    """The base of all options. A subclass is a frozen dataclass whose fields are made by
    :func:`option`.

    Raises:
        UsageError: at birth, when a value is of another type or out of bounds.
    """

    def __post_init__(self) -> None:
        for field in self.declared():
            object.__setattr__(self, field.name, field.check(getattr(self, field.name)))

    @classmethod
    @functools.cache
    def declared(cls) -> tuple[OptionField, ...]:
        """The options, in the order of their declaration."""
        hints = typing.get_type_hints(cls)
        return tuple(
            OptionField(
                name=field.name,
                type=_without_none(hints[field.name]),
                default=field.default,
                declaration=field.metadata[_METADATA],
            )
            for field in dataclasses.fields(cls)
        )

    @classmethod
    def given_names(cls) -> frozenset[str]:
        """The names of the options that a person may give."""
        return frozenset(
            field.name for field in cls.declared() if not field.declaration.is_resolved
        )

    @classmethod
    def of(cls, given: Mapping[str, Any], what: str) -> Self:
        """Returns the options with the values that were given.

        Args:
            given: name -> value.
            what: the thing to which they belong, in words.

        Raises:
            UsageError: one is not an option of it, or a value cannot be.
        """
        check_names(given, cls.given_names(), what)
        return cls(**given)

    def words(self, leave_out: Collection[str] = ()) -> list[str]:
        """Returns the options that differ from their defaults, as a command line gives them; a path
        stands first."""
        found: list[str] = []
        for field in self.declared():
            value = getattr(self, field.name)
            if field.name in leave_out or field.declaration.is_resolved or value == field.default:
                continue
            if field.name == "path":
                found.insert(0, str(value))
            else:
                found += [field.flag] if field.type is bool else [field.flag, f"{value}"]
        return found

    def to_json(self) -> dict[str, Any]:
        """The options that a run's folder keeps."""
        kept = [field.name for field in self.declared() if field.declaration.is_kept]
        return {name: getattr(self, name) for name in kept}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            TypeError: there are others.
            UsageError: a value cannot be.
        """
        before = {
            field.name: field.declaration.before
            for field in cls.declared()
            if field.declaration.before is not None
        }
        return cls(**{**before, **value})


def takes_options(options: type[DeclaredOptions]) -> typing.Callable[[_Function], _Function]:
    """Returns a decorator of a method with ``**options``: help and editors then show the declared
    ones."""

    def decorate(function: _Function) -> _Function:
        keyword = inspect.Parameter.KEYWORD_ONLY
        declared = [
            inspect.Parameter(field.name, keyword, default=field.default, annotation=field.type)
            for field in options.declared()
            if not field.declaration.is_resolved
        ]
        signature = inspect.signature(function)
        first = [
            item
            for item in signature.parameters.values()
            if item.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        function.__signature__ = signature.replace(parameters=[*first, *declared])  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return decorate


def check_names(given: Collection[str], names: Collection[str], what: str) -> None:
    """Raises UsageError for the first name that is not one of ``names``, with the nearest ones."""
    for name in sorted(given):
        if name not in names:
            others = [other for other in names if other != "path"]
            near = difflib.get_close_matches(name, others, n=3, cutoff=0.5)
            has = ", ".join(f"`{other}`" for other in near or sorted(others))
            raise UsageError(
                f"`{name}` is no option of {what}",
                remedy=f"{'Like it' if near else 'Options'}: {has}",
            )


@dataclass(frozen=True, kw_only=True)
class Options(DeclaredOptions):
    """The options that every application has. Resolved options (with ``num_steps``) make the same
    Task again."""

    path: str | None = option(None, "The data; without it, the embedded sample.", is_path=True)
    minutes: float | None = option(
        None,
        "Time for the whole command, turned into steps before the first; default 3, less on the "
        "sample and for labelled texts.",
        above=0,
        at_most=MOST_MINUTES,
        is_kept=False,
    )
    epochs: float | None = option(
        None, "Passes over the training data, instead of minutes.", above=0, at_most=_MOST_EPOCHS
    )
    num_steps: int | None = option(None, "Optimizer steps.", at_least=1, is_resolved=True)
    keep: str = option(
        "last", "Weights to keep: of the last step, or of the best evaluation.", choices=KEPT
    )
    patience: int | None = option(
        None, "Evaluations without a better one that end the run, with `keep` best.", at_least=1
    )
    seed: int = option(
        0, "Seed of splits, weights, order and augmentation.", at_least=0, at_most=MOST_SEED
    )
    tried: str | None = option(
        None, "The numbers of a study's trial for the recipe, as JSON.", is_resolved=True
    )

    def code_named(self) -> tuple[str, ...]:
        """Returns the references of Python code among the values."""
        return ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in self.declared():  # a run is resumed from anywhere
            value = getattr(self, field.name)
            if field.declaration.is_path and value is not None:
                object.__setattr__(self, field.name, str(Path(value).absolute()))
        if self.minutes is not None and self.epochs is not None:
            raise UsageError(
                "The length of a run must be given either as `minutes` or as `epochs`", got="both"
            )
        if self.patience is not None and self.keep != "best":
            raise UsageError("`patience` must come with `keep` best", got=f"{self.patience} alone")


@dataclass(frozen=True)
class Setting:
    """Says of a recipe's number what a study tries; kept in the metadata of its field.

    Attributes:
        low, high: bounds of what is tried, as functions of the recipe's own value; None: not tried
            by itself.
        is_logarithmic: whether each factor is as likely as another.
        is_tried: whether a search space may name it at all.
    """

    low: typing.Callable[[float], float] | None = None
    high: typing.Callable[[float], float] | None = None
    is_logarithmic: bool = False
    is_tried: bool = True

    @staticmethod
    def of(field: dataclasses.Field[Any]) -> Setting:
        """The setting of a recipe's field."""
        return field.metadata.get(_METADATA, Setting())


def tried_around(factor: float) -> Any:
    """Returns a field whose number a study tries from a ``factor``-th to ``factor`` times the
    recipe's own."""
    return _recipe_field(
        Setting(lambda value: value / factor, lambda value: value * factor, is_logarithmic=True)
    )


def tried_between(low: float, high: float, *, is_logarithmic: bool = False) -> Any:
    """Returns a field whose number a study tries between two bounds, which grow to hold the
    recipe's own."""
    return _recipe_field(
        Setting(lambda value: min(low, value), lambda value: max(high, value), is_logarithmic)
    )


def tried_up_to_twice() -> Any:
    """Returns a field whose whole number a study tries from none to twice the recipe's own."""
    return _recipe_field(Setting(lambda _: 0, lambda value: 2 * value))


def not_tried() -> Any:
    """Returns a field that no study tries: it follows from others, or is for looking only."""
    return _recipe_field(Setting(is_tried=False))


def _recipe_field(setting: Setting) -> Any:
    return dataclasses.field(metadata={_METADATA: setting})


def _without_none(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    return str if typing.get_origin(hint) is Literal else hint


def table_of(options: type[DeclaredOptions]) -> str:
    """Returns name, rule, default and help of each option that a person may give, as a table of the
    guide."""
    lines = ["| option | is | default | |", "|---|---|---|---|"]
    for field in options.declared():
        if not field.declaration.is_resolved:
            rule = field.rule.removeprefix("must be ")
            default = "" if field.default is None else f"`{field.default}`"
            lines.append(f"| `{field.name}` | {rule} | {default} | {field.declaration.help} |")
    return "\n".join(lines) + "\n"
