"""The command line. Thin: it parses, calls the verbs, prints.

Exit codes: 0 fine, 2 usage, 1 failure or a run that was stopped before its end.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import volano
from volano.cli import output
from volano.errors import VolanoError

app = typer.Typer(
    name="volano",
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
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Say what to train; Volano plans how."""


def main() -> None:
    """Entry point of the ``volano`` command."""
    from volano.cli import commands

    commands.register(app)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs a command and returns its exit code; a user's mistake is one message, not a traceback."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except VolanoError as error:
        if "--debug" in arguments:
            raise
        _report(f"error: {error}", arguments, {"error": str(error), "kind": type(error).__name__})
        return error.exit_code
    except KeyboardInterrupt:
        _report("interrupted", arguments, {"error": "interrupted", "kind": "KeyboardInterrupt"})
        return 1
    except Exception as error:
        if _is_usage(error):
            error.show()  # pyright: ignore[reportAttributeAccessIssue] - a ClickException
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


def _report(text: str, arguments: list[str], record: dict[str, Any]) -> None:
    output.warn(text)
    if "--json" in arguments:
        output.print_json(record)


def _is_usage(error: Exception) -> bool:
    # Typer may carry its own copy of click, whose exceptions are then other classes of the same name.
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)
