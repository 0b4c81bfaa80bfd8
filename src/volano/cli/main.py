"""The command line. Thin: it parses, calls the verbs, prints.

Exit codes: 0 fine, 2 usage, 1 failure or a run that was stopped before its end.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import volano
from volano.cli import output
from volano.cli.interrupts import enter, say_interrupted
from volano.errors import RunError, VolanoError

_TYPER_INTERRUPTED = 130  # what Typer makes of a KeyboardInterrupt in a command


class _InOrder(TyperGroup):
    """Lists the commands in the order in which a person meets them."""

    _ORDER = (
        "train",
        "resume",
        "explain",
        "explore",
        "run",
        "bench",
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
    """Runs the ``volano`` command; what was installed earlier calls it by this name."""
    enter(lambda: run)


def run(arguments: list[str], has_been_interrupted: Callable[[], bool] = lambda: False) -> int:
    """Runs a command and returns its exit code; a user's mistake is one message, not a
    traceback. Code that was interrupted may raise anything."""
    from volano.cli import commands

    commands.register(app)
    try:
        code = int(app(args=arguments, standalone_mode=False) or 0)
        return say_interrupted(arguments) if code == _TYPER_INTERRUPTED else code
    except KeyboardInterrupt:
        return say_interrupted(arguments)
    except BaseException as error:
        if isinstance(error, Exception) and _is_usage(error):
            return _report_usage(error, arguments)
        if "--debug" in arguments:
            raise
        if has_been_interrupted():
            return say_interrupted(arguments)
        said = _foreseen(error)
        if said is None:
            text = f"{type(error).__name__}: {error}"
            hint = "\nThis was not foreseen; --debug shows the whole traceback."
            _report(f"error: {text}{hint}", arguments, {"error": text})
            return 1
        text = in_flags(str(said), arguments)
        _report(f"error: {text}", arguments, {"error": text, "kind": type(said).__name__})
        return said.exit_code


def _foreseen(error: BaseException) -> VolanoError | None:
    """Returns what an exception says in Volano's words: its own ones, and the kinds that any system
    raises anywhere; None for a defect."""
    if isinstance(error, VolanoError):
        return error
    if isinstance(error, SystemExit):
        return RunError(
            "Code that is trained must return, not end the program", got=f"SystemExit: {error.code}"
        )
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return RunError(
            "The system must allow it", got=": ".join([*names, error.strerror or str(error)])
        )
    if isinstance(error, UnicodeError):
        return RunError("Text must be valid in its encoding", got=str(error))
    if isinstance(error, MemoryError):
        return RunError("The memory of the machine must suffice", got=str(error) or "too little")
    return None


def _report_usage(error: Any, arguments: list[str]) -> int:
    """Says what is wrong with a command line. Returns the exit code."""
    with contextlib.suppress(OSError, ValueError):
        error.show()
    owners = _owners(getattr(error, "option_name", ""))
    if owners:
        output.warn(f"{error.option_name} is an option of: {', '.join(owners)}")
    if "--json" in arguments:
        output.print_error({"error": error.format_message(), "kind": "UsageError"})
    return 2


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
    others = {"path": "PATH", "resume": "--resume", "build": "MODULE:BUILD"}
    others |= {"seconds": "--seconds", "scratch": "--scratch"}  # of a script that is explained
    flags = {**own, **flags_of(typer.main.get_command(app)), **others}
    return re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), text)


def _report(text: str, arguments: list[str], record: dict[str, Any]) -> None:
    output.warn(text)
    if "--json" in arguments:
        output.print_error(record)


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
