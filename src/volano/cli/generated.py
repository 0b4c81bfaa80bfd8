"""Makes commands from declarations: an application's options, and parameters that several commands
share."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from volano.apps.options import DeclaredOptions, OptionField


def flag_parameters(
    options: type[DeclaredOptions], *, panel: str | None = None, leave_out: Iterable[str] = ()
) -> list[inspect.Parameter]:
    """Returns a command's parameters for the options that a person may give; ``path`` is an
    argument."""
    left_out = set(leave_out)
    fields = [field for field in options.declared() if not field.declaration.is_resolved]
    flags = {field.name: field.flag for field in fields}
    return [_parameter(field, panel, flags) for field in fields if field.name not in left_out]


def parameters_from(template: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns the parameters of a function that is written down for them."""
    return list(inspect.signature(template, eval_str=True).parameters.values())


def function_of(
    function: Callable[..., int], parameters: Iterable[inspect.Parameter]
) -> Callable[..., int]:
    """Returns a function with the given parameters, for a typer to make a command of; it calls
    ``function`` with their values by name."""
    unique = {
        parameter.name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in parameters
    }

    def call(**values: Any) -> int:
        return function(**values)

    call.__signature__ = inspect.Signature(list(unique.values()))  # pyright: ignore[reportFunctionMemberAccess]
    call.__annotations__ = {name: parameter.annotation for name, parameter in unique.items()}
    return call


def command_of(
    function: Callable[..., int], parameters: Iterable[inspect.Parameter], *, name: str, help: str
) -> Any:
    """Returns a command with the given parameters that calls ``function`` with their values by
    name."""
    alone = typer.Typer(
        context_settings={"help_option_names": ["-h", "--help"]}, add_completion=False
    )
    alone.command(name, cls=PlainCommand, help=help)(function_of(function, parameters))
    return typer.main.get_command(alone)


def given(values: dict[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """Returns the values that a person gave, all or those of some names."""
    wanted = values.keys() if names is None else values.keys() & set(names)
    return {name: values[name] for name in values if name in wanted and values[name] is not None}


class PlainCommand(TyperCommand):
    """A command whose help shows a type for options that take a value, and for no others."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with the option of help."""
        return _flags_without_type(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group whose help does so too."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with the option of help."""
        return _flags_without_type(super().get_params(ctx))


def _flags_without_type(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class GroupByFirst(PlainGroup):
    """A command whose first argument decides which options it has: ``volano train image --size
    thin``.

    A subclass says with :meth:`named` which command a name stands for, and with :attr:`shown` which
    are listed in its help. An option in the place of the name stands for the name "".
    """

    shown: typing.ClassVar[tuple[str, ...]] = ()

    def named(self, name: str) -> Any:
        """Returns the command for a name."""
        raise NotImplementedError

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - of the library
        """The names that the help lists."""
        return list(self.shown)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - of the library
        """The command for a name."""
        command = self.named(cmd_name)
        command.name = cmd_name
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the name "" before options that stand first; behind ``--`` stands no option."""
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help", "--"):
            args = ["", *args]
        return super().parse_args(ctx, args)


def group_of(kind: type[GroupByFirst], help: str, metavar: str) -> typer.Typer:
    """Returns a typer of a :class:`GroupByFirst`, to be added under its name."""
    return typer.Typer(cls=kind, help=help, no_args_is_help=True, subcommand_metavar=metavar)


def flag_of(field: OptionField) -> str:
    """Returns an option's flag on the command line."""
    return field.flag


def _parameter(
    field: OptionField, panel: str | None, flags: Mapping[str, str]
) -> inspect.Parameter:
    declared = field.declaration
    hint = Path if declared.is_path else field.type
    text = re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), declared.help)
    if field.default not in (None, False, "", "auto") and "auto" not in declared.choices:
        text = f"{text} Default {field.default}."
    if declared.choices:
        text = f"{', '.join(declared.choices)}. {text}"
    info: Any
    if field.name == "path":
        info = typer.Argument(help=text, metavar="PATH")
    else:
        info = typer.Option(flag_of(field), help=text, rich_help_panel=panel)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[hint | None, info],
    )


def flags_of(command: Any, found: dict[str, str] | None = None) -> dict[str, str]:
    """Returns how a command and those below it write each parameter: name -> flag, or metavar of an
    argument."""
    found = {} if found is None else found
    for parameter in command.params:
        flags = [flag for flag in parameter.opts if flag.startswith("--")]
        found.setdefault(parameter.name, flags[0] if flags else parameter.name.upper())
    for name in command.list_commands(None) if hasattr(command, "list_commands") else ():
        flags_of(command.get_command(None, name), found)
    return found
