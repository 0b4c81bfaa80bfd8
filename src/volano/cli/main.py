"""The command line. Thin: it parses, calls the verbs, prints.

Exit codes: 0 fine, 2 usage, 1 failure or a run that was stopped before its end.
"""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import volano
from volano.cli import output
from volano.errors import VolanoError


class _InOrder(TyperGroup):
    """Lists the commands in the order in which a person meets them."""

    _ORDER = (
        "train",
        "resume",
        "explain",
        "explore",
        "eval",
        "predict",
        "generate",
        "export",
        "report",
        "doctor",
    )

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands."""
        names = super().list_commands(ctx)
        return [name for name in self._ORDER if name in names] + [
            name for name in names if name not in self._ORDER
        ]


app = typer.Typer(
    name="volano",
    cls=_InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        output.say(f"volano {volano.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Say what to train; Volano plans how."""


def main() -> None:
    """Runs the ``volano`` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs a command and returns its exit code; a user's mistake is one message, not a
    traceback."""
    from volano.cli import commands

    commands.register(app)
    try:
        code = app(args=arguments, standalone_mode=False)
    except VolanoError as error:
        if "--debug" in arguments:
            raise
        text = in_flags(str(error), arguments)
        _report(f"error: {text}", arguments, {"error": text, "kind": type(error).__name__})
        return error.exit_code
    except KeyboardInterrupt:
        _report("interrupted", arguments, {"error": "interrupted", "kind": "KeyboardInterrupt"})
        return 1
    except Exception as error:
        if _is_usage(error):
            error.show()  # pyright: ignore[reportAttributeAccessIssue] - a ClickException
            owners = _owners(getattr(error, "option_name", ""))
            if owners:
                output.warn(
                    f"{getattr(error, 'option_name', '')} is an option of: {', '.join(owners)}"
                )
            if "--json" in arguments:
                output.print_json({"error": error.format_message(), "kind": "UsageError"})  # pyright: ignore[reportAttributeAccessIssue]
            return 2
        if "--debug" in arguments:
            raise
        text = f"{type(error).__name__}: {error}"
        _report(
            f"error: {text}\nThis was not foreseen; --debug shows the whole traceback.",
            arguments,
            {"error": text},
        )
        return 1
    return int(code or 0)


def in_flags(text: str, arguments: list[str]) -> str:
    """Writes the parameters that a message names in backquotes as the command line does:
    `image_size`, --image-size.

    Options of a person's own application are those that stand among the arguments.
    """
    from volano.cli.generated import flags_of

    if "`" not in text:
        return text
    given = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    own = {flag[2:].replace("-", "_"): flag for flag in given}
    # The help of `explore` lists the applications, which have no --resume.
    others = {"path": "PATH", "resume": "--resume"}
    flags = {**own, **flags_of(typer.main.get_command(app)), **others}
    return re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), text)


def _report(text: str, arguments: list[str], record: dict[str, Any]) -> None:
    output.warn(text)
    if "--json" in arguments:
        output.print_json(record)


def _owners(flag: str) -> list[str]:
    """The applications that have an option of this name, for one that was given with another."""
    from volano.apps.kinds import APPLICATIONS
    from volano.cli.generated import flag_of

    return [
        name for name, options in APPLICATIONS.items() if flag in map(flag_of, options.declared())
    ]


def _is_usage(error: Exception) -> bool:
    # Typer may carry its own copy of click, whose exceptions are then other classes of the same
    # name.
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)
