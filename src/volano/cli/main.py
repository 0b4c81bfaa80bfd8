"""The command line. Thin: it parses, calls the verbs, prints.

Exit codes: 0 fine, 2 usage, 1 failure or a run that was stopped before its end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import volano
from volano.cli import output
from volano.cli.generated import PlainGroup, flag_of, flags_of
from volano.cli.interrupts import enter, say_interrupted
from volano.errors import RunError, UsageError, VolanoError, noted_caller
from volano.record.files import remedy_of
from volano.record.format import parameters_worded

_TYPER_INTERRUPTED = 130  # what Typer makes of a KeyboardInterrupt in a command
# Options whose values name files, folders or code; applications declare theirs.
_PATHS = ("--out", "--csv", "--from", "--code", "--plan", "--space", "--resume", "--scratch")


class _InOrder(PlainGroup):
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
    """Say what to train; Volano plans how.

    volano train image                         the embedded sample, half a minute
    volano train image ./photos --minutes 10   a folder of images for each class
    volano explain image ./photos              the plan and why; trains nothing
    volano COMMAND --help                      more about a command
    """


def main() -> None:
    """Runs the ``volano`` command; what was installed earlier calls it by this name."""
    enter(lambda: run)


def run(arguments: list[str], has_been_interrupted: Callable[[], bool] = lambda: False) -> int:
    """Runs a command and returns its exit code; a user's mistake is one message, not a
    traceback. Code that was interrupted may raise anything."""
    from volano.cli import commands

    commands.register(app)
    try:
        with parameters_worded(lambda text: in_flags(text, arguments)):
            _check_words(arguments)
            code = int(app(args=arguments, prog_name="volano", standalone_mode=False) or 0)
        return say_interrupted(arguments) if code == _TYPER_INTERRUPTED else code
    except KeyboardInterrupt:
        return say_interrupted(arguments)
    except BaseException as error:
        if isinstance(error, Exception) and _is_usage(error):
            return _report_usage(error, arguments)
        if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
            return 1  # rich's end when the reader of a table has gone, as in `| head`
        if "--debug" in arguments:
            raise
        if has_been_interrupted():
            return say_interrupted(arguments)
        said = _foreseen(error)
        if said is None:
            text = f"{type(error).__name__}: {error}"
            place = _place_of_own(error) or noted_caller(error)
            what = f"It was raised by {place}" if place else "This was not foreseen"
            hint = f"\n{what}; --debug shows the whole traceback."
            _report(f"error: {text}{hint}", arguments, {"error": text})
            return 1
        text = in_flags(str(said), arguments)
        _report(f"error: {text}", arguments, {"error": text, "kind": type(said).__name__})
        return said.exit_code


def _check_words(arguments: list[str]) -> None:
    """Refuses an empty word where a path stands: as a path it would be the current folder. A
    script's own words are its own."""
    from volano.apps.kinds import APPLICATIONS
    from volano.cli.explain import is_script

    fields = [field for options in APPLICATIONS.values() for field in options.declared()]
    paths = {*_PATHS, *(field.flag for field in fields if field.declaration.is_path)}
    is_own = arguments[:1] == ["run"]
    for before, word in zip([*arguments[:1], *arguments], arguments, strict=False):
        is_own = is_own or (arguments[0] == "explain" and (is_script(word) or word == "-m"))
        is_path = before in paths or not before.startswith("-")
        is_nothing = is_path if not word else word.endswith("=") and word[:-1] in paths
        if is_nothing and not is_own:
            raise UsageError(
                "A path must have a name",
                got="an empty one",
                remedy="A variable of the shell may not be set; the current folder is called .",
            )


def _place_of_own(error: BaseException) -> str | None:
    """Returns the line of a person's own code that raised an exception, or called what did; None
    if none of it was running."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    others = [Path(volano.__file__).parent, *(Path(sysconfig.get_path(name)) for name in names)]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_file() and not any(map(file.is_relative_to, others)):
            here = Path(os.path.relpath(file)) if file.is_relative_to(Path.cwd()) else file
            return f"{here}:{frame.lineno}, in {frame.name}"
    return None


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
            "The file or the device must be accessible",
            got=": ".join([*names, error.strerror or str(error)]),
            remedy=remedy_of(error) if error.errno != errno.ENOENT else None,
        )
    if isinstance(error, UnicodeError):
        return RunError("Text must be readable in its encoding, usually UTF-8", got=str(error))
    if _is_lack_of_memory(error):
        got = str(error).partition("\n")[0] or "too little"
        return RunError("There must be enough memory on this machine", got=got)
    return None


def _is_lack_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from volano.training import is_out_of_memory

    return is_out_of_memory(error)


def _report_usage(error: Any, arguments: list[str]) -> int:
    """Says what is wrong with a command line. Returns the exit code."""
    with contextlib.suppress(OSError, ValueError):
        error.show()
    is_unknown = type(error).__name__ == "NoSuchOption"
    owners = _owners(error.option_name) if is_unknown else []
    if owners and set(owners).isdisjoint(arguments):
        output.warn(f"{error.option_name} is an option of: {', '.join(owners)}")
    elif owners:
        verb, kind = arguments[0], next(word for word in arguments if word in owners)
        output.warn(f"{error.option_name} is an option of volano train {kind}, not of {verb}")
    if "--json" in arguments:
        output.print_error({"error": error.format_message(), "kind": "UsageError"})
    return 2


def in_flags(text: str, arguments: list[str]) -> str:
    """Writes the parameters that a message names in backquotes as the command line does:
    `image_size`, --image-size.

    Options of a person's own application are those that stand among the arguments.
    """
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

    return [
        name for name, options in APPLICATIONS.items() if flag in map(flag_of, options.declared())
    ]


def _is_usage(error: Exception) -> bool:
    # Typer may carry its own copy of click, whose exceptions are then other classes of the same
    # name.
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)
